"""Overlap policies, jitter and bounded runs: decided in the scripts, so that nothing races."""

from __future__ import annotations

import asyncio

import pytest
from calls import fire
from conftest import Clock, ShardFactory
from helpers import accounts_balance, claim_all, define, failed, open_ids, succeeded

from app.clock import day_of
from app.models import State
from app.store import Shard, catalog, executions, orders, queue, ticking, triggers, upkeep

pytestmark = pytest.mark.anyio


async def minute(shard: Shard, clock: Clock) -> None:
    """The next minute comes, and its slots are fired."""
    clock.now = clock.now // 60_000 * 60_000 + 60_000
    await ticking.fire_due(shard)
    while await ticking.refill(shard):
        await ticking.fire_due(shard)


async def states(shard: Shard, trigger: str = "0") -> list[str]:
    """What became of a trigger's slots, oldest first."""
    page = await executions.list_newest(shard, "acme", trigger=trigger, limit=500)
    ordered = sorted(page.executions, key=lambda one: one.slot)
    return [f"{one.state}:{one.reason}" if one.reason else str(one.state) for one in ordered]


async def finish_all(shard: Shard, clock: Clock, number: int = 99) -> int:
    claimed = await claim_all(shard, number=number)
    await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    return len(claimed)


async def outlive_a_lease(shard: Shard, clock: Clock) -> None:
    """Let a lease lapse while other workers go on calling."""
    for _ in range(4):
        clock.advance(5)
        await queue.renew(shard, {})


async def test_allow_runs_beside_what_is_open(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define())])
    await minute(shard, clock)
    (first,) = await claim_all(shard)
    await minute(shard, clock)
    await queue.renew(shard, {first.id: first.token})
    (second,) = await claim_all(shard, number=2)
    assert second.slot == first.slot + 60_000


@pytest.mark.parametrize("at", ["queued", "running", "retrying"])
async def test_skip_passes_a_slot_over_while_one_is_open(shard: Shard, clock: Clock, at: str) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="skip"))])
    await minute(shard, clock)
    if at != "queued":
        (first,) = await claim_all(shard)
        if at == "retrying":
            await queue.finish(shard, [failed(first, clock.now, "retry", 120_000)])
    await minute(shard, clock)
    assert await states(shard) == [at, "skipped:overlap"]
    clock.advance(100)
    await finish_all(shard, clock)
    await minute(shard, clock)
    assert (await states(shard))[-1] == "queued"
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_queue_buffers_one_and_skips_the_rest(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="queue"))])
    for _ in range(4):
        await minute(shard, clock)
    assert await states(shard) == ["queued", "queued", "skipped:overlap", "skipped:overlap"]
    assert len(await claim_all(shard)) == 1  # the second waits for the first
    await queue.finish(shard, [succeeded((await claim_all(shard))[0], clock.now)])
    (second,) = await claim_all(shard, number=2)
    assert second.slot == clock.now - 120_000
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_queue_limit_says_how_many_wait(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="queue", queue_limit=3))])
    for _ in range(5):
        await minute(shard, clock)
    assert (await states(shard)).count("skipped:overlap") == 1
    slots = []
    for number in range(4):
        (one,) = await claim_all(shard, number=number)
        slots.append(one.slot)
        await queue.finish(shard, [succeeded(one, clock.now)])
    assert slots == sorted(slots)
    assert await claim_all(shard, number=9) == []


@pytest.mark.parametrize("at", ["queued", "running", "retrying"])
async def test_replace_cancels_what_is_open(shard: Shard, clock: Clock, at: str) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="replace"))])
    await minute(shard, clock)
    first = None
    if at != "queued":
        (first,) = await claim_all(shard)
        if at == "retrying":
            await queue.finish(shard, [failed(first, clock.now, "retry", 300_000)])
    await minute(shard, clock)
    assert await states(shard) == ["cancelled:replaced", "queued"]
    if first is not None and at == "running":
        assert await queue.finish(shard, [succeeded(first, clock.now)]) == [None]
        cancelled = await executions.get(shard, "acme", first.id)
        assert cancelled is not None
        assert [one.kind for one in cancelled.attempts] == ["cancelled"]
    assert await finish_all(shard, clock) == 1
    assert await states(shard) == ["cancelled:replaced", "succeeded"]
    await accounts_balance(shard, "acme", day_of(clock.now))


@pytest.mark.parametrize("policy", ["skip", "queue", "replace"])
async def test_a_crash_of_the_running_ones_worker_neither_blocks_nor_doubles_the_next(
    shard: Shard, clock: Clock, policy: str
) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy=policy))])
    await minute(shard, clock)
    assert len(await claim_all(shard, "dies")) == 1
    await outlive_a_lease(shard, clock)
    (again,) = await claim_all(shard, "lives")
    assert await queue.finish(shard, [succeeded(again, clock.now)]) == [State.SUCCEEDED]
    for number in range(2, 4):
        await minute(shard, clock)
        (one,) = await claim_all(shard, "lives", number=number)
        assert await queue.finish(shard, [succeeded(one, clock.now)]) == [State.SUCCEEDED]
    assert await states(shard) == ["succeeded"] * 3


async def test_racing_tickers_let_one_of_a_trigger_that_skips_through(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shards = [make_shard() for _ in range(6)]
    await triggers.replace(shards[0], "acme", [(str(n), define(overlap_policy="skip")) for n in range(8)])
    for _ in range(3):
        clock.now = clock.now // 60_000 * 60_000 + 60_000
        await asyncio.gather(*(ticking.fire_due(shard) for shard in shards))
    totals = await accounts_balance(shards[0], "acme", day_of(clock.now))
    assert totals == {"due": 24, "skipped:overlap": 16, "open": 8}


async def test_a_line_ends_with_its_trigger(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="queue", queue_limit=5))])
    for _ in range(4):
        await minute(shard, clock)
    await triggers.replace(shard, "acme", [])
    await upkeep.clear_removed(shard)
    assert await states(shard) == ["cancelled:trigger_removed"] * 4
    assert await open_ids(shard, "acme") == set()
    left = [key async for key in shard.redis.scan_iter(match="*line*")]
    assert left == []
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_a_long_backlog_ends_with_its_trigger(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1)
    await triggers.replace(shard, "acme", [(str(n), define()) for n in range(450)])
    await minute(shard, clock)
    await triggers.replace(shard, "acme", [])
    await upkeep.clear_removed(shard)
    assert await open_ids(shard, "acme") == set()
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_jitter_spreads_slots_stably_and_holds_no_place_meanwhile(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=2)
    many = [(str(n), define("0 * * * *", jitter_seconds=600)) for n in range(200)]
    await triggers.replace(shard, "acme", [*many, ("plain", define("1 * * * *"))])
    clock.now = clock.now // 3_600_000 * 3_600_000 + 3_600_000
    await fire(shard)
    clock.advance(60)
    await fire(shard)
    claimed = await claim_all(shard)
    assert "plain" in {one.trigger for one in claimed}
    assigned = {}
    for one in (await executions.list_newest(shard, "acme", limit=500)).executions:
        if one.next_attempt is not None:
            assigned[one.trigger] = one.next_attempt - one.slot
    spread = sorted(assigned.values())
    assert len(assigned) > 150
    assert spread[0] >= 0
    assert spread[-1] <= 600_000
    thirds = [sum(third * 200_000 <= one < (third + 1) * 200_000 for one in spread) for third in range(3)]
    assert min(thirds[1:]) > 40  # spread evenly; the first minute has gone


async def test_jitter_is_the_same_for_the_same_slot(make_shard: ShardFactory, clock: Clock) -> None:
    ready = []
    for workspace in ("acme", "acme"):
        shard = make_shard()  # another process: it has not seen what is flushed below
        await triggers.replace(shard, workspace, [("0", define("0 0 * * *", jitter_seconds=3600))])
        saved = clock.now
        clock.now = clock.now // 86_400_000 * 86_400_000 + 86_400_000
        await ticking.fire_due(shard)
        (one,) = (await executions.list_newest(shard, workspace)).executions
        ready.append(one.next_attempt)
        clock.now = saved
        await shard.redis.flushdb()
    assert ready[0] == ready[1]
    assert ready[0] is not None


async def test_a_trigger_is_finished_after_its_runs_and_skipped_slots_are_none(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", [("0", define(max_runs=2, overlap_policy="skip"))])
    for number in range(5):
        await minute(shard, clock)
        if number >= 1:
            await finish_all(shard, clock, number)
    assert await states(shard) == ["succeeded", "skipped:overlap", "succeeded"]
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert (one.standing, one.next_slot, one.runs) == ("finished", None, 2)
    await triggers.replace(shard, "acme", [("0", define(max_runs=3, overlap_policy="skip"))])
    await minute(shard, clock)
    assert len(await states(shard)) == 4
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert (one.standing, one.runs) == ("finished", 3)


async def test_at_most_once_is_not_sent_again_after_a_crash(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(delivery="at_most_once"))])
    await minute(shard, clock)
    (first,) = await claim_all(shard, "dies")
    await outlive_a_lease(shard, clock)
    assert await claim_all(shard, "lives") == []
    assert await states(shard) == ["failed:unknown_outcome"]
    assert await queue.finish(shard, [succeeded(first, clock.now)]) == [None]
    found = await executions.get(shard, "acme", first.id)
    assert found is not None
    assert [one.kind for one in found.attempts] == ["unknown_outcome"]
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_an_edit_brings_no_slot_again_that_fired_while_it_was_prepared(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard(keep_succeeded=0)  # nothing of a skipped slot is left to be recognised by
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="skip"))])
    await minute(shard, clock)
    clock.advance(59.9)
    run = shard.run

    async def slowly(name: str, *args: object, **more: object) -> object:
        if name == "edit_triggers":
            clock.advance(0.2)
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", slowly)
    await triggers.edit(shard, "acme", ["0"], lambda _: {"0": define(overlap_policy="skip", name="another")})
    await ticking.fire_due(shard)
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals == {"due": 2, "skipped:overlap": 1, "open": 1}


async def test_replacing_long_lines_is_spread_over_several_calls(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(fire_batch=50)
    names = [str(n) for n in range(6)]
    await triggers.replace(shard, "acme", [(name, define(overlap_policy="replace")) for name in names])
    for name in names:
        wanted = [orders.Order(name, clock.now - n * 60_000) for n in range(40)]
        await orders.make(shard, "acme", "backfill", wanted, one_by_one=True)
    clock.advance(60)
    fired = []
    while (one := await ticking.fire_due(shard)).handled:
        fired.append(one.made)
    assert len(fired) >= 3
    assert sum(fired) == 6
    assert len(await open_ids(shard, "acme")) == 6
