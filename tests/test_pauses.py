"""Pauses of triggers and workspaces: while they last nothing is due, and the ledger shows the span."""

from __future__ import annotations

import pytest
from conftest import Clock
from helpers import accounts_balance, claim_all, define, numbered, open_ids, spoil

from app.clock import day_of
from app.models import Attempt
from app.store import Shard, catalog, executions, history, holds, queue, ticking, triggers, workspaces
from app.store.history import Run
from app.store.queue import Ended

pytestmark = pytest.mark.anyio


async def settle(shard: Shard) -> None:
    while True:
        fired = await ticking.fire_due(shard)
        if not fired.handled and not await ticking.refill(shard):
            return


async def slots(shard: Shard, trigger: str = "0") -> list[int]:
    return sorted(
        one.slot
        for one in (await executions.list_newest(shard, "acme", trigger=trigger, limit=500)).executions
    )


async def test_no_slot_is_due_while_a_trigger_is_paused(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    paused_at = clock.now
    assert await holds.pause_triggers(shard, "acme", ["0", "none"], "deploying") == {"0": True}
    assert await holds.pause_triggers(shard, "acme", ["0"], "still deploying") == {"0": False}
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.pause is not None
    assert (one.standing, one.next_slot) == ("paused", None)
    assert (one.pause.since, one.pause.note) == (paused_at, "still deploying")
    clock.advance(600)
    await settle(shard)
    assert await slots(shard) == []
    assert await holds.resume_triggers(shard, "acme", ["0", "1"]) == {"0": True, "1": False}
    assert await history.runs(shard, "acme", "0") == [
        Run(paused_at, clock.now, 0, "paused", "still deploying")
    ]
    await settle(shard)
    clock.advance(60)
    await settle(shard)
    assert await slots(shard) == [clock.now // 60_000 * 60_000]
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_what_was_due_before_a_pause_is_due_all_the_same(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(start_deadline_seconds=3600))])
    clock.advance(150)  # two slots fall due, and nobody fires
    await holds.pause_triggers(shard, "acme", ["0"])
    clock.advance(300)
    await settle(shard)
    await holds.resume_triggers(shard, "acme", ["0"])
    clock.advance(60)
    await settle(shard)
    found = await slots(shard)
    assert len(found) == 3
    assert found[1] <= clock.now - 360_000
    assert found[2] > clock.now - 60_000
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_a_replace_does_not_lift_a_pause_and_a_new_trigger_of_that_id_has_none(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    await holds.pause_triggers(shard, "acme", ["0", "1"])
    await triggers.replace(shard, "acme", [("0", define("*/2 * * * *")), ("1", define())])
    clock.advance(300)
    await settle(shard)
    assert await open_ids(shard, "acme") == set()
    await triggers.replace(shard, "acme", [("1", define())])
    await triggers.replace(shard, "acme", numbered(2))
    found = {one.id: one.standing for one in (await catalog.read(shard, "acme")).triggers}
    assert found == {"0": "active", "1": "paused"}
    await holds.resume_triggers(shard, "acme", ["1"])
    clock.advance(60)
    await settle(shard)
    assert len(await open_ids(shard, "acme")) == 2


async def test_a_changed_trigger_that_was_paused_goes_on_with_its_new_schedule(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    await holds.pause_triggers(shard, "acme", ["0"])
    await triggers.replace(shard, "acme", numbered(1, "0 * * * *"))
    await holds.resume_triggers(shard, "acme", ["0"])
    await settle(shard)
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.next_slot == clock.now // 3_600_000 * 3_600_000 + 3_600_000


async def test_a_pause_between_preparation_and_swap_of_a_replace_holds(
    shard: Shard, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    run = shard.run
    paused = False

    async def pause_before_the_swap(name: str, *args: object, **more: object) -> object:
        nonlocal paused
        if name == "swap_triggers" and not paused:
            paused = True
            await holds.pause_triggers(shard, "acme", ["0", "1"])
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", pause_before_the_swap)
    await triggers.replace(shard, "acme", [("0", define("*/5 * * * *")), ("1", define()), ("2", define())])
    found = {one.id: one.standing for one in (await catalog.read(shard, "acme")).triggers}
    assert found == {"0": "paused", "1": "paused", "2": "active"}


async def test_an_interval_keeps_its_phase_over_a_pause(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define("", interval=420))])
    begun = clock.now
    await holds.pause_triggers(shard, "acme", ["0"])
    clock.advance(1000)
    await holds.resume_triggers(shard, "acme", ["0"])
    await settle(shard)
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.next_slot == begun + 3 * 420_000


async def test_nothing_of_a_paused_workspace_is_due(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define()), ("late", define(start_deadline_seconds=7200))])
    await triggers.replace(shard, "other", numbered(1))
    assert await holds.pause_workspace(shard, "nobody") is None
    assert await holds.pause_workspace(shard, "acme", "holidays") is True
    assert await holds.pause_workspace(shard, "acme", "holidays") is False
    since = clock.now
    clock.advance(1800)
    await settle(shard)
    assert await open_ids(shard, "acme") == set()
    assert len(await open_ids(shard, "other")) > 0
    assert await holds.resume_workspace(shard, "acme") is True
    await settle(shard)
    assert await open_ids(shard, "acme") == set()
    clock.advance(60)
    await settle(shard)
    assert len(await open_ids(shard, "acme")) == 2
    found = await workspaces.get(shard, "acme")
    assert found is not None
    assert found.spans == [(since, since + 1_800_000, "holidays")]
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_a_replace_in_a_paused_workspace_fires_nothing(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    await holds.pause_workspace(shard, "acme")
    clock.advance(90)
    await triggers.replace(shard, "acme", [*numbered(2), ("2", define("*/2 * * * *"))])
    await settle(shard)
    assert await open_ids(shard, "acme") == set()
    await holds.resume_workspace(shard, "acme")
    await settle(shard)
    assert await open_ids(shard, "acme") == set()
    clock.advance(120)
    await settle(shard)
    assert {id_.split(":")[1] for id_ in await open_ids(shard, "acme")} == {"0", "1", "2"}


async def test_a_target_that_is_gone_pauses_its_trigger(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(disable_on_gone=True))])
    clock.advance(60)
    await settle(shard)
    (claimed,) = await claim_all(shard)
    made = Attempt(clock.now, 5, 410, "status", "the target answered 410", "", "w")
    await queue.finish(shard, [Ended(claimed.id, claimed.token, "failed", 0, made, gone=True)])
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.pause is not None
    assert "410" in one.pause.note
    clock.advance(600)
    await settle(shard)
    assert await slots(shard) == [claimed.slot]


async def test_the_pause_of_a_target_that_is_gone_tells_of_what_was_due_already(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", [("0", define(disable_on_gone=True))])
    clock.advance(60)
    await settle(shard)
    (claimed,) = await claim_all(shard)
    clock.advance(150)  # an outage: the answer is recorded before the slots in it are fired
    made = Attempt(clock.now, 5, 410, "status", "the target answered 410", "", "w")
    await queue.finish(shard, [Ended(claimed.id, claimed.token, "failed", 0, made, gone=True)])
    await settle(shard)
    await holds.resume_triggers(shard, "acme", ["0"])
    await settle(shard)
    assert await slots(shard) == [claimed.slot]
    span = (await history.runs(shard, "acme", "0"))[0]
    assert (span.state, span.first, span.last) == ("paused", claimed.slot, clock.now)


async def test_what_cannot_be_computed_hides_no_slots_of_others_from_a_pause(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", [("bad", define()), ("good", define())])
    await spoil(shard, "acme", "bad")
    await ticking.refill_some(shard, ["acme:bad"])  # an error, while it still holds slots
    clock.advance(90)
    await ticking.fire_due(shard)
    await holds.pause_triggers(shard, "acme", ["bad"])
    clock.advance(40)
    await shard.redis.zrem(shard.keys.of("acme", "due"), "good")
    await shard.redis.sadd(shard.keys.of("acme", "dry"), "good")
    assert await shard.run("hold_workspace", "acme", "pause", "", 1) == b"due"


async def test_the_ledger_shows_when_a_trigger_was_disabled(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(enabled=False)), ("1", define(enabled=False))])
    since = clock.now
    clock.advance(600)
    await triggers.replace(shard, "acme", [("0", define()), ("1", define(enabled=False, name="x"))])
    assert await history.runs(shard, "acme", "0") == [Run(since, clock.now, 0, "disabled", "")]
    await triggers.edit(shard, "acme", ["1"], lambda _: {"1": define()})
    assert await history.runs(shard, "acme", "1") == [Run(since, clock.now, 0, "disabled", "")]
    clock.advance(60)
    await settle(shard)
    assert len(await open_ids(shard, "acme")) == 2


async def test_slots_computed_before_a_pause_are_not_stored_into_it(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define())])
    await holds.pause_triggers(shard, "acme", ["0"])
    await ticking.refill_some(shard, ["acme:0"])  # by who took the chore before
    await settle(shard)
    clock.advance(600)
    await settle(shard)
    assert await slots(shard) == []
    await holds.resume_triggers(shard, "acme", ["0"])
    await settle(shard)
    clock.advance(60)
    await settle(shard)
    assert len(await slots(shard)) == 1
