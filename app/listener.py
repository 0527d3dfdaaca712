"""The socket that a process listens on."""

from __future__ import annotations

import errno
import socket

from app.errors import ConfigError

_OTHER = "Choose another port with {setting}."
_HINTS = {
    errno.EADDRINUSE: f"is something else running there? {_OTHER}",
    errno.EACCES: f"it is for the administrator only. {_OTHER}",
}


def listen(host: str, port: int, setting: str) -> socket.socket:
    """A bound socket; raises :class:`ConfigError`, naming the ``setting``, when the port can't be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        hint = _HINTS.get(error.errno or 0, "is CRONSPACE_HOST an address of this machine?")
        raise ConfigError(
            f"can't listen on {host}:{port} ({error.strerror}): {hint.format(setting=setting)}"
        ) from error
    listener.set_inheritable(True)
    return listener
