"""Cronspace: a Redis-native scheduler of HTTP requests, per workspace."""

__version__ = "0.1.0"
