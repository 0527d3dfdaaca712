"""The guard: ends the children of a supervisor that can't do so itself any more.

Run by its path (``python -I -S guard.py …``), standard library only, so that it starts fast and stays small:

``guard.py watch``
    reads lines ``+pid order`` and ``-pid`` from stdin, a pipe whose write end the supervisor holds. At its
    end it ends the pids that are left: the lower orders first, SIGTERM, then SIGKILL.
``guard.py run ORDER FD COMMAND…``
    announces itself on the pipe FD, then becomes COMMAND. As this process holds the write end until then,
    the guard knows of every child, even when the supervisor is killed right after it forked.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress

TERM_SECONDS = 6.0  # what the first group gets after SIGTERM
LAST_TERM_SECONDS = 2.0  # what each later group gets: Redis has only to flush its file


def watch(pipe: int) -> None:
    """Follow the lines until the pipe's end, then end what is left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pipe ends the guard
    orders: dict[int, int] = {}
    rest = b""
    while chunk := os.read(pipe, 4096):
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            words = line[1:].split()
            if line.startswith(b"+"):
                orders[int(words[0])] = int(words[1])
            else:
                orders.pop(int(words[0]), None)
    for place, order in enumerate(sorted(set(orders.values()))):
        group = [pid for pid, its in orders.items() if its == order]
        end(group, LAST_TERM_SECONDS if place else TERM_SECONDS)


def end(pids: list[int], seconds: float) -> None:
    """End processes: SIGTERM, and SIGKILL after ``seconds``."""
    for pid in filter(is_alive, pids):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + seconds
    while any(map(is_alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.02)
    for pid in filter(is_alive, pids):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)  # each child leads a group: what it forked goes, too


def is_alive(pid: int) -> bool:
    """Whether it runs and is a child of ours: each leads its session, one that got its number does not."""
    try:
        if os.getsid(pid) != pid:
            return False
    except OSError:
        return False
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state = file.read().rpartition(b")")[2].split()[0]
    except FileNotFoundError:
        # It ended just now, or this system has no /proc.
        return not os.path.exists("/proc/self/stat")
    except OSError:
        return False
    return state not in (b"Z", b"X")  # a zombie has ended, even if nobody reaps it


def become(order: int, pipe: int, command: list[str]) -> None:
    """Announce this process, then run a command in its place."""
    os.write(pipe, b"+%d %d\n" % (os.getpid(), order))
    os.set_inheritable(pipe, False)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"{command[0]}: {error.strerror}")


if __name__ == "__main__":
    if sys.argv[1] == "watch":
        watch(0)
    else:
        with suppress(BrokenPipeError):  # guard and supervisor are gone: nothing to be run any more
            become(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])
