"""What several tests need: definitions, an account, a worker, a target that records."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Container
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple

import pytest
from conftest import START

from app.clock import day_of
from app.keys import kind_of, split_execution_id
from app.models import Attempt, Definition
from app.store import Shard, executions, history, queue, workers
from app.store.queue import Claimed, Ended
from app.store.shard import reply
from workers.transport import Transport
from workers.worker import Worker

EVERY_MINUTE = "* * * * *"


def define(cron: str = EVERY_MINUTE, url: str = "http://127.0.0.1:9/hook", **fields: Any) -> Definition:
    """A definition with what a test does not care about filled in."""
    return Definition(**{"cron": cron, "url": url, "method": "POST", **fields})


def numbered(count: int, cron: str = EVERY_MINUTE, **fields: Any) -> list[tuple[str, Definition]]:
    """A set of ``count`` triggers with the ids "0", "1", …"""
    return [(str(index), define(cron, **fields)) for index in range(count)]


def succeeded(execution: Claimed, now: int) -> Ended:
    """The outcome of a request that went well."""
    return Ended(execution.id, execution.token, "succeeded", 0, Attempt(now, 5, 200, "", "", "ok", "w"))


def failed(execution: Claimed, now: int, what: Any = "failed", delay_ms: int = 0) -> Ended:
    """The outcome of a request that did not."""
    made = Attempt(now, 5, 500, "status", "the target answered 500", "", "w")
    return Ended(execution.id, execution.token, what, delay_ms, made)


async def claim_all(shard: Shard, worker: str = "w", at_most: int = 100, number: int = 1) -> list[Claimed]:
    """Claim what is ready."""
    return (await queue.claim(shard, worker, number, at_most)).executions


async def open_ids(shard: Shard, workspace: str) -> set[str]:
    """The ids of all executions that have not ended."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        for name in executions.OPEN_SETS:
            pipe.zrange(shard.keys.of(workspace, name), 0, -1)
        return {id_.decode() for ids in await pipe.execute() for id_ in ids}


async def day_counts(shard: Shard, workspace: str, day: int) -> dict[str, history.Counted]:
    """What was counted for each trigger on a day."""
    counts: dict[str, history.Counted] = {}
    for field, number in (await reply(shard.redis.hgetall(shard.keys.of(workspace, f"day:{day}")))).items():
        trigger, what = field.decode().split(":", 1)
        if trigger:
            counts.setdefault(trigger, {})[what] = int(number)
    return counts


async def accounts_balance(shard: Shard, workspace: str, *days: int) -> Counter[str]:
    """Assert that due = final states + open for every trigger; returns the totals of the days."""
    totals: Counter[str] = Counter()
    still_open: Counter[tuple[str, int]] = Counter()
    for id_ in await open_ids(shard, workspace):
        _, trigger, slot = split_execution_id(id_)
        if kind_of(id_) is None:
            still_open[trigger, day_of(slot)] += 1
    for day in days:
        for trigger, counts in (await day_counts(shard, workspace, day)).items():
            final = sum(
                n for what, n in counts.items() if what != "due" and not what.startswith("unscheduled")
            )
            assert counts.get("due", 0) == final + still_open[trigger, day], (trigger, counts)
            totals.update(counts)
        totals["open"] += sum(number for (_, on), number in still_open.items() if on == day)
    return totals


async def bytes_balance(shard: Shard, workspace: str) -> tuple[int, int, int]:
    """What is noted of the bytes of a set, of open requests and of dead letters' is what is stored."""
    of, redis = shard.keys.of, shard.redis
    meta = await reply(redis.hgetall(of(workspace, "meta")))
    definitions = await reply(redis.hvals(of(workspace, "definitions")))
    requests = await reply(redis.hgetall(of(workspace, "requests")))
    letters = set(await redis.zrange(of(workspace, "failed"), 0, -1))
    stored = sum(map(len, definitions))
    opened = sum(len(one) for id_, one in requests.items() if id_ not in letters)
    kept = sum(len(one) for id_, one in requests.items() if id_ in letters)
    assert meta.get(b"bytes", b"0:0") == meta.get(b"revision", b"0") + b":%d" % stored
    assert [int(meta.get(name, 0)) for name in (b"requests", b"open_bytes", b"letter_bytes")] == [
        len(requests),
        opened,
        kept,
    ]
    return stored, opened, kept


def run_twice(shard: Shard, but: Container[str] = ()) -> None:
    """What a lost reply leads to: each script runs again with the same arguments, but for some."""
    run = shard.run

    async def twice(name: str, *args: Any, **more: Any) -> Any:
        if name not in but:
            await run(name, *args, **more)
        return await run(name, *args, **more)

    shard.run = twice  # type: ignore[method-assign]


def note_threads(monkeypatch: pytest.MonkeyPatch, *functions: tuple[Any, str]) -> list[int]:
    """The threads that functions, each told by its place and name, are called in from now on."""
    threads: list[int] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any) -> Any:
            threads.append(threading.get_ident())
            return function(*args)

        return called

    for place, name in functions:
        monkeypatch.setattr(place, name, noted(getattr(place, name)))
    return threads


async def cpu_seconds(shard: Shard) -> float:
    """What this process and the shard's Redis have used so far; a busy machine makes it no more."""
    used = await shard.redis.info("cpu")
    return time.process_time() + float(used["used_cpu_user"]) + float(used["used_cpu_sys"])


def in_seconds(moment: float) -> str:
    """The six-field expression that fires once a day, at that second."""
    when = time.gmtime(moment)
    return f"{when.tm_sec} {when.tm_min} {when.tm_hour} * * *"


async def today(shard: Shard) -> tuple[int, int]:
    """The days to look at in an account: a test may run over midnight."""
    day = day_of(await shard.now_ms())
    return day - 1, day


async def heartbeat(shard: Shard, name: str = "w", running: int = 0) -> None:
    """A worker's sign of life."""
    facts = workers.Facts(name=name, version="1.2.3", started=START, capacity=10, running=running)
    await workers.note(shard, name, facts)


async def spoil(shard: Shard, workspace: str, trigger: str) -> bytes:
    """Make a stored expression one that can't be computed; returns the definition as it was stored."""
    definitions = shard.keys.of(workspace, "definitions")
    packed = bytes(await reply(shard.redis.hget(definitions, trigger)) or b"")
    await reply(shard.redis.hset(definitions, trigger, packed.replace(b"* * * * *", b"* * * * 9")))
    return packed


@asynccontextmanager
async def worker_running(shard: Shard) -> AsyncIterator[Worker]:
    """A worker in this process, stopped at the end of the block."""
    settings = shard.settings
    worker = Worker(shard, Transport(settings.snippet_bytes, settings.max_response_bytes, settings.max_jobs))
    running = asyncio.create_task(worker.main())
    try:
        yield worker
    finally:
        worker.stop()
        await running
        await worker.close()


class Received(NamedTuple):
    """A request at the target."""

    at: float  # seconds since the epoch
    method: str
    path: str
    headers: dict[str, str]  # lower-case names
    raw_headers: list[tuple[str, str]]
    body: bytes


Answer = bytes | Callable[[Received, asyncio.StreamWriter], Any]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Target:
    """A real HTTP server on loopback that records every request.

    ``answer`` is what it writes, or a function (plain or async) that writes something odd itself.
    """

    def __init__(self, answer: Answer = OK) -> None:
        self.answer = answer
        self.received: list[Received] = []
        self.connections = 0
        self.url = ""
        self.hold = asyncio.Event()
        self.hold.set()
        self._serving: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        self._readers: list[asyncio.StreamReader] = []

    def hung_up(self) -> int:
        """How many connections the callers have closed."""
        return sum(reader.at_eof() or reader.exception() is not None for reader in self._readers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.current_task()
        assert task is not None
        self._serving[task] = writer
        self._readers.append(reader)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip().split("\r\n")
                raw = [(n, v) for n, _, v in (line.partition(": ") for line in lines)]
                headers = {name.lower(): value for name, value in raw}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                method, path, _ = first.split(" ")
                request = Received(time.time(), method, path, headers, raw, body)
                self.received.append(request)
                await self.hold.wait()
                if isinstance(self.answer, bytes):
                    writer.write(self.answer)
                else:
                    done = self.answer(request, writer)
                    if asyncio.iscoroutine(done):
                        await done
                await writer.drain()
                if writer.is_closing():
                    return
        writer.close()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Target]:
        """Listen until the block ends."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=1024)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task, writer in self._serving.items():
                task.cancel()
                writer.transport.abort()
            await asyncio.gather(*self._serving, return_exceptions=True)
            await asyncio.sleep(0)  # the loop closes aborted transports in its next round
