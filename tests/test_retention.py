"""What is kept, for how long, and that nothing grows without bound."""

from __future__ import annotations

import pytest
from conftest import START, Clock, ShardFactory
from helpers import claim_all, define, failed, numbered, succeeded

from app.clock import day_of
from app.models import LastSlot, State
from app.store import Shard, executions, queue, ticking, triggers, upkeep

pytestmark = pytest.mark.anyio


async def work(shard: Shard, clock: Clock, rounds: int, outcome: str = "succeeded") -> int:
    """Fire and finish what is due, a minute a round; returns how many executions ended."""
    ended = 0
    for _ in range(rounds):
        clock.advance(60)
        while True:
            fired = await ticking.fire_due(shard)
            claimed = await claim_all(shard, number=clock.now * 1000 + ended, at_most=500)
            ends = [
                succeeded(one, clock.now) if outcome == "succeeded" else failed(one, clock.now)
                for one in claimed
            ]
            await queue.finish(shard, ends)
            ended += len(ends)
            if not claimed and not fired.handled:
                break
        await ticking.refill(shard, 1000)
    return ended


async def all_keys(shard: Shard) -> int:
    return int(await shard.redis.dbsize())


async def test_each_state_keeps_its_number_and_arqs_keys_go_along(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(keep_succeeded=10, keep_failed=7)
    await triggers.replace(shard, "acme", numbered(20))
    await work(shard, clock, 3)
    await work(shard, clock, 2, "failed")
    assert await shard.redis.zcard(shard.keys.of("acme", "succeeded")) == 10
    assert await shard.redis.zcard(shard.keys.of("acme", "failed")) == 7
    results = [key async for key in shard.redis.scan_iter("arq:*")]
    assert len(results) == 17


async def test_many_finished_executions_leave_redis_no_larger_than_a_few(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=0)
    await triggers.replace(shard, "acme", numbered(100))
    assert await work(shard, clock, 10) == 1000
    keys = await all_keys(shard)
    sizes = {}
    for key in [key async for key in shard.redis.scan_iter()]:
        if b"arq:" not in key and not key.endswith(b":beats"):  # bounded by themselves
            sizes[key] = await shard.redis.memory_usage(key, samples=0)
    assert await work(shard, clock, 60) == 6000
    assert await all_keys(shard) <= keys + 1
    for key, size in sizes.items():
        now = await shard.redis.memory_usage(key, samples=0) or 0
        # `last` grows until each trigger has twice its 50 slots: 17 bytes each, and no further.
        assert now <= size * 1.3 + (100 * 17 * 100 if key.endswith(b":last") else 1024), key
    await work(shard, clock, 20)
    assert await shard.redis.memory_usage(shard.keys.of("acme", "last"), samples=0) <= 100 * (17 * 100 + 100)


async def test_a_workspace_in_which_nothing_finishes_any_more_is_trimmed_by_age(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard()
    await triggers.replace(shard, "quiet", [("s", define()), ("f", define(url="http://127.0.0.1:9/f"))])
    await work(shard, clock, 5)
    await triggers.replace(shard, "quiet", [])
    clock.advance(86_400 - 60)
    await upkeep.trim_finished(shard)
    assert 0 < await shard.redis.zcard(shard.keys.of("quiet", "succeeded")) < 10
    clock.advance(600)
    while await upkeep.trim_finished(shard):
        pass
    assert await shard.redis.zcard(shard.keys.of("quiet", "succeeded")) == 0
    assert [key async for key in shard.redis.scan_iter("arq:*")] == []


async def test_failed_executions_have_no_age_limit(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    await work(shard, clock, 2, "failed")
    await triggers.replace(shard, "acme", [])
    clock.advance(400 * 86_400)
    await upkeep.trim_finished(shard)
    assert len((await executions.list_newest(shard, "acme", state=State.FAILED)).executions) == 2


async def test_the_last_slots_outlive_their_executions(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(keep_succeeded=1, keep_slots=4)
    await triggers.replace(shard, "acme", numbered(1))
    await work(shard, clock, 9)
    slots = await executions.last_slots(shard, "acme", "0")
    assert len(slots) == 4
    slot = clock.now // 60_000 * 60_000
    assert slots[0] == LastSlot(slot, State.SUCCEEDED, 200, clock.now - slot, 5)


async def test_daily_counters_go_after_their_days(shard: Shard) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    now = Clock(await shard.redis.time() and START)
    await work(shard, now, 1)
    key = shard.keys.of("acme", f"day:{day_of(START)}")
    if await shard.redis.exists(key):
        wanted = (day_of(START) + 91) * 86_400
        assert abs(await shard.redis.expiretime(key) - wanted) <= 1
