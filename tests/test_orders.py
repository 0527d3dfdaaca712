"""What people order by hand, where the workspace or the trigger has moved on."""

from __future__ import annotations

import pytest
from conftest import Clock, ShardFactory
from helpers import claim_all, define, failed, numbered, succeeded

from app.models import State
from app.store import Shard, executions, orders, queue, ticking, triggers

pytestmark = pytest.mark.anyio


async def test_a_dead_letter_whose_retry_was_skipped_can_be_retried_later(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard, full = make_shard(max_concurrency=1), make_shard(max_concurrency=1, max_backlog=0)
    await triggers.replace(shard, "acme", numbered(2))
    clock.advance(60)
    await ticking.fire_due(shard)
    (first,) = await claim_all(shard)
    await queue.finish(shard, [failed(first, clock.now)])
    order = orders.Order(first.trigger, first.slot, letter=first.id)
    skipped = await orders.make(full, "acme", "retry", [order])
    assert len(skipped.executions) == 1
    assert await orders.retried_as(shard, "acme", [first.id]) == [None]
    made = await orders.make(shard, "acme", "retry", [order])
    assert await orders.retried_as(shard, "acme", [first.id]) == made.executions


async def test_a_run_that_is_sent_at_most_once_is_so_whatever_its_trigger_becomes(
    shard: Shard, clock: Clock
) -> None:
    once = define(delivery="at_most_once", payload=b'"its own"')
    await triggers.replace(shard, "acme", [("0", define(delivery="at_most_once"))])
    await orders.make(shard, "acme", "run", [orders.Order("0", clock.now, once)])
    await triggers.replace(shard, "acme", [("0", define())])
    assert len(await claim_all(shard, "dies")) == 1
    for _ in range(4):
        clock.advance(5)
        await queue.renew(shard, {})
    assert await claim_all(shard, "lives") == []
    (letter,) = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
    assert letter.reason == "unknown_outcome"


async def test_a_dead_letter_whose_retry_was_cancelled_can_be_retried_again(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (first,) = await claim_all(shard)
    await queue.finish(shard, [failed(first, clock.now)])
    order = orders.Order(first.trigger, first.slot, define(), letter=first.id, free=True)
    made = await orders.make(shard, "acme", "retry", [order])
    assert await orders.cancel(shard, made.executions) == {made.executions[0]: "cancelled"}
    assert await orders.retried_as(shard, "acme", [first.id]) == [None]
    again = await orders.make(shard, "acme", "retry", [order])
    (claimed,) = await claim_all(shard, number=2)
    assert [claimed.id] == again.executions
    await queue.finish(shard, [succeeded(claimed, clock.now)])
    assert await orders.retried_as(shard, "acme", [first.id]) == again.executions
