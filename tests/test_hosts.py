"""At most so many requests at once to one host: what is beyond waits, and holds nothing up."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest
from calls import fire
from conftest import Clock, ShardFactory, StartProcess, eventually
from helpers import (
    OK,
    Received,
    Target,
    accounts_balance,
    claim_all,
    define,
    failed,
    in_seconds,
    numbered,
    open_ids,
    succeeded,
    today,
    worker_running,
)

from app.clock import day_of
from app.keys import split_execution_id
from app.store import Shard, executions, hosts, orders, queue, triggers, workspaces
from app.store.queue import Claimed

pytestmark = pytest.mark.anyio

HOST = "one.example"
LEASE = 15


async def due(make_shard: ShardFactory, clock: Clock, size: int = 6, **settings: Any) -> Shard:
    """A shard with two places a host, and a minute's executions of two workspaces."""
    shard = make_shard(max_concurrency_per_host=2, **settings)
    for workspace in ("acme", "beta"):
        await triggers.replace(shard, workspace, numbered(size, url=f"http://{HOST}/"))
    clock.now = clock.now // 60_000 * 60_000 + 60_000
    await fire(shard)
    return shard


async def enter(shard: Shard, claimed: Sequence[Claimed], worker: str = "w", host: str = HOST) -> list[str]:
    """The executions that have a place."""
    entered = await hosts.enter(shard, worker, [(one, host) for one in claimed])
    return [one.id for one, is_in in zip(claimed, entered, strict=True) if is_in]


async def held(shard: Shard, host: str = HOST) -> list[str]:
    return [one.decode() for one in await shard.redis.zrange(shard.keys.host(host), 0, -1)]


async def leave(shard: Shard, ids: Sequence[str], worker: str = "w", look_around: bool = False) -> None:
    await hosts.keep(shard, worker, [], [(id_, HOST) for id_ in ids], look_around)


async def test_what_finds_no_place_waits_without_an_attempt_a_place_or_a_worker(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = await due(make_shard, clock, max_concurrency=3)
    claimed = await claim_all(shard)
    assert len(claimed) == 6
    entered = await enter(shard, claimed)
    assert len(entered) == len(await held(shard)) == 2
    more = await claim_all(shard, number=2)  # the places of their workspaces went to others
    assert len(more) == 4
    assert await enter(shard, more, host="other.example") == [one.id for one in more[:2]]
    waiting = [one for one in [*claimed, *more] if one.id not in entered]
    assert await queue.renew(shard, {one.id: one.token for one in waiting[:2]}) == {
        one.id for one in waiting[:2]
    }
    found = await executions.get(shard, waiting[0].workspace, waiting[0].id)
    assert found is not None
    assert (found.state, found.attempts, found.worker) == ("queued", [], None)
    for workspace in ("acme", "beta"):
        await accounts_balance(shard, workspace, day_of(clock.now))


async def test_who_waits_is_called_in_the_order_of_the_slots(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await due(make_shard, clock, max_concurrency=0)
    clock.advance(60)
    await fire(shard)
    sent, number = [], 1
    running = await enter(shard, await claim_all(shard))
    while running:
        assert len(await held(shard)) == len(running) == 2
        sent += running
        await leave(shard, running)
        assert len(await held(shard)) in (0, 2)  # those that were called have theirs before they are claimed
        number += 1
        called = await claim_all(shard, number=number)
        running = await enter(shard, called)
        assert running == [one.id for one in called]
    slots = [split_execution_id(id_)[2] for id_ in sent]
    assert slots == sorted(slots)
    assert len(set(sent)) == 24


async def test_newcomers_do_not_overtake_who_waits(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await due(make_shard, clock, size=2, max_concurrency=0)
    first = await enter(shard, await claim_all(shard))
    await orders.make(shard, "beta", "run", [orders.Order("0", clock.now)])
    (newcomer,) = await claim_all(shard, number=2)
    await shard.redis.zrem(shard.keys.host(HOST), f"w|{first[0]}")  # lapsed: nobody has called yet
    assert await enter(shard, [newcomer]) == []
    (called,) = await claim_all(shard, number=3)
    assert called.id.rpartition(":")[2] == first[0].rpartition(":")[2]


async def test_a_crowd_without_places_of_its_own_is_passed_over_in_steps(
    make_shard: ShardFactory, clock: Clock
) -> None:
    """It may be of any size, and one call of a script holds everybody up."""
    shard = make_shard(max_concurrency_per_host=1, max_concurrency=0)
    await triggers.replace(shard, "crowd", numbered(1300, url=f"http://{HOST}/"))
    clock.now = clock.now // 60_000 * 60_000 + 60_000
    await fire(shard)
    running: list[str] = []
    for number in range(1, 3):
        running += await enter(shard, await claim_all(shard, number=number, at_most=700))
    assert len(running) == 1
    clock.advance(1)
    await triggers.replace(shard, "other", numbered(1, url=f"http://{HOST}/"))
    await orders.make(shard, "other", "run", [orders.Order("0", clock.now)])
    assert await enter(shard, await claim_all(shard, number=3)) == []
    await workspaces.change(shard, "crowd", {"max_concurrency": 1})
    is_left, steps = await hosts.keep(shard, "w", [], [(running[0], HOST)], False), 1
    while is_left:
        assert await claim_all(shard, number=10 + steps) == []
        is_left, steps = await hosts.keep(shard, "w", [], [], True), steps + 1
    assert steps == 3  # of 500 each
    (called,) = await claim_all(shard, number=4)
    assert called.workspace == "other"
    assert await held(shard) == [f"|{called.id}"]


async def test_a_lost_workers_places_are_free_after_a_lease(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await due(make_shard, clock, size=2, max_concurrency=0)
    lost = await enter(shard, await claim_all(shard, "dead"), "dead")
    for _ in range(2):
        clock.advance(5)
        await leave(shard, [], look_around=True)
        assert await claim_all(shard, number=clock.now) == []
    clock.advance(6)
    await leave(shard, [], look_around=True)
    await queue.renew(shard, {})
    ready = await claim_all(shard, number=2)
    assert len({one.id for one in ready} - set(lost)) == 2
    assert len(await enter(shard, ready)) == 2
    assert len(await held(shard)) == 2


async def test_a_renewed_place_lasts_and_its_owner_keeps_it(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await due(make_shard, clock, max_concurrency=0)
    claimed = await claim_all(shard)
    entered = await enter(shard, claimed)
    for _ in range(6):
        clock.advance(5)
        await hosts.keep(shard, "w", [(id_, HOST) for id_ in entered], [], True)
    assert sorted(await held(shard)) == sorted(f"w|{id_}" for id_ in entered)
    again = [one for one in claimed if one.id in entered]
    assert await enter(shard, again) == entered  # repeated: the first reply was lost
    await leave(shard, entered, "stale")  # somebody else's: not theirs to give up
    assert len(await held(shard)) == 2


@pytest.mark.parametrize("gone", ["cancelled", "claimed"])
async def test_who_does_not_come_when_called_holds_nothing_up(
    make_shard: ShardFactory, clock: Clock, gone: str
) -> None:
    shard = await due(make_shard, clock, size=3, max_concurrency=0)
    claimed = await claim_all(shard)
    first = await enter(shard, claimed)
    await queue.finish(shard, [succeeded(one, clock.now) for one in claimed if one.id in first])
    if gone == "cancelled":
        open_ = await open_ids(shard, "beta")
        await orders.cancel(shard, list(open_))
        await leave(shard, first)
        left = [one.id for one in await claim_all(shard, number=2)]
        assert len(left) == len(await open_ids(shard, "acme")) > 0
        return
    await leave(shard, first)  # two are called, and nobody claims them
    clock.advance(LEASE + 1)
    await leave(shard, [], look_around=True)
    assert len(await claim_all(shard, number=2)) == 4


async def test_who_waits_is_claimed_again_when_the_setting_is_gone(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = await due(make_shard, clock)
    claimed = await claim_all(shard)
    running = await enter(shard, claimed)
    await queue.finish(shard, [succeeded(one, clock.now) for one in claimed if one.id in running])
    clock.advance(61)
    off = make_shard()
    await queue.renew(off, {})
    clock.advance(LEASE + 1)
    assert {one.id for one in claimed} - set(running) <= {one.id for one in await claim_all(off, number=9)}


async def test_a_place_is_no_attempt_and_a_retry_needs_one_again(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = await due(make_shard, clock, size=2, max_concurrency=0)
    claimed = await claim_all(shard)
    running = await enter(shard, claimed)
    ended = [failed(one, clock.now, "retry", 5000) for one in claimed if one.id in running]
    await queue.finish(shard, ended)
    await leave(shard, running)
    clock.advance(5)
    later = await claim_all(shard, number=2)
    assert len(later) == 4
    entered = await enter(shard, later)
    assert not set(entered) & set(running)  # who was called has the places
    assert len(entered) == 2


class Counting(Target):
    """A target that takes a while, and counts how many requests it has at once."""

    def __init__(self, seconds: float) -> None:
        super().__init__(self._slowly)
        self.seconds, self.now, self.most = seconds, 0, 0

    async def _slowly(self, _: Received, writer: asyncio.StreamWriter) -> None:
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(self.seconds)  # the request takes that long
        self.now -= 1
        writer.write(OK)


async def test_a_hanging_host_holds_up_neither_other_hosts_nor_other_workspaces(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True)
    worker = make_shard(real_time=True, max_concurrency_per_host=3, max_jobs=8, grace_seconds=0.1)
    async with Target().running() as hanging, Target().running() as good, worker_running(worker):
        hanging.hold.clear()
        moment = in_seconds(time.time() + 2)
        good_url = good.url.replace("127.0.0.1", "localhost")
        for workspace in ("acme", "beta"):
            bad = [(f"bad{number}", define(moment, url=hanging.url)) for number in range(20)]
            fine = [(f"fine{number}", define(moment, url=good_url)) for number in range(20)]
            await triggers.replace(shard, workspace, [*bad, *fine])
        await eventually(lambda: len(good.received) == 40)
        assert len(hanging.received) == 3
        hanging.hold.set()
        await eventually(lambda: len(hanging.received) == 40)
        ids = [request.headers["webhook-id"] for request in hanging.received]
        assert len(set(ids)) == 40
        assert {request.headers["cronspace-attempt"] for request in hanging.received} == {"1"}


async def test_a_host_never_has_more_than_its_places_while_workers_are_killed(
    make_shard: ShardFactory, start_process: StartProcess
) -> None:
    shard = make_shard(real_time=True, keep_succeeded=1000)
    settings = {"CRONSPACE_MAX_CONCURRENCY_PER_HOST": "4", "CRONSPACE_LEASE_SECONDS": "1"}
    async with Counting(0.1).running() as target:
        assert isinstance(target, Counting)
        workers = [await start_process("worker", **settings) for _ in range(2)]
        moment = in_seconds(time.time() + 4)
        for workspace in ("acme", "beta"):
            await triggers.replace(shard, workspace, numbered(40, moment, url=target.url))
        await eventually(lambda: len(target.received) >= 10, 20)
        workers[0].kill()
        await eventually(lambda: len(target.received) >= 25, 20)
        workers[1].kill()
        await start_process("worker", **settings)

        async def all_ended() -> bool:
            ended = [await shard.redis.zcard(shard.keys.of(one, "succeeded")) for one in ("acme", "beta")]
            return sum(ended) == 80

        await eventually(all_ended, 40)
        assert target.most == 4
        for workspace in ("acme", "beta"):
            await accounts_balance(shard, workspace, *await today(shard))
        await eventually(lambda: held_nothing(shard))


async def held_nothing(shard: Shard) -> bool:
    return not await held(shard, "127.0.0.1") and not await shard.redis.exists(
        shard.keys.host_line("127.0.0.1")
    )


async def test_a_retry_is_not_called_by_a_host_that_its_trigger_has_left(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = await due(make_shard, clock, 2)
    claimed = await claim_all(shard)
    inside = await enter(shard, claimed)
    moved = next(one for one in claimed if one.id not in inside)
    there = define(url="http://two.example/")
    await triggers.edit(shard, moved.workspace, [moved.trigger], lambda _: {moved.trigger: there})
    for number in range(2, 14):  # it asks again by itself, elsewhere
        clock.advance(5.5)
        await queue.renew(shard, [(one.id, one.token) for one in claimed if one.id in inside])
        await hosts.keep(shard, "w", [(id_, HOST) for id_ in inside], [], True)
        again = [one for one in await claim_all(shard, number=number) if one.id == moved.id]
        if again:
            break
    assert await enter(shard, again, host="two.example") == [moved.id]
    await queue.finish(shard, [failed(again[0], clock.now, "retry", 600_000)])
    await leave(shard, inside, look_around=True)
    found = await executions.get(shard, moved.workspace, moved.id)
    assert found is not None
    assert (str(found.state), found.next_attempt) == ("retrying", clock.now + 600_000)
