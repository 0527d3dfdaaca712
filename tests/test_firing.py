"""Firing, claiming, finishing: the invariants of the engine, one by one, on a clock that the test moves."""

from __future__ import annotations

import asyncio

import pytest
from conftest import START, Clock, ShardFactory
from helpers import (
    accounts_balance,
    claim_all,
    day_counts,
    define,
    failed,
    numbered,
    open_ids,
    run_twice,
    spoil,
    succeeded,
)
from redis.exceptions import ResponseError

from app.clock import day_of
from app.keys import execution_id
from app.models import State
from app.store import Shard, catalog, executions, queue, ticking, triggers, upkeep, workspaces
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

FIRST_SLOT = START // 60_000 * 60_000 + 60_000
TODAY = day_of(START)


async def test_racing_tickers_make_each_execution_once(make_shard: ShardFactory, clock: Clock) -> None:
    shards = [make_shard(fire_batch=37, max_concurrency=0) for _ in range(8)]
    for workspace in ("a", "b", "c"):
        await triggers.replace(shards[0], workspace, numbered(200))
    clock.advance(60)

    async def tick(shard: Shard) -> int:
        made = 0
        while (fired := await ticking.fire_due(shard)).handled:
            made += fired.made
        return made

    assert sum(await asyncio.gather(*(tick(shard) for shard in shards))) == 600
    assert await shards[0].redis.zcard(shards[0].keys.queue) == 600


async def test_the_due_index_holds_the_slot_and_the_id_is_made_of_it(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    assert await shard.redis.zscore(shard.keys.of("acme", "due"), "0") == FIRST_SLOT
    clock.advance(60)
    await ticking.fire_due(shard)
    (claimed,) = await claim_all(shard)
    assert claimed.id == execution_id("acme", "0", FIRST_SLOT)


async def test_nothing_fires_before_its_slot(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.now = FIRST_SLOT - 1
    assert (await ticking.fire_due(shard)).handled == 0
    clock.now = FIRST_SLOT
    assert (await ticking.fire_due(shard)).made == 1


async def test_a_clock_that_goes_back_sends_no_slot_again(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    clock.now = START
    await triggers.replace(shard, "acme", numbered(1, name="changed, so its slot is computed anew"))
    clock.advance(60)
    assert (await ticking.fire_due(shard)).made == 0
    assert (await accounts_balance(shard, "acme", TODAY))["due"] == 1


async def test_a_trigger_that_runs_dry_is_refilled_and_misses_nothing(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    made = 0
    for _ in range(40):  # refills only now and then, so that the held slots run out in between
        clock.advance(30)
        for _ in range(4):
            made += (await ticking.fire_due(shard)).made
        if clock.now // 1000 % 4 == 0:
            await ticking.refill(shard)
    await ticking.refill(shard)
    while (fired := await ticking.fire_due(shard)).handled:
        made += fired.made
        await ticking.refill(shard)
    totals = await accounts_balance(shard, "acme", TODAY)
    assert totals["due"] == 20
    assert totals["due"] == made + totals["missed:deadline"]


async def test_a_trigger_that_can_not_be_computed_shows_its_error_and_stops_no_other(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", [("bad", define()), ("good", define())])
    good = await spoil(shard, "acme", "bad")
    for _ in range(6):
        clock.advance(60)
        await ticking.fire_due(shard)
        await ticking.refill(shard)
    by_id = {t.id: t for t in (await catalog.read(shard, "acme")).triggers}
    assert "day of week" in (by_id["bad"].error or "")
    assert by_id["bad"].next_slot is None
    assert by_id["good"].error is None
    assert by_id["good"].next_slot == START // 60_000 * 60_000 + 7 * 60_000
    await shard.redis.hset(
        shard.keys.of("acme", "definitions"), "bad", good
    )  # mended: it comes back by itself
    clock.advance(301)
    await ticking.refill(shard)
    assert (await catalog.read(shard, "acme")).triggers[0].next_slot is not None


async def test_a_slot_past_its_deadline_is_missed_and_counted(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    clock.advance(150)
    while (await ticking.fire_due(shard)).handled:
        await ticking.refill(shard)
    totals = await accounts_balance(shard, "acme", TODAY)
    assert totals == {"due": 6, "missed:deadline": 3, "open": 3}
    page = await executions.list_newest(shard, "acme", state=State.MISSED)
    assert [e.reason for e in page.executions] == ["deadline"] * 3


async def test_a_backlog_has_a_bound_beyond_which_slots_are_skipped(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=2, max_backlog=3)
    await triggers.replace(shard, "acme", numbered(10))
    clock.advance(60)
    await ticking.fire_due(shard)
    totals = await accounts_balance(shard, "acme", TODAY)
    assert totals == {"due": 10, "skipped:backlog_full": 5, "open": 5}


async def test_one_workspace_holds_no_more_than_its_places(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=4)
    await triggers.replace(shard, "big", numbered(100))
    await triggers.replace(shard, "small", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    sent: list[str] = []
    for number in range(60):
        claimed = await claim_all(shard, number=number)
        mine = [one for one in claimed if one.workspace == "big"]
        assert len(mine) <= 4
        assert await shard.redis.zcard(shard.keys.of("big", "admitted")) <= 4
        sent += [one.id for one in claimed]
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    assert "small:0:" in " ".join(sent[:5])
    assert len(sent) == len(set(sent)) == 101


async def test_more_places_are_filled_at_once_and_shorter_retention_goes_for_what_is_there(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=2)
    await triggers.replace(shard, "acme", numbered(9))
    clock.advance(60)
    await ticking.fire_due(shard)
    done = await claim_all(shard)
    await queue.finish(shard, [succeeded(one, clock.now) for one in done])
    hanging = await claim_all(shard, number=2)
    assert len(hanging) == 2
    settings = workspaces.WorkspaceSettings(max_concurrency=6, keep_succeeded=1)
    await workspaces.configure(shard, "acme", settings)
    assert len(await claim_all(shard, number=3)) == 4
    await upkeep.trim_finished(shard)
    assert len((await executions.list_newest(shard, "acme", state=State.SUCCEEDED)).executions) == 1


async def test_a_retry_gives_its_place_up_while_it_waits(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1)
    await triggers.replace(shard, "acme", numbered(2))
    clock.advance(60)
    await ticking.fire_due(shard)
    (first,) = await claim_all(shard, number=1)
    assert await queue.finish(shard, [failed(first, clock.now, "retry", 5000)]) == [State.RETRYING]
    (second,) = await claim_all(shard, number=2)
    assert second.trigger != first.trigger
    clock.advance(5)
    assert await claim_all(shard, number=3) == []  # due again, but the one place is taken
    await queue.finish(shard, [succeeded(second, clock.now)])
    (again,) = await claim_all(shard, number=4)
    assert (again.id, len(again.attempts)) == (first.id, 1)
    await accounts_balance(shard, "acme", TODAY)


async def test_a_dead_workers_execution_is_taken_over_after_the_lease_and_its_voice_is_void(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (lost,) = await claim_all(shard, worker="dead")
    for _ in range(3):  # others keep calling; the dead one does not renew
        clock.advance(4.9)
        assert await claim_all(shard, worker="alive", number=clock.now) == []
    clock.advance(0.4)
    (taken,) = await claim_all(shard, worker="alive", number=9)
    assert taken.id == lost.id
    assert [(a.kind, a.worker) for a in taken.attempts] == [("worker_lost", "dead")]
    assert await queue.finish(shard, [succeeded(lost, clock.now)]) == [None]
    assert await queue.renew(shard, {lost.id: lost.token}) == {lost.id}
    assert await queue.finish(shard, [succeeded(taken, clock.now)]) == [State.SUCCEEDED]


async def test_a_claim_whose_reply_is_lost_takes_nothing_from_its_own_worker(
    shard: Shard, clock: Clock
) -> None:
    """Redis was silent: the claim waited in its socket, ran when it woke, and nobody heard of it."""
    await triggers.replace(shard, "acme", numbered(2))
    clock.advance(60)
    await ticking.fire_due(shard)
    mine, other = await claim_all(shard, number=1)
    clock.advance(20)
    await claim_all(shard, number=2)  # the lost reply: both came back to their own worker
    assert await queue.renew(shard, {one.id: one.token for one in (mine, other)}) == set()
    assert await queue.finish(shard, [succeeded(mine, clock.now)]) == [State.SUCCEEDED]
    assert [(one.id, one.token) for one in await claim_all(shard, number=2)] == [(other.id, other.token)]
    assert await queue.finish(shard, [succeeded(other, clock.now)]) == [State.SUCCEEDED]


async def test_a_renewed_lease_is_not_taken_over(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (mine,) = await claim_all(shard, worker="slow")
    for number in range(20):
        clock.advance(4.5)
        assert await queue.renew(shard, {mine.id: mine.token}) == set()
        assert await claim_all(shard, worker="other", number=number) == []
    assert await queue.finish(shard, [succeeded(mine, clock.now)]) == [State.SUCCEEDED]


async def test_after_a_silence_takeover_waits_one_lease_for_the_living(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    clock.advance(60)
    await ticking.fire_due(shard)
    living, dead = await claim_all(shard, worker="w")
    clock.advance(60)  # Redis was away, far longer than the lease
    assert await claim_all(shard, worker="other", number=1) == []
    assert await queue.renew(shard, {living.id: living.token}) == set()
    for number in range(2, 6):
        clock.advance(4)
        await queue.renew(shard, {living.id: living.token})
        claimed = await claim_all(shard, worker="other", number=number)
        if claimed:
            break
    assert [one.id for one in claimed] == [dead.id]


async def test_a_request_that_kills_its_workers_fails_in_the_end(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_takeovers=3)
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    claims = 0
    for number in range(40):
        claims += len(await claim_all(shard, worker=f"w{number}"))
        clock.advance(4)
    assert claims == 3
    (dead_letter,) = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
    assert dead_letter.reason == "worker_lost"


async def test_a_released_execution_is_ready_at_once(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (mine,) = await claim_all(shard)
    await queue.finish(shard, [queue.Ended(mine.id, mine.token, "release")])
    (again,) = await claim_all(shard, worker="other")
    assert (again.id, again.attempts) == (mine.id, [])


async def test_every_script_is_safe_to_run_twice(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=3)
    run_twice(shard)
    done = await triggers.replace(shard, "acme", numbered(8))
    assert (done.revision, done.changes.created) == (1, 8)
    sent: list[str] = []
    for number in range(40):
        clock.advance(15)
        await ticking.fire_due(shard)
        claimed = await claim_all(shard, number=number)
        sent += [one.id for one in claimed]
        assert await shard.redis.zcard(shard.keys.of("acme", "admitted")) <= 3
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
        await ticking.refill(shard)
        await upkeep.trim_finished(shard)
    assert len(sent) == len(set(sent))
    totals = await accounts_balance(shard, "acme", TODAY)
    assert totals["succeeded"] == len(sent)
    assert totals["due"] == 80
    again = await triggers.replace(shard, "acme", numbered(2))
    assert (again.revision, again.removed, again.changes.deleted) == (2, 8, 6)


async def test_accounts_balance_through_retries_removals_and_deaths(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=5)
    for step in range(60):
        if step % 12 == 0:
            await triggers.replace(shard, "acme", [(f"t{(step + i) % 17}", define()) for i in range(9)])
        clock.advance(13)
        await ticking.fire_due(shard)
        await ticking.refill(shard)
        claimed = await claim_all(shard, worker=f"w{step % 3}", number=step)
        ends = []
        for index, one in enumerate(claimed):
            if (step + index) % 4 == 0:
                ends.append(failed(one, clock.now, "retry", 4000))
            elif (step + index) % 4 != 1:  # every fourth dies with its worker
                ends.append(succeeded(one, clock.now))
        await queue.finish(shard, ends)
        await upkeep.clear_removed(shard)
        await accounts_balance(shard, "acme", TODAY)


async def test_what_is_none_of_ours_in_the_queue_stops_no_claim(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    clock.advance(60)
    await ticking.fire_due(shard)
    for name in ("stray", "{0}:acme:nobody:1", "{1}:a:b:2"):
        await shard.redis.zadd(shard.keys.queue, {name: 1})
    unreadable = execution_id("acme", "0", FIRST_SLOT)
    await shard.redis.set(shard.keys.arq_job(unreadable), b"\xc1 no msgpack")
    assert {one.trigger for one in await claim_all(shard)} == {"1", "2"}
    assert await claim_all(shard, number=2) == []
    assert await shard.redis.zcard(shard.keys.queue) == 2  # the running ones: nothing stays at its head
    totals = await accounts_balance(shard, "acme", TODAY)
    assert totals["failed:unreadable"] == 1
    assert await shard.redis.zcard(shard.keys.of("acme", "admitted")) == 2


async def test_an_unreadable_state_takes_its_trigger_out_and_no_other(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    await shard.redis.hset(shard.keys.of("acme", "states"), "0", b"\xc1")
    clock.advance(60)
    assert (await ticking.fire_due(shard)).made == 1
    assert await shard.redis.hexists(shard.keys.of("acme", "errors"), "0")


@pytest.mark.parametrize("state", [b"\xc1", b"\x90", b"x", b""])
async def test_an_unreadable_state_keeps_no_other_trigger_from_its_slots(
    shard: Shard, clock: Clock, state: bytes
) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    await shard.redis.hset(shard.keys.of("acme", "states"), "0", state)
    await shard.redis.zadd(shard.keys.refills, {"acme:0": clock.now})
    for _ in range(10):  # more than are held
        clock.advance(60)
        while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
            pass
    assert (await day_counts(shard, "acme", day_of(clock.now)))["1"]["due"] == 10
    spoiled, sound = (await catalog.read(shard, "acme")).triggers
    assert (spoiled.id, spoiled.standing, sound.standing) == ("0", "error", "active")
    assert "replace the trigger" in (spoiled.error or "")
    await triggers.edit(shard, "acme", ["0"], lambda _: {"0": define(interval=60, cron="")})
    repaired = await catalog.read_one(shard, "acme", "0")
    assert repaired is not None
    assert repaired.next_slot == clock.now + 60_000


async def test_ones_own_lapsed_execution_comes_back_as_a_renewal(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    await claim_all(shard, worker="w", number=1)
    clock.advance(16)
    (again,) = await claim_all(shard, worker="w", number=2)
    assert (again.token, again.attempts) == ("w:1", [])


async def test_a_repeated_claim_extends_the_lease_it_promises(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    await claim_all(shard, worker="w", number=1)
    clock.advance(7)
    (mine,) = await claim_all(shard, worker="w", number=1)
    clock.advance(7)
    await queue.renew(shard, {})
    clock.advance(7)
    assert await claim_all(shard, worker="other", number=1) == []
    assert await queue.finish(shard, [succeeded(mine, clock.now)]) == [State.SUCCEEDED]


async def test_an_outcome_whose_reply_was_lost_is_told_again(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (mine,) = await claim_all(shard)
    for _ in range(2):
        assert await queue.finish(shard, [succeeded(mine, clock.now)]) == [State.SUCCEEDED]


async def test_a_large_backlog_is_admitted_in_steps(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1)
    await triggers.replace(shard, "acme", numbered(900))
    clock.advance(60)
    while (await ticking.fire_due(shard)).handled:
        pass
    unbound = make_shard(max_concurrency=0)
    (one,) = await claim_all(unbound, at_most=1)
    await queue.finish(unbound, [succeeded(one, clock.now)])
    assert await unbound.redis.zcard(unbound.keys.of("acme", "admitted")) == 200


async def test_with_memory_full_what_frees_it_goes_on(
    shard_at: ShardFactory, own_redis: RedisServer, clock: Clock
) -> None:
    shard = shard_at(own_redis.url(), keep_succeeded=5)
    await triggers.replace(shard, "acme", numbered(20))
    clock.advance(60)
    await ticking.fire_due(shard)
    await shard.redis.config_set("maxmemory", 1)
    clock.advance(60)
    with pytest.raises(ResponseError, match=r"maxmemory|OOM"):
        await ticking.fire_due(shard)
    for number in range(4):
        claimed = await claim_all(shard, number=number)
        await queue.renew(shard, {one.id: one.token for one in claimed})
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    assert await open_ids(shard, "acme") == set()
    clock.advance(90_000)
    await upkeep.trim_finished(shard)
    assert (await triggers.replace(shard, "acme", [])).removed == 20
    await upkeep.clear_removed(shard)


async def test_retries_that_wait_are_bounded_like_a_backlog(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=0, max_backlog=10, fire_batch=1000, claim_batch=1000)
    await triggers.replace(shard, "acme", numbered(1000))
    await triggers.replace(shard, "other", numbered(1))
    clock.advance(60)
    while (await ticking.fire_due(shard)).handled:
        pass
    claimed = await claim_all(shard, at_most=2000)
    await queue.finish(shard, [failed(one, clock.now, "retry", 3_600_000) for one in claimed])
    clock.advance(60)
    while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
        pass
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals == {"due": 2000, "skipped:backlog_full": 1000, "open": 1000}
    assert len(await open_ids(shard, "other")) == 2
