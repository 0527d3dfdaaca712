"""`max_rate`: so many requests of a workspace a second. What is beyond waits, and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

import pytest
from conftest import Clock, ShardFactory, eventually
from helpers import (
    Target,
    accounts_balance,
    claim_all,
    define,
    failed,
    in_seconds,
    numbered,
    open_ids,
    succeeded,
    worker_running,
)

from app.clock import day_of
from app.models import Definition
from app.store import Shard, orders, queue, ticking, triggers, upkeep, workspaces
from app.store.queue import Claimed
from app.store.shard import reply
from app.store.workspaces import WorkspaceSettings

pytestmark = pytest.mark.anyio

Sent = tuple[float, Claimed]  # seconds since the beginning


async def send_all(
    shard: Shard, clock: Clock, seconds: float, first: int = 1, what: str = "succeeded"
) -> list[Sent]:
    """Do for a while what a worker does: sleep until there is more to do, fire, claim, finish."""
    sent: list[Sent] = []
    begun, end = clock.now, clock.now + seconds * 1000
    for number in range(first, first + 10_000):
        fired = await ticking.fire_due(shard)
        claim = await queue.claim(shard, "w", number, 100)
        sent += [((clock.now - begun) / 1000, one) for one in claim.executions]
        ends = [
            succeeded(one, clock.now) if what == "succeeded" else failed(one, clock.now, "retry", 5000)
            for one in claim.executions
        ]
        await queue.finish(shard, ends)
        next_look = min(fired.next_look or end, claim.next_ready or end) if not ends else clock.now
        if next_look > end or clock.now >= end:
            break
        clock.now = max(clock.now, int(next_look))
    return sent


async def store(shard: Shard, workspace: str, entries: Sequence[tuple[str, Definition]], rate: float) -> None:
    await triggers.replace(shard, workspace, entries)
    await workspaces.configure(shard, workspace, WorkspaceSettings(max_rate=rate))


def times(sent: list[Sent], workspace: str = "acme") -> list[float]:
    return [at for at, one in sent if one.workspace == workspace]


@pytest.mark.parametrize("places", [0, 10])
async def test_fifty_slots_at_once_take_five_seconds_at_ten_a_second(
    make_shard: ShardFactory, clock: Clock, places: int
) -> None:
    shard = make_shard(max_concurrency=places, keep_succeeded=1000)
    await store(shard, "acme", numbered(50), rate=10)
    await triggers.replace(shard, "other", numbered(50))
    clock.now = clock.now // 60_000 * 60_000 + 60_000
    sent = await send_all(shard, clock, 20)
    assert times(sent) == pytest.approx([number / 10 for number in range(50)])
    assert times(sent, "other") == [0.0] * 50
    slots = [one.slot for _, one in sent if one.workspace == "acme"]
    assert slots == sorted(slots)
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals == {"due": 50, "succeeded": 50, "open": 0}
    assert await shard.redis.zcard(shard.keys.paced) == 0


@pytest.mark.parametrize(("rate", "seconds"), [(0.5, 58), (3, 29 / 3), (300, 0.1), (2000, 0.02)])
async def test_a_rate_is_reached_and_never_passed(
    make_shard: ShardFactory, clock: Clock, rate: float, seconds: float
) -> None:
    shard = make_shard(max_concurrency=0, keep_succeeded=1000, max_rate=rate)
    await triggers.replace(shard, "acme", numbered(30, "0 * * * *"))
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    sent = times(await send_all(shard, clock, 100))
    assert len(sent) == 30
    assert sent[-1] == pytest.approx(seconds, abs=0.03)
    for first, begun in enumerate(sent):
        for last in range(first, len(sent)):
            assert last - first + 1 <= 1 + rate * (sent[last] - begun + 0.1) + 0.01


async def test_removing_or_changing_a_rate_takes_effect_at_once(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=0, keep_succeeded=1000)
    await store(shard, "acme", numbered(50, "0 * * * *"), rate=0.001)
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    assert len(await send_all(shard, clock, 5)) == 1
    await workspaces.change(shard, "acme", {"max_rate": 10})
    assert len(await send_all(shard, clock, 2.05, 20_000)) == 20
    await workspaces.change(shard, "acme", {"max_rate": None})
    assert len(await claim_all(shard, number=40_000)) == 29


async def test_what_is_tried_again_counts(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=0)
    await store(shard, "acme", numbered(10, "0 * * * *"), rate=2)
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    sent = times(await send_all(shard, clock, 30, what="failed"))
    assert len(sent) == pytest.approx(60, abs=2)  # each comes back 5 s after it failed
    gaps = [after - before for before, after in pairwise(sent)]
    assert min(gaps) >= 0.4
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_runs_by_hand_and_caught_up_slots_count(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=0, keep_succeeded=1000)
    await store(shard, "acme", [("t", define("0 * * * *", catch_up_missed="all"))], rate=1)
    await orders.make(shard, "acme", "run", [orders.Order("t", clock.now) for _ in range(5)])
    slots = [clock.now // 3_600_000 * 3_600_000 - number * 3_600_000 for number in range(5)]
    await orders.make(shard, "acme", "backfill", [orders.Order("t", slot) for slot in slots], yielding=True)
    sent = times(await send_all(shard, clock, 20))
    assert sent == pytest.approx([float(number) for number in range(10)])


async def test_an_execution_that_was_taken_over_counts_once_more(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard()
    await store(shard, "acme", numbered(2, "0 * * * *"), rate=0.1)
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    await ticking.fire_due(shard)
    (lost,) = await claim_all(shard, "dead")
    for _ in range(3):
        clock.advance(5)
        await queue.renew(shard, {})
        await ticking.fire_due(shard)
    assert lost.id in [one.id for one in await claim_all(shard, "living")]
    opens = await reply(shard.redis.hget(shard.keys.of("acme", "meta"), "opens"))
    assert float(opens or 0) == clock.now + 15_000  # three in 15 seconds: the next is due at 30


async def test_a_clock_that_goes_back_holds_nothing_up(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=0, keep_succeeded=1000)
    await store(shard, "acme", numbered(30, "0 * * * *"), rate=1)
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    await ticking.fire_due(shard)
    clock.advance(2400)
    assert len(await send_all(shard, clock, 5)) == 7
    clock.advance(-1800)
    assert len(await send_all(shard, clock, 5, 20_000)) in (5, 6)


async def test_an_erased_workspace_leaves_nothing_of_its_rate(shard: Shard, clock: Clock) -> None:
    await store(shard, "acme", numbered(5), rate=0.1)
    clock.advance(60)
    await ticking.fire_due(shard)
    assert await shard.redis.zcard(shard.keys.paced) == 1
    await upkeep.erase(shard, "acme")
    await upkeep.finish_erasing(shard)
    assert await shard.redis.zcard(shard.keys.paced) == 0
    assert await open_ids(shard, "acme") == set()


async def test_a_worker_sends_at_the_rate(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, worker_running(make_shard(real_time=True)):
        await store(shard, "acme", numbered(15, in_seconds(time.time() + 2), url=target.url), rate=10)
        await eventually(lambda: len(target.received) == 15)
    took = target.received[-1].at - target.received[0].at
    assert 1.3 - 0.1 <= took < 2.5
