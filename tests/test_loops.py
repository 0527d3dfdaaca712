"""What every loop has in common: it goes on."""

from __future__ import annotations

import asyncio

import pytest
from conftest import eventually
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError

from app.loops import Loop, end
from app.outage import Outage

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("error", [ConnectionError("away"), RuntimeError("ours"), OverflowError()])
async def test_a_loop_survives_any_number_of_failures(error: Exception) -> None:
    rounds = 0

    async def once() -> float:
        nonlocal rounds
        rounds += 1
        if rounds < 4:
            loop.wake()
            raise error
        loop.stop()
        return 0

    loop = Loop("test", once)
    loop.failures = 5000  # hours of an outage
    await asyncio.wait_for(loop.run(), 10)
    assert (rounds, loop.failures) == (4, 0)


async def test_a_wake_during_a_round_skips_the_sleep() -> None:
    rounds = 0

    async def once() -> float:
        nonlocal rounds
        rounds += 1
        loop.wake() if rounds == 1 else loop.stop()
        return 60

    loop = Loop("test", once)
    await asyncio.wait_for(loop.run(), 5)
    assert rounds == 2


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [
        (ConnectionError("away"), False),
        (ReadOnlyError("a replica now"), False),
        (OutOfMemoryError("command not allowed when used memory > 'maxmemory'."), False),
        (
            ResponseError("Error running script: -OOM command not allowed when used memory > 'maxmemory'."),
            False,
        ),
        (ResponseError("wrong number of arguments"), True),
        (RuntimeError("ours"), True),
    ],
)
async def test_what_redis_is_at_is_said_without_a_traceback(
    error: Exception, has_traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def once() -> float:
        loop.stop()
        raise error

    loop = Loop("test", once)
    await asyncio.wait_for(loop.run(), 5)
    (record,) = caplog.records
    assert (record.exc_info is not None) is has_traceback
    assert has_traceback or str(error) in record.getMessage()


async def test_a_redis_that_is_away_is_told_once_by_all_loops_together_and_so_is_its_return(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    outage, away = Outage(shard=3), True
    rounds = dict.fromkeys(("ticker", "claimer", "renewer"), 0)

    def loop_of(name: str) -> Loop:
        async def once() -> float:
            rounds[name] += 1
            await asyncio.sleep(0)
            if away:
                loop.wake()
                raise ConnectionError("away")
            loop.stop()
            return 0

        loop = Loop(name, once, outage=outage)
        return loop

    running = [asyncio.create_task(loop_of(name).run()) for name in rounds]
    await eventually(lambda: min(rounds.values()) > 20)
    away = False
    await asyncio.wait_for(asyncio.gather(*running), 10)
    begun, ended = caplog.records
    assert (begun.levelname, begun.getMessage()) == (
        "WARNING",
        "Redis can't be used (away); trying again",
    )
    assert (ended.levelname, ended.getMessage()[:29]) == ("INFO", "Redis can be used again, afte")
    assert {one.shard for one in caplog.records} == {3}  # type: ignore[attr-defined]


def test_an_outage_is_told_anew_when_it_changes_its_kind_and_each_minute(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    now = 1000.0
    outage = Outage(lambda: now)
    for second in range(125):
        now = 1000.0 + second
        outage.met("a", "ticker", ConnectionError("away") if second < 70 else ReadOnlyError("a replica now"))
        outage.met("b", "claimer", ConnectionError("away"))
        assert not outage.over("c")
    assert outage.over("a")
    assert outage.over("b")
    assert [record.getMessage() for record in caplog.records] == [
        "Redis can't be used (away); trying again",
        "Redis can't be used (away), since 60 s; trying again",
        "Redis can't be used (a replica now); trying again",
        "Redis can't be used (away), since 120 s; trying again",
        "Redis can be used again, after 124.0 s",
    ]


async def test_a_loop_whose_client_swallows_a_cancellation_ends_all_the_same() -> None:
    begun = asyncio.Event()
    swallowed = 0

    async def connect() -> float:
        nonlocal swallowed
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            swallowed += 1
        return 3600

    loop = Loop("connects", connect)
    task = asyncio.create_task(loop.run())
    await begun.wait()
    async with asyncio.timeout(5):
        await end({loop: task})
    assert swallowed == 1
