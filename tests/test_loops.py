"""What every loop has in common: it goes on."""

from __future__ import annotations

import asyncio

import pytest
from redis.exceptions import ConnectionError

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
