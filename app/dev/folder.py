"""The data folder: private, and of one supervisor at a time."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from app.errors import DevError

_LOCK = "lock"
_WAIT_SECONDS = 2.0  # for another that may just be stopping
_WAIT_DEAD_SECONDS = 12.0  # for the guard of a killed one, which still ends its children
_STEP_SECONDS = 0.05


def prepare(data: Path) -> None:
    """Make the folder, for its owner only.

    Raises :class:`DevError` when that fails, or when it is a folder with things that are not ours.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        if not (data / _LOCK).exists() and any(data.iterdir()):
            raise DevError(f"{data} has other files in it: choose an empty or a new folder with --data")
        data.chmod(0o700)
    except OSError as error:
        raise DevError(
            f"can't use the folder {data} ({error.strerror}): choose another with --data"
        ) from error


def lock(data: Path) -> int:
    """Lock the folder, until the returned file descriptor and every inherited one are closed.

    Waits a little for one that is stopping; raises :class:`DevError` when it stays locked.
    """
    try:
        fd = os.open(data / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevError(
            f"can't use the folder {data} ({error.strerror}): choose another with --data"
        ) from error
    begun = time.monotonic()
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip()
            patience = _WAIT_SECONDS if _is_alive(holder) else _WAIT_DEAD_SECONDS
            if time.monotonic() - begun > patience:
                os.close(fd)
                raise DevError(
                    f"another `cronspace dev` uses {data} (pid {holder or 'unknown'}): stop it,"
                    " or choose another folder with --data"
                ) from None
            time.sleep(_STEP_SECONDS)
        else:
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
            return fd


def _is_alive(pid: str) -> bool:
    if not pid.isdecimal():
        return True
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass
    return True
