"""Real Redis processes: one server, or a primary with replicas and sentinels. Each has a folder of its own,
and listens on a unix socket, and on a free port of loopback where others have to reach it.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

import redis

from lab.processes import LabError, Process, embedded_redis_binary, free_port, redis_binary

DATABASES = 512  # of a server
_UP_SECONDS = 20.0


def redis_binaries() -> dict[str, str]:
    """The servers to test on: the embedded one, and the distribution's where it is installed."""
    found = {
        "embedded": embedded_redis_binary(),
        "system": shutil.which("redis-server", path="/usr/local/bin:/usr/bin"),
    }
    return {name: path for name, path in found.items() if path is not None}


class RedisServer:
    """A Redis server; ``port`` 0: on a unix socket only. It keeps its folder when it is killed. ``config`` is
    the text of its configuration file, if it is to have one, and ``extra`` are variables of its environment.

    Unless ``options`` say otherwise it keeps nothing on disk.
    """

    def __init__(
        self,
        binary: str,
        *options: str,
        port: int = 0,
        config: str = "",
        extra: Mapping[str, str] | None = None,
    ) -> None:
        # Not below pytest's folder: a unix socket's path has 107 characters at most.
        self.folder = Path(tempfile.mkdtemp(prefix="cs-"))
        self.socket = str(self.folder / "s")
        self.port = port
        self.client = redis.Redis(unix_socket_path=self.socket, socket_timeout=5)
        self._extra = extra or {}
        listening = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", self.socket]
        kept = ["--dir", str(self.folder), "--databases", str(DATABASES), "--save", ""]
        file = self.folder / "redis.conf"
        if config:
            file.write_text(config)
        self.command = [binary, *([str(file)] if config else []), *listening, *kept, *options]
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it has loaded what it kept."""
        self.process = Process(self.command, self.folder / "log", self._extra)
        deadline = time.monotonic() + _UP_SECONDS
        while time.monotonic() < deadline and self.process.alive():
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(self.socket)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.01)
        raise LabError(f"redis-server did not start:\n{self.process.said()[-2000:]}")

    def close(self) -> None:
        """End it and remove its folder."""
        self.client.close()
        self.process.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: int = 0) -> str:
        """Its ``REDIS_URL``."""
        return f"unix://{self.socket}?db={database}"

    def used_memory(self) -> int:
        """Bytes that it has allocated. Settled: what is freed in the background has been by then."""
        time.sleep(0.2)
        info = self.client.info("memory")
        assert isinstance(info, dict)
        return int(info["used_memory"])


class Replicated:
    """A primary and its replicas; ``sentinels`` watch it and put a replica in its place when it is gone."""

    NAME = "mymaster"

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 0,
        *,
        binary: str | None = None,
        down_after_ms: int = 500,
        options: Sequence[str] = (),
    ) -> None:
        binary = binary or redis_binary()
        self.servers: list[RedisServer] = []  # the first one is the primary at the beginning
        self.sentinels: list[RedisServer] = []
        with ExitStack() as undo:
            undo.callback(self.close)
            options = ("--repl-diskless-sync-delay", "0", *options)
            primary = self._add(self.servers, binary, *options)
            for _ in range(replicas):
                self._add(self.servers, binary, *options, "--replicaof", "127.0.0.1", str(primary.port))
            _wait(lambda: self._replicas_of(primary) == replicas, "the replicas did not connect")
            for _ in range(sentinels):
                config = (
                    f"sentinel monitor {self.NAME} 127.0.0.1 {primary.port} {sentinels // 2 + 1}\n"
                    f"sentinel down-after-milliseconds {self.NAME} {down_after_ms}\n"
                    f"sentinel failover-timeout {self.NAME} 3000\n"
                )
                self._add(self.sentinels, binary, "--sentinel", config=config)
            for sentinel in self.sentinels:
                _wait(lambda one=sentinel: self._knows_all(one, replicas), "the sentinels do not meet")
            undo.pop_all()

    @property
    def primary(self) -> RedisServer:
        """The server that takes writes now: of those that say so the one that became it last."""
        for server in reversed(self.servers):
            if server.process.alive() and server.client.role()[0] == b"master":
                return server
        raise LabError("there is no primary")

    def url(self, database: int = 0) -> str:
        """``REDIS_URL`` by way of the sentinels; without any the first server's."""
        if not self.sentinels:
            return f"redis://127.0.0.1:{self.servers[0].port}/{database}"
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}/{database}"

    def promote(self, index: int) -> None:
        """Make a replica the primary, and the others its replicas, as a failover does."""
        chosen = self.servers[index]
        chosen.client.replicaof("NO", "ONE")
        for server in self.servers:
            if server is not chosen and server.process.alive():
                server.client.replicaof("127.0.0.1", chosen.port)

    def close(self) -> None:
        """End all of them."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def _add(self, to: list[RedisServer], binary: str, *options: str, config: str = "") -> RedisServer:
        for _ in range(5):  # somebody else may take the port before we do
            with suppress(LabError):
                to.append(RedisServer(binary, *options, port=free_port(), config=config))
                return to[-1]
        raise LabError("redis-server found no port")

    def _replicas_of(self, server: RedisServer) -> int:
        info = server.client.info("replication")
        assert isinstance(info, dict)
        return sum(info.get(f"slave{n}", {}).get("state") == "online" for n in range(9))

    def _knows_all(self, sentinel: RedisServer, replicas: int) -> bool:
        known = sentinel.client.sentinel_master(self.NAME)
        others = len(self.sentinels) - 1
        return known["num-slaves"] == replicas and known["num-other-sentinels"] == others


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise LabError(otherwise)
        time.sleep(0.02)
