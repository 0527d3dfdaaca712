"""`cronspace dev`: starts everything, says where it is, keeps it running, ends it.

supervisor ─┬─► guard    ends the others when the supervisor is killed
            ├─► Redis    on a unix socket in the data folder (not with --redis-url)
            ├─► API      on a port of 127.0.0.1
            └─► worker
"""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
import socket
import sys
import sysconfig
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from pathlib import Path

from redis.exceptions import RedisError

from app.config import Settings, load_settings
from app.dev import demo, embedded, folder, options
from app.dev.children import Child, Guard, say
from app.errors import DevError
from app.store import Shard, connect
from app.store.connection import address_of
from app.store.shard import reply

_HOST = "127.0.0.1"
_UP_SECONDS = 60.0
_WORKER_GRACE_SECONDS = 3.0  # what running requests get; all has to be over within ten seconds
_STOP_SECONDS, _STOP_REDIS_SECONDS = 6.0, 2.0
_LEAST_REDIS_SECONDS = 1.0  # even in a hurry, so that it can flush its file
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run(argv: Sequence[str]) -> None:
    """Run until SIGINT, SIGTERM or SIGHUP. Raises :class:`DevError` when it can't start."""
    settings = load_settings()
    given = options.parse(argv, settings.port)
    binary = None if given.redis_url else embedded.find_binary()
    lock = None
    if binary is not None:
        folder.prepare(given.data)
        lock = folder.lock(given.data)
        embedded.check_data(given.data, binary)
    with _take_port(given.port) as holder:
        port: int = holder.getsockname()[1]
        if sys.platform != "linux":
            holder.close()  # elsewhere the API could not bind it as long as we hold it
        asyncio.run(Supervisor(settings, given, port, binary, lock).main())


def _take_port(port: int) -> socket.socket:
    """A socket bound to the port, 0: to a free one. It does not listen, so the API can bind it as well, and
    until then nobody else gets it.
    """
    holder = socket.socket()
    holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        holder.bind((_HOST, port))
    except OSError as error:
        holder.close()
        raise DevError(
            f"can't listen on {_HOST}:{port} ({error.strerror}): choose another port with --port N"
        ) from error
    return holder


class Supervisor:
    """One run. ``binary`` and ``lock`` (a file descriptor) are None with a Redis that is not ours."""

    def __init__(
        self,
        settings: Settings,
        given: options.Options,
        port: int,
        binary: embedded.Binary | None,
        lock: int | None,
    ) -> None:
        self._settings = settings
        self._given = given
        self._port = port
        self._binary = binary
        self._socket = None if binary is None else embedded.socket_path(given.data)
        self._redis_url = given.redis_url if self._socket is None else embedded.url(self._socket)
        self._guard = Guard(lock)
        self._redis: Child | None = None
        self._programs: list[Child] = []  # API and worker
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()

    async def main(self) -> None:
        """Run until a signal; ends every child, whatever happens."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # run with nohup
            loop.add_signal_handler(number, self._on_signal)
        work = asyncio.create_task(self._work())
        stop = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([work, stop], return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                work.result()
        finally:
            self._stop.set()  # a signal from here on is for haste
            work.cancel()
            await asyncio.wait([work, stop])
            await self._end_all()

    def _on_signal(self) -> None:
        if self._stop.is_set():
            self._hurry.set()
        else:
            say("stopping (once more: at once)")
            self._stop.set()

    async def _work(self) -> None:
        """Start all, say so, and stay."""
        await self._guard.start()
        shard = self._connect()
        try:
            if self._binary is not None and self._socket is not None:
                self._redis = self._child(
                    "Redis", 1, embedded.command(self._binary, self._given.data, self._socket)
                )
            await self._until_redis_answers(shard)
            started = await shard.now_ms()
            self._programs = [self._child("the API", 0, _program("api"))]
            self._programs.append(self._child("the worker", 0, _program("worker")))
            await self._until(lambda: _is_healthy(self._port), "the API does not answer")
            await self._until(lambda: _has_pulse(shard, started), "the worker does not work")
            has_demo = self._binary is not None and await demo.load(shard, self._port)
        except RedisError as error:
            raise DevError(f"Redis can't be used: {str(error) or type(error).__name__}") from error
        except OSError as error:
            raise DevError(f"can't start: {error}") from error
        finally:
            await shard.redis.aclose()
        for child in self._children():
            child.keep = True
            self._raise_failure(child)
        self._print_banner(has_demo)
        if self._given.reload:
            from app.dev.reload import restart_on_change  # what it needs is not loaded without need

            await restart_on_change(self._programs)
        await asyncio.Event().wait()

    async def _end_all(self) -> None:
        """API and worker first: the worker records its last outcomes. Then Redis, and the guard."""
        await asyncio.gather(*(child.stop(_STOP_SECONDS, self._hurry) for child in self._programs))
        if self._redis is not None:
            await self._redis.stop(_STOP_REDIS_SECONDS, self._hurry, _LEAST_REDIS_SECONDS)
        await self._guard.stop()
        if self._socket is not None:
            with suppress(OSError):
                embedded.remove_socket(self._given.data, self._socket)

    def _connect(self) -> Shard:
        try:
            settings = load_settings(redis_url=self._redis_url)
            return Shard(connect(settings), settings)
        except ValueError as error:
            raise DevError(f"--redis-url can't be used: {error}") from error

    def _child(self, name: str, order: int, command: Sequence[str]) -> Child:
        child = Child(name, order, command, self._environ(), self._guard)
        child.start()
        return child

    def _environ(self) -> dict[str, str]:
        environ = {
            **os.environ,
            "REDIS_URL": self._redis_url,
            "PORT": str(self._port),
            "CRONSPACE_HOST": _HOST,
            "CRONSPACE_ECHO": "1",
            "CRONSPACE_AUTH": "none",  # and only on loopback
            "CRONSPACE_EGRESS_ALLOW": "*",  # what is tried out is on this machine, or beside it
            "CRONSPACE_GRACE_SECONDS": f"{min(self._settings.grace_seconds, _WORKER_GRACE_SECONDS):g}",
        }
        if self._binary is not None:
            environ["CRONSPACE_STATE_DIR"] = str(self._given.data)
        # Children run with -P, or a folder `app` in the working directory would be taken for ours.
        root = str(Path(__file__).parents[2])
        if root not in (sysconfig.get_path("purelib"), sysconfig.get_path("platlib")):
            environ["PYTHONPATH"] = os.pathsep.join(filter(None, [root, environ.get("PYTHONPATH")]))
        return environ

    def _children(self) -> list[Child]:
        return [*([] if self._redis is None else [self._redis]), *self._programs]

    def _raise_failure(self, child: Child) -> None:
        if child.failure:
            raise DevError(f"{child.name} {child.failure} while starting: its messages above say why")

    async def _until_redis_answers(self, shard: Shard) -> None:
        if self._redis is None:
            try:
                await shard.redis.ping()
            except (RedisError, OSError) as error:
                raise DevError(f"can't use Redis at {address_of(self._redis_url)}: {error}") from error
            return

        async def answers() -> bool:
            try:
                return bool(await shard.redis.ping())
            except (RedisError, OSError):  # not there yet, or still reading its file
                return False

        log = f" (its log: {self._given.data / embedded.LOG_NAME})" if self._binary is not None else ""
        await self._until(answers, f"Redis does not answer{log}")
        if self._binary is not None:
            embedded.note_version(self._given.data, self._binary)

    async def _until(self, check: Callable[[], Awaitable[bool]], otherwise: str) -> None:
        """Wait for a check; raises :class:`DevError` when a child ends, or it takes too long."""
        deadline = time.monotonic() + _UP_SECONDS
        while not await check():
            for child in self._children():
                self._raise_failure(child)
            if time.monotonic() > deadline:
                raise DevError(f"{otherwise} after {_UP_SECONDS:g} s")
            await asyncio.sleep(0.03)

    def _print_banner(self, has_demo: bool) -> None:
        api = f"http://{_HOST}:{self._port}"
        workspace = demo.WORKSPACE if has_demo else "WORKSPACE"
        if self._binary is not None:
            redis = f"{shlex.quote(self._binary.cli)} -s {shlex.quote(str(self._socket))}"
            data = str(self._given.data)
        else:
            redis, data = address_of(self._redis_url), "in that Redis"
        rows = [
            ("API", api),
            ("Docs", f"{api}/docs"),
            ("Health", f"{api}/health"),
            ("Echo", f"{api}/echo"),
            ("Executions", f"{api}/api/workspaces/{workspace}/executions"),
            ("Redis", redis),
            ("Data", data),
        ]
        lines = [f"  {name:<12}{value}" for name, value in rows]
        with suppress(OSError):
            print(
                "\n".join(["", "Cronspace runs.", "", *lines, "", "Ctrl-C stops everything.", ""]), flush=True
            )


def _program(name: str) -> list[str]:
    return [sys.executable, "-P", "-m", "app", name]


async def _is_healthy(port: int) -> bool:
    """Whether the API answers /health."""
    try:
        async with asyncio.timeout(2):
            reader, writer = await asyncio.open_connection(_HOST, port)
            try:
                writer.write(f"GET /health HTTP/1.1\r\nHost: {_HOST}\r\nConnection: close\r\n\r\n".encode())
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except OSError:  # TimeoutError is one, too
        return False


async def _has_pulse(shard: Shard, since_ms: int) -> bool:
    """Whether a worker asked for work since then, by Redis's clock."""
    return int(await reply(shard.redis.hget(shard.keys.root, "pulse")) or 0) >= since_ms
