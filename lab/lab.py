"""A temporary folder and what runs in it; all of it ends with its ``Lab``."""

from __future__ import annotations

import socket
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from lab.processes import LabError, Process, free_port, redis_binary
from lab.redis_servers import RedisServer

_START_SECONDS = 60.0


class Api:
    """An API process, which listens on a port of the loopback address."""

    def __init__(self, process: Process, port: int) -> None:
        self.process = process
        self.port = port
        self.url = f"http://127.0.0.1:{port}"

    def wait(self) -> None:
        """Wait until it takes connections."""
        self.process.wait_for_text("Application startup complete")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise LabError("the API does not listen") from None
                time.sleep(0.02)


class Lab:
    """Starts things in a temporary folder; leaving it ends them all, the last one first."""

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        # Not below pytest's folder: a unix socket's path has 107 characters at most.
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-lab-")))
        self.folder.chmod(0o755)  # nginx's worker may be another user
        self._number = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def path(self, name: str) -> Path:
        """A path in the folder that nobody else has."""
        self._number += 1
        return self.folder / f"{name}-{self._number}"

    def at_end(self, end: Callable[[], object]) -> None:
        """What is to be done when the lab ends."""
        self._stack.callback(end)

    def process(self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> Process:
        """Start a program; its output goes to a file of the folder."""
        process = Process(command, self.path(name).with_suffix(".log"), extra or {})
        self.at_end(process.stop)
        return process

    def redis(
        self, *options: str, extra: Mapping[str, str] | None = None, binary: str | None = None
    ) -> RedisServer:
        """Start a Redis server, which keeps nothing unless told: a fork would be noise in measurements."""
        server = RedisServer(binary or redis_binary(), *options, extra=extra)
        self.at_end(server.close)
        return server

    def start_worker(self, redis_url: str, extra: Mapping[str, str]) -> Process:
        """Start a worker process of ours, without waiting; ``extra`` are variables of its environment."""
        extra = {"REDIS_URL": redis_url, "CRONSPACE_EGRESS_ALLOW": "127.0.0.1", **extra}
        return self.process("worker", [sys.executable, "-m", "app", "worker"], extra)

    def worker(self, redis_url: str, places: int, **settings: str) -> Process:
        """Start a worker process and wait until it works."""
        process = self.start_worker(redis_url, {"CRONSPACE_MAX_JOBS": str(places), **settings})
        wait_for_worker(process)
        return process

    def start_api(self, redis_url: str, extra: Mapping[str, str]) -> Api:
        """Start the API, without waiting."""
        port = free_port()
        extra = {"REDIS_URL": redis_url, "PORT": str(port), "CRONSPACE_AUTH": "none", **extra}
        return Api(self.process("api", [sys.executable, "-m", "app", "api"], extra), port)

    def api(self, redis_url: str) -> Api:
        """Start the API and wait until it takes connections."""
        api = self.start_api(redis_url, {})
        api.wait()
        return api


def wait_for_worker(process: Process) -> None:
    """Wait until a worker works."""
    process.wait_for_text(" works; ")
