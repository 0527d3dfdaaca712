"""The socket that a process listens on."""

from __future__ import annotations

import socket

from app.errors import ConfigError


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket; raises :class:`ConfigError`, naming the ``setting``, when the port can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"can't listen on {host}:{port} ({error.strerror}): is something else running there? Choose"
            f" another port with {setting}."
        ) from error
    listener.set_inheritable(True)
    return listener
