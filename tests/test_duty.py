"""Workers on duty: a few look often, and the others come when they are needed."""

from __future__ import annotations

import time
from contextlib import AsyncExitStack

import pytest
from conftest import Clock, ShardFactory, eventually
from helpers import Target, define, in_seconds, numbered, worker_running

from app.models import Execution, State
from app.store import executions, orders, ticking, triggers, workers
from app.store.orders import Order
from workers.duty import REST_SECONDS, Duty

pytestmark = pytest.mark.anyio


def facts(running: int = 0) -> workers.Facts:
    return workers.Facts(name="w", version="1", started=0, capacity=10, running=running)


async def test_so_many_workers_have_a_seat_and_keep_it(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(workers_on_duty=2)
    for _ in range(3):
        told = [await workers.note(shard, name, facts()) for name in "abcd"]
        assert [seated for seated, _ in told] == [True, True, False, False]
        clock.advance(5)
    assert (await workers.note(shard, "a", facts()))[1]


async def test_a_worker_alone_is_on_duty_and_calls_nobody(make_shard: ShardFactory) -> None:
    assert await workers.note(make_shard(), "a", facts()) == (True, False)


@pytest.mark.parametrize("how", ["stops", "is silent", "has no place left"])
async def test_a_seat_goes_to_another_when_its_worker(
    make_shard: ShardFactory, clock: Clock, how: str
) -> None:
    shard = make_shard(workers_on_duty=1)
    assert [(await workers.note(shard, name, facts()))[0] for name in "ab"] == [True, False]
    if how == "stops":
        await workers.leave(shard, "a")
    elif how == "is silent":
        clock.advance(11)
    else:
        assert (await workers.note(shard, "a", facts(running=10)))[0] is True  # until another has it
    assert (await workers.note(shard, "b", facts()))[0] is True
    assert (await workers.note(shard, "a", facts(running=10)))[0] is False
    assert (await workers.note(shard, "a", facts()))[0] is False


async def test_where_all_are_full_all_are_on_duty_until_one_is_not(make_shard: ShardFactory) -> None:
    shard = make_shard(workers_on_duty=1)
    assert [(await workers.note(shard, name, facts(running=10)))[0] for name in "ab"] == [True, True]
    assert (await workers.note(shard, "a", facts(running=9)))[0] is True
    assert (await workers.note(shard, "b", facts(running=10)))[0] is False


async def test_a_worker_that_stops_gives_its_seat_up_before_its_last_request_has_ended(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True, workers_on_duty=1)
    async with Target().running() as target:
        target.hold.clear()
        await triggers.replace(shard, "acme", numbered(1, "0 0 1 1 *", url=target.url))
        async with worker_running(make_shard(real_time=True, workers_on_duty=1)) as worker:
            await orders.make(shard, "acme", "run", [Order("0", await shard.now_ms())])
            await eventually(lambda: len(target.received) == 1)
            await eventually(lambda: shard.redis.zcard(shard.keys.seats))
            worker.stop()

            async def is_free() -> bool:
                return await shard.redis.zcard(shard.keys.seats) == 0

            await eventually(is_free, 3)  # not at the next heartbeat
            assert worker.tasks
            target.hold.set()


async def test_a_clock_that_went_back_leaves_no_seat_taken(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(workers_on_duty=1)
    await workers.note(shard, "a", facts())
    clock.advance(-3600)
    assert (await workers.note(shard, "b", facts()))[0] is True


def test_who_is_not_on_duty_rests_until_something_undone_is_found() -> None:
    duty = Duty()
    assert duty.is_on
    assert duty.pause(0.2) == 0.2
    duty.told(seated=False, others=True)
    assert not duty.is_on
    assert duty.pause(0.2) == REST_SECONDS
    duty.found()
    assert duty.is_on
    assert duty.pause(0.2) == 0.2


def test_others_are_called_now_and_then_and_only_where_there_are_some() -> None:
    duty = Duty()
    duty.told(seated=True, others=False)
    assert not duty.may_call()
    duty.told(seated=True, others=True)
    assert [duty.may_call(), duty.may_call()] == [True, False]


async def test_those_who_rest_come_when_there_is_more_than_places_on_duty(make_shard: ShardFactory) -> None:
    given = {"max_jobs": 2, "max_concurrency": 0, "workers_on_duty": 1, "real_time": True}
    shard = make_shard(**given)
    async with Target().running() as target, AsyncExitStack() as stack:
        target.hold.clear()
        await triggers.replace(shard, "acme", numbered(8, "0 0 1 1 *", url=target.url))
        fleet = [await stack.enter_async_context(worker_running(make_shard(**given))) for _ in range(4)]
        await eventually(
            lambda: (
                sorted((one.duty.is_on, one.duty.has_others) for one in fleet)[1:]
                == [(False, True), (False, True), (True, True)]
            ),
            30,
        )
        now = await shard.now_ms()
        begun = time.monotonic()
        await orders.make(shard, "acme", "run", [Order(str(number), now) for number in range(8)])
        await eventually(lambda: len(target.received) == 8)
        assert time.monotonic() - begun < REST_SECONDS
        target.hold.set()


async def test_a_worker_that_rests_finds_what_those_on_duty_leave_undone(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True, workers_on_duty=1)
    async with Target().running() as target, worker_running(make_shard(real_time=True)) as worker:
        worker.duty.told(seated=False, others=True)  # as if another were on duty, that does nothing
        worker.ticker.wake()
        await triggers.replace(shard, "acme", [("t", define("* * * * * *", url=target.url))])
        await eventually(lambda: len(target.received) >= 3)
        assert worker.duty.is_on
    assert (await ticking.fire_due(shard)).now > 0


async def test_a_full_fleet_fires_in_time_all_the_same(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, worker_running(make_shard(real_time=True, max_jobs=1)) as worker:
        target.hold.clear()
        await triggers.replace(shard, "acme", numbered(1, "0 0 1 1 *", url=target.url))
        await orders.make(shard, "acme", "run", [Order("0", await shard.now_ms())])
        await eventually(lambda: len(target.received) == 1)
        await worker.report_health()
        assert worker.duty.is_on
        assert await worker.tick() <= shard.settings.poll_seconds
        slot = await shard.now_ms() + 1000
        soon = define(in_seconds(slot / 1000), url=target.url, start_deadline_seconds=3)
        await triggers.replace(shard, "beta", [("b", soon)])

        async def made() -> list[Execution]:
            return (await executions.list_newest(shard, "beta")).executions

        assert [one.state for one in await eventually(made)] == [State.QUEUED]
        target.hold.set()
