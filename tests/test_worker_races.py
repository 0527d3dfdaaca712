"""A worker whose claims, outcomes and cancellations cross each other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from conftest import Clock, ShardFactory, eventually
from helpers import Target, define

from app.models import State
from app.store import Shard, executions, queue, ticking, triggers
from app.store.queue import Claimed
from workers.transport import Transport
from workers.worker import Worker

pytestmark = pytest.mark.anyio


@pytest.fixture
async def worker(make_shard: ShardFactory) -> AsyncIterator[Worker]:
    """A worker whose loops do not run: tests call their bodies."""
    shard = make_shard(grace_seconds=0)
    settings = shard.settings
    made = Worker(shard, Transport(settings.snippet_bytes, settings.max_response_bytes, settings.max_jobs))
    yield made
    await made.close()


async def make_ready(shard: Shard, clock: Clock, url: str, **fields: Any) -> None:
    await triggers.replace(shard, "acme", [("0", define("0 * * * *", url=url, **fields))])
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    await ticking.fire_due(shard)


async def claimed_by(worker: Worker) -> list[Claimed]:
    """Claims made for a worker, which it has not heard of yet."""
    return (await queue.claim(worker._shard, worker._identity, 1, 10)).executions


async def test_an_execution_that_is_cut_off_before_its_first_step_leaves_no_place_taken(
    worker: Worker, clock: Clock
) -> None:
    await make_ready(worker._shard, clock, "http://127.0.0.1:9/")
    (one,) = await claimed_by(worker)
    worker.sender.start(one, 1e12, worker._outgoing.usual)
    worker.sender.abort(one.id)
    await asyncio.wait(worker.tasks.values())
    assert worker.tasks == {}
    assert worker.sender.held == {}


async def test_a_stopping_worker_releases_what_it_has_not_begun_to_send(worker: Worker, clock: Clock) -> None:
    shard = worker._shard
    await make_ready(shard, clock, "http://127.0.0.1:9/", delivery="at_most_once")
    (one,) = await claimed_by(worker)
    worker.sender.start(one, 1e12, worker._outgoing.usual)
    worker.tasks[one.id].cancel()
    await asyncio.wait(worker.tasks.values())
    await worker.finish()
    found = await executions.get(shard, "acme", one.id)
    assert found is not None
    assert (found.state, found.attempts) == (State.QUEUED, [])
    assert [again.id for again in (await queue.claim(shard, "next", 1, 10)).executions] == [one.id]


async def test_a_retry_that_is_claimed_before_its_outcome_is_answered_is_sent(
    worker: Worker, clock: Clock
) -> None:
    shard = worker._shard
    async with Target(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n").running() as target:
        await make_ready(shard, clock, target.url, retry_delay_seconds=0, max_retries=1)
        await worker.claim()
        await eventually(lambda: worker.sender.ended)
        run = shard.run

        async def claim_before_the_reply(name: str, *args: Any, **more: Any) -> Any:
            answer = await run(name, *args, **more)
            if name == "finish_executions":
                await worker.claim()
            return answer

        shard.run = claim_before_the_reply  # type: ignore[method-assign]
        await worker.finish()
        shard.run = run  # type: ignore[method-assign]
        await eventually(lambda: worker.sender.ended)
        await worker.finish()
        assert [request.headers["cronspace-attempt"] for request in target.received] == ["1", "2"]
    (letter,) = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
    assert [one.kind for one in letter.attempts] == ["status", "status"]
    assert worker.sender.held == {}


async def test_an_attempt_whose_reply_was_lost_is_not_recorded_again_as_the_next(
    worker: Worker, clock: Clock
) -> None:
    shard = worker._shard
    async with Target(b"HTTP/1.1 503 X\r\ncontent-length: 0\r\n\r\n").running() as target:
        await make_ready(shard, clock, target.url, retry_delay_seconds=0, max_retries=2)
        await worker.claim()
        await eventually(lambda: worker.sender.ended)
        run = shard.run

        async def lose_the_reply(name: str, *args: Any, **more: Any) -> Any:
            await run(name, *args, **more)
            raise ConnectionError("lost")

        shard.run = lose_the_reply  # type: ignore[method-assign]
        with pytest.raises(ConnectionError):
            await worker.finish()
        shard.run = run  # type: ignore[method-assign]
        await worker.claim()  # the next attempt, before it is heard that this one is recorded
        while worker.sender.held:
            await worker.finish()
            await worker.claim()
            await asyncio.wait(worker.tasks.values()) if worker.tasks else None
        assert [request.headers["cronspace-attempt"] for request in target.received] == ["1", "2", "3"]
    (letter,) = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
    assert len(letter.attempts) == 3
    assert worker.sender.held == {}


@pytest.mark.parametrize("sent", [False, True])
async def test_an_attempt_that_fails_by_a_fault_of_ours_is_not_held_for_ever(
    worker: Worker, clock: Clock, monkeypatch: pytest.MonkeyPatch, sent: bool
) -> None:
    shard = worker._shard

    async def fail(*args: Any) -> Any:
        worker.sender.held[one.id].begun = sent
        raise ValueError("no such luck")

    await make_ready(shard, clock, "http://127.0.0.1:9/")
    (one,) = await claimed_by(worker)
    monkeypatch.setattr(worker.sender, "_attempt", fail)
    worker.sender.start(one, 1e12, worker._outgoing.usual)
    await eventually(lambda: worker.sender.ended)
    await worker.finish()
    assert worker.sender.held == {}
    found = await executions.get(shard, "acme", one.id)
    assert found is not None
    assert [made.message for made in found.attempts] == (["ValueError: no such luck"] if sent else [])
    assert found.state == (State.FAILED if sent else State.QUEUED)


async def test_a_slow_reply_while_a_worker_stops_loses_no_outcome(worker: Worker, clock: Clock) -> None:
    shard = worker._shard
    async with Target().running() as target:
        await make_ready(shard, clock, target.url)
        run, asked, again = shard.run, asyncio.Event(), asyncio.Event()

        async def slow_reply(name: str, *args: Any, **more: Any) -> Any:
            answer = await run(name, *args, **more)
            if name == "finish_executions":
                if asked.is_set():
                    again.set()
                    for _ in range(20):  # the first reply goes before, if anybody still waits for it
                        await asyncio.sleep(0)
                else:
                    asked.set()
                    await again.wait()
            return answer

        shard.run = slow_reply  # type: ignore[method-assign]
        running = asyncio.create_task(worker.main())
        await asked.wait()
        worker.stop()
        await running
    assert worker.sender.ended == []
    assert worker.finisher.failures == 0
    assert worker.jobs_complete == 1
