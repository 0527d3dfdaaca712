"""A real Redis for every test: one server per test process, a database per test."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from functools import partial
from typing import Any

import hypothesis
import pytest
import redis

from app.config import Settings
from app.store import Shard, connect
from lab.machine import usable_cores
from lab.redis_servers import DATABASES, RedisServer, redis_binaries
from workers.transport import Transport

LOOPBACK = "127.0.0.0/8"  # where the tests' targets are: CRONSPACE_EGRESS_ALLOW

# The same examples in each run, unless more of them are asked for (see strategies.py): what fails in a plain
# run is the fault of a change.
hypothesis.settings.register_profile(
    "steady",
    derandomize="CRONSPACE_EXAMPLES" not in os.environ,
    deadline=None,  # how long an example takes says more about the machine
)
hypothesis.settings.load_profile("steady")


def pytest_xdist_auto_num_workers() -> int:
    """Twice as many test processes as cores: half of a test's time is waiting for what others do."""
    return 2 * usable_cores()


START = 1_790_000_000_000  # 2026-09-21T14:13:20Z, a Monday


@pytest.fixture(scope="session", params=sorted(redis_binaries()))
def redis_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """One server per test process and kind of binary."""
    server = RedisServer(redis_binaries()[request.param])
    yield server
    server.close()


@pytest.fixture(params=sorted(redis_binaries()))
def own_redis(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server of the test's own, of each kind of binary, which it may kill, fill and configure."""
    server = RedisServer(redis_binaries()[request.param])
    yield server
    server.close()


_databases = itertools.count()


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """An empty database of the test's own."""
    number = next(_databases)
    url = redis_server.url(number % DATABASES)
    if number >= DATABASES:  # an earlier test had it
        with redis.Redis.from_url(url) as client:
            client.flushdb()
    return url


class Clock:
    """The time that the scripts take for Redis's, in ms; tests move it."""

    def __init__(self, now: int = START) -> None:
        self.now = now

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += round(seconds * 1000)


class Monotonic:
    """A monotonic clock that is moved by hand, seconds."""

    now = 5000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    """A clock that stands still until it is moved."""
    return Clock()


ShardFactory = Callable[..., Shard]


@pytest.fixture
def anyio_backend() -> str:
    """Async tests run on asyncio."""
    return "asyncio"


@pytest.fixture
async def shard_at(clock: Clock) -> AsyncIterator[ShardFactory]:
    """Shards by their Redis's URL: ``shard_at(url, real_time=True, max_concurrency=3, …)``."""
    made: list[Shard] = []

    def make(redis_url: str, real_time: bool = False, **given: Any) -> Shard:
        settings = Settings(**{"redis_url": redis_url, "egress_allow": LOOPBACK, **given})
        made.append(Shard(connect(settings), settings, now=None if real_time else clock))
        return made[-1]

    yield make
    for shard in made:
        await shard.redis.aclose()


@pytest.fixture
def make_shard(redis_url: str, shard_at: ShardFactory) -> ShardFactory:
    """Shards on the test's database: ``make_shard(real_time=True, max_concurrency=3, …)``."""
    return partial(shard_at, redis_url=redis_url)


@pytest.fixture
def shard(make_shard: ShardFactory) -> Shard:
    """A shard with the default settings, on the test's clock."""
    return make_shard()


StartProcess = Callable[..., Awaitable[asyncio.subprocess.Process]]


@pytest.fixture
async def start_process(redis_url: str) -> AsyncIterator[StartProcess]:
    """Starts processes on the test's database, ``start_process("worker", CRONSPACE_MAX_JOBS="3")``; none
    outlives its test.
    """
    started: list[asyncio.subprocess.Process] = []

    async def start(
        command: str, stdout: int | None = None, stderr: int | None = None, **environment: str
    ) -> asyncio.subprocess.Process:
        given = {"REDIS_URL": redis_url, "CRONSPACE_EGRESS_ALLOW": LOOPBACK, **environment}
        started.append(
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app", command),
                env={**os.environ, **given},
                stdout=stdout,
                stderr=stderr,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.returncode is None:
            process.kill()
            await process.wait()


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    """What sends requests; it outlives no test."""
    transport = Transport(keep=4096, read_at_most=1_048_576, places=10)
    yield transport
    await transport.aclose()


async def eventually(condition: Callable[[], Any], timeout: float = 15.0) -> Any:
    """Wait until a condition (plain or async) is true; returns what it gave."""
    deadline = time.monotonic() + timeout
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"not true within {timeout} s: {condition}")
        await asyncio.sleep(0.01)
