"""The Redis processes of the lab, which the chaos suite has, too."""

from __future__ import annotations

from lab.redis_servers import DATABASES, RedisServer, Replicated, any_binary, free_port, redis_binaries

__all__ = ["DATABASES", "RedisServer", "Replicated", "any_binary", "free_port", "redis_binaries"]
