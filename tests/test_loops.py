"""What every loop has in common: it goes on."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError, OutOfMemoryError, ReadOnlyError, ResponseError

from app.loops import Loop

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
