"""Slots that are found late: sent, caught up or missed, as their trigger says, and never before live ones."""

from __future__ import annotations

from typing import Any

import pytest
from conftest import START, Clock, ShardFactory
from helpers import accounts_balance, claim_all, day_counts, define, failed, numbered, open_ids, succeeded
from msgspec import structs

from app.clock import day_of
from app.models import Definition
from app.schedule import schedule_of
from app.schedule.late import Missed, judge_overdue
from app.store import Shard, catalog, executions, history, queue, ticking, triggers
from app.store.shard import pack, reply

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


async def settle(shard: Shard) -> None:
    """Fire and refill until nothing is left to do."""
    while True:
        fired = await ticking.fire_due(shard)
        if not fired.handled and not await ticking.refill(shard):
            return


async def drain(shard: Shard, clock: Clock, number: int = 0) -> list[int]:
    """Send whatever becomes ready, one claim after the other; the slots in the order of their claims."""
    slots = []
    while claimed := await claim_all(shard, number=(number := number + 1)):
        slots += [one.slot for one in claimed]
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    return slots


async def test_a_slot_is_sent_late_within_its_deadline_and_missed_beyond_it(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(
        shard,
        "acme",
        [
            ("usual", define()),
            ("patient", define(start_deadline_seconds=600)),
            ("hasty", define(start_deadline_seconds=5)),
        ],
    )
    clock.advance(290)  # five slots went by: 250, 190, 130, 70 and 10 s ago
    await settle(shard)
    found = (await executions.list_newest(shard, "acme", limit=500)).executions
    by_trigger = {
        id_: [
            str(one.reason or one.state) for one in sorted(found, key=lambda o: o.slot) if one.trigger == id_
        ]
        for id_ in ("usual", "patient", "hasty")
    }
    assert by_trigger["usual"] == ["deadline"] * 4 + ["queued"]
    assert by_trigger["patient"] == ["queued"] * 5
    assert by_trigger["hasty"] == ["deadline"] * 5
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_late_slots_of_a_trigger_go_one_after_another_oldest_first(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define("*/10 * * * * *"))])
    clock.advance(55)
    await settle(shard)
    (first,) = await claim_all(shard)
    assert await claim_all(shard, number=2) == []
    await queue.finish(shard, [succeeded(first, clock.now)])
    later = await drain(shard, clock, 2)
    assert later == [first.slot + 10_000 * n for n in range(1, len(later) + 1)]
    assert len(later) == 4


async def test_catching_up_all_sends_what_the_window_holds(shard: Shard, clock: Clock) -> None:
    definition = define("0 * * * *", catch_up_missed="all", catch_up_window_seconds=6 * 3600)
    await triggers.replace(shard, "acme", [("0", definition)])
    clock.now = clock.now // HOUR * HOUR + 10 * HOUR + 1_800_000  # half past, ten slots were missed
    await settle(shard)
    slots = await drain(shard, clock)
    assert slots == [clock.now - 1_800_000 - n * HOUR for n in range(5, -1, -1)]
    totals = await accounts_balance(shard, "acme", day_of(START), day_of(clock.now))
    assert totals == {"due": 10, "succeeded": 6, "missed:catch_up_window": 4, "open": 0}


async def test_catching_up_the_latest_sends_one(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define("0 * * * *", catch_up_missed="latest"))])
    clock.now = clock.now // HOUR * HOUR + 10 * HOUR + 1_800_000
    await settle(shard)
    assert await drain(shard, clock) == [clock.now - 1_800_000]
    totals = await accounts_balance(shard, "acme", day_of(START), day_of(clock.now))
    assert totals == {"due": 10, "succeeded": 1, "missed:deadline": 9, "open": 0}


async def test_a_very_long_outage_is_counted_from_the_fields(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define("* * * * * *"))])
    clock.advance(40 * 86_400)
    rounds = 0
    while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
        rounds += 1
    assert rounds < 20
    days = range(day_of(START), day_of(clock.now) + 1)
    totals = await accounts_balance(shard, "acme", *days)
    assert totals["due"] == 40 * 86_400
    assert totals["missed:deadline"] == 40 * 86_400 - 61
    (run,) = [one for one in await history.runs(shard, "acme", "0") if one.count > 1000]
    assert run.state == "missed"


async def test_the_newest_are_caught_up_where_there_are_too_many(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_catch_up=100, max_concurrency=0)
    await triggers.replace(shard, "acme", [("0", define("* * * * *", catch_up_missed="all"))])
    clock.advance(12 * 3600)
    await settle(shard)
    totals = await accounts_balance(shard, "acme", day_of(START), day_of(clock.now))
    assert totals["due"] == 720
    assert totals["open"] == 101  # with the one that is in time
    slots = await drain(shard, clock)
    assert slots == sorted(slots)
    assert slots[-1] > clock.now - 60_000


async def test_caught_up_slots_wait_for_live_ones_of_every_workspace(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=3)
    for name in ("old-a", "old-b"):
        late = [(str(n), define("0 * * * *", catch_up_missed="all")) for n in range(20)]
        await triggers.replace(shard, name, late)
    clock.now = clock.now // HOUR * HOUR + 5 * HOUR - 30_000
    await settle(shard)
    await triggers.replace(shard, "live", numbered(30))
    await triggers.replace(shard, "old-a", [*late, ("live", define())])
    clock.advance(31)
    await ticking.fire_due(shard)
    order = []
    number = 0
    while claimed := await claim_all(shard, number=(number := number + 1), at_most=1):
        order += [(one.workspace, one.slot) for one in claimed]
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    is_live = [clock.now - slot < HOUR / 2 for _, slot in order]
    assert sum(is_live) == 30 + 1 + 40  # at the full hour the hourly ones are live, too
    assert is_live == sorted(is_live, reverse=True)
    caught_up = [workspace for workspace, slot in order if clock.now - slot >= HOUR / 2]
    assert set(caught_up[:8]) == {"old-a", "old-b"}  # in turn
    assert len(caught_up) == 2 * 20 * 4


async def test_caught_up_slots_take_no_more_places_than_their_workspace_has(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=3)
    await triggers.replace(
        shard, "acme", [(str(n), define("0 * * * *", catch_up_missed="latest")) for n in range(9)]
    )
    clock.now = clock.now // HOUR * HOUR + 5 * HOUR - 30_000
    await settle(shard)
    running = await claim_all(shard)
    assert len(running) == 3
    assert await claim_all(shard, number=2) == []
    await queue.finish(shard, [succeeded(running[0], clock.now)])
    assert len(await claim_all(shard, number=3)) == 1
    assert len(await open_ids(shard, "acme")) == 8


async def test_a_single_caught_up_slot_waits_for_live_ones_too(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=1)
    live = define("*/5 * * * * *")
    clock.now = clock.now // HOUR * HOUR
    await triggers.replace(shard, "acme", [("late", define("0 * * * *", catch_up_missed="latest"))])
    clock.advance(1.5 * 3600)
    await settle(shard)
    await triggers.edit(shard, "acme", ["live"], lambda _: {"live": live})
    clock.advance(5)
    await settle(shard)
    assert await drain(shard, clock) == [clock.now, clock.now - HOUR // 2 - 5000]


async def caught_up(shard: Shard, clock: Clock, number: int) -> None:
    """Triggers with one caught-up execution each, not yet claimed."""
    late = [(str(n), define("0 * * * *", catch_up_missed="latest")) for n in range(number)]
    await triggers.replace(shard, "acme", late)
    clock.now = clock.now // HOUR * HOUR + 5 * HOUR - 30_000
    await settle(shard)


async def test_a_claim_ends_no_more_void_executions_than_it_may_claim(shard: Shard, clock: Clock) -> None:
    await caught_up(shard, clock, 500)
    await triggers.replace(shard, "acme", [])
    assert await claim_all(shard, at_most=20) == []
    assert len(await open_ids(shard, "acme")) == 480
    await accounts_balance(shard, "acme", day_of(clock.now))


async def test_a_caught_up_execution_that_is_lost_is_accounted_for(shard: Shard, clock: Clock) -> None:
    await caught_up(shard, clock, 2)
    lost, _ = sorted(await open_ids(shard, "acme"))
    await shard.redis.delete(shard.keys.arq_job(lost))
    assert len(await claim_all(shard)) == 1
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals["failed:unreadable"] == 1


async def test_a_caught_up_execution_waits_for_live_ones_when_it_is_tried_again(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=1)
    await caught_up(shard, clock, 1)
    (late,) = await claim_all(shard)
    await queue.finish(shard, [failed(late, clock.now, "retry", 1000)])
    await triggers.edit(shard, "acme", ["live"], lambda _: {"live": define("* * * * * *")})
    clock.advance(3)
    await settle(shard)
    order = []
    for number in range(2, 9):
        for one in await claim_all(shard, number=number, at_most=1):
            order.append(one.trigger)
            await queue.finish(shard, [succeeded(one, clock.now)])
    assert order == ["live"] * 3 + ["0"]


async def test_a_one_off_that_is_past_is_caught_up_if_it_wants_to_be(shard: Shard, clock: Clock) -> None:
    past = clock.now - 7_200_000
    await triggers.replace(shard, "acme", [("0", define("", at=past, catch_up_missed="all"))])
    await settle(shard)
    assert await drain(shard, clock) == [past]
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.standing == "finished"
    await triggers.replace(shard, "acme", [("0", define("", at=past, catch_up_missed="all", name="same"))])
    await settle(shard)
    assert await drain(shard, clock, 50) == []


@pytest.mark.parametrize("how", ["edit", "replace"])
async def test_a_one_off_that_was_sent_is_not_sent_again_when_its_record_has_gone(
    make_shard: ShardFactory, clock: Clock, how: str
) -> None:
    shard = make_shard(keep_succeeded=0)
    at = clock.now + 60_000
    await triggers.replace(shard, "acme", [("0", define("", at=at, catch_up_missed="all"))])
    clock.advance(61)
    await settle(shard)
    assert await drain(shard, clock) == [at]
    clock.advance(600)
    other = define("", at=at, catch_up_missed="all", description="in other words")
    if how == "edit":
        await triggers.edit(shard, "acme", ["0"], lambda _: {"0": other})
    else:
        await triggers.replace(shard, "acme", [("0", other)])
    await settle(shard)
    assert await drain(shard, clock, 50) == []
    assert await accounts_balance(shard, "acme", day_of(at)) == {"due": 1, "succeeded": 1, "open": 0}
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert one.standing == "finished"


async def hold_firing(shard: Shard, clock: Clock) -> None:
    """As a loss of data does."""
    await reply(shard.redis.hset(shard.keys.root, "held_by_loss", pack([clock.now, "w", 0, clock.now])))


async def go_on(shard: Shard) -> None:
    """Fire again, as an admin decided."""
    await reply(shard.redis.hdel(shard.keys.root, "held_by_loss"))
    await settle(shard)


async def change(shard: Shard, how: str, id_: str, definition: Definition) -> None:
    """Give one trigger of a set another definition."""
    if how == "edit":
        await triggers.edit(shard, "acme", [id_], lambda _: {id_: definition})
        return
    kept = [(one.id, one.definition) for one in (await catalog.read(shard, "acme")).triggers]
    await triggers.replace(shard, "acme", [(name, definition if name == id_ else one) for name, one in kept])


@pytest.mark.parametrize("how", ["edit", "replace"])
@pytest.mark.parametrize("policy", ["", "all", "latest"])
@pytest.mark.parametrize("schedule", ["cron", "interval", "one-off"])
async def test_what_is_overdue_while_firing_is_held_comes_as_if_its_trigger_had_not_been_changed(
    shard: Shard, clock: Clock, how: str, policy: Any, schedule: str
) -> None:
    given = {"interval": {"interval": 60}, "one-off": {"at": clock.now + 60_000}}.get(schedule, {})
    usual = define("" if given else "* * * * *", **given, catch_up_missed=policy, start_deadline_seconds=90)
    await triggers.replace(shard, "acme", [("changed", usual), ("left", usual)])
    clock.advance(45)
    await settle(shard)
    await hold_firing(shard, clock)
    clock.advance(330)
    for text in ("in other words", "and in others"):
        await change(shard, how, "changed", structs.replace(usual, description=text))
        clock.advance(20)
    await go_on(shard)
    await drain(shard, clock, 100)
    counts = await day_counts(shard, "acme", day_of(clock.now))
    assert counts["changed"] == counts["left"]
    assert counts["changed"]["due"] == {"cron": 7, "interval": 6, "one-off": 1}[schedule]
    at = {one.id: one.next_slot for one in (await catalog.read(shard, "acme")).triggers}
    assert at["changed"] == at["left"]
    await accounts_balance(shard, "acme", day_of(clock.now))


@pytest.mark.parametrize("how", ["edit", "replace"])
async def test_another_schedule_begins_now_and_the_ledger_tells_what_was_overdue_by_the_former_one(
    shard: Shard, clock: Clock, how: str
) -> None:
    usual = define(catch_up_missed="all")
    await triggers.replace(shard, "acme", [("0", usual)])
    began = clock.now
    await hold_firing(shard, clock)
    clock.advance(330)
    await change(shard, how, "0", structs.replace(usual, cron="*/2 * * * *"))
    changed = clock.now
    clock.advance(240)
    await go_on(shard)
    sent = await drain(shard, clock, 1)
    assert sent == schedule_of(define("*/2 * * * *"), "acme", "0", 0).slots(changed, 2)
    (span,) = await history.runs(shard, "acme", "0")
    assert (span.first, span.last, span.count, span.state) == (began, changed, 0, "changed")
    await accounts_balance(shard, "acme", day_of(clock.now))


@pytest.mark.parametrize("how", ["edit", "replace"])
async def test_who_is_disabled_while_firing_is_held_is_so_from_before_what_is_overdue(
    shard: Shard, clock: Clock, how: str
) -> None:
    await triggers.replace(shard, "acme", [("0", define(catch_up_missed="all"))])
    began = clock.now
    await hold_firing(shard, clock)
    clock.advance(330)
    await change(shard, how, "0", define(catch_up_missed="all", enabled=False))
    await change(shard, how, "0", define(catch_up_missed="all"))
    await go_on(shard)
    assert await drain(shard, clock, 1) == []
    (span,) = await history.runs(shard, "acme", "0")
    assert (span.first, span.last, span.count, span.state) == (began, clock.now, 0, "disabled")


async def test_what_fires_while_a_replace_is_prepared_under_a_hold_does_not_fire_again(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard(keep_succeeded=0)
    await triggers.replace(shard, "acme", [("0", define(catch_up_missed="all"))])
    await hold_firing(shard, clock)
    clock.advance(330)
    run, sent = shard.run, list[int]()

    async def go_on_before_the_swap(name: str, *args: Any) -> Any:
        if name == "swap_triggers" and args[-1] == 0:
            monkeypatch.setattr(shard, "run", run)
            await go_on(shard)
            sent.extend(await drain(shard, clock, 1))
        return await run(name, *args)

    monkeypatch.setattr(shard, "run", go_on_before_the_swap)
    await triggers.replace(shard, "acme", [("0", define(catch_up_missed="all", description="x"))])
    await settle(shard)
    assert await drain(shard, clock, 50) == []
    assert len(sent) == len(set(sent)) == 5


@pytest.mark.parametrize("how", ["edit", "replace"])
@pytest.mark.parametrize("before", ["cron", "one-off"])
async def test_a_trigger_that_has_fired_becomes_an_earlier_one_off_that_is_caught_up(
    shard: Shard, clock: Clock, how: str, before: str
) -> None:
    first = define() if before == "cron" else define("", at=clock.now + 590_000)
    await triggers.replace(shard, "acme", [("0", first)])
    clock.advance(600)
    await settle(shard)
    sent = await drain(shard, clock)
    earlier = define("", at=clock.now - 300_001, catch_up_missed="all")
    if how == "edit":
        await triggers.edit(shard, "acme", ["0"], lambda _: {"0": earlier})
    else:
        await triggers.replace(shard, "acme", [("0", earlier)])
    await settle(shard)
    assert await drain(shard, clock, 50) == [earlier.at]
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals["succeeded"] == len(sent) + 1 > 1


@pytest.mark.parametrize("catch_up", ["", "all", "latest"])
@pytest.mark.parametrize(
    "spans", [(), ((START + 2 * HOUR, START + 9 * HOUR), (START + 12 * HOUR, START + 13 * HOUR))]
)
def test_every_overdue_slot_is_missed_or_kept(catch_up: str, spans: tuple[tuple[int, int], ...]) -> None:
    definition = define("*/7 * * * *", catch_up_missed=catch_up, catch_up_window_seconds=11 * 3600)
    schedule = schedule_of(definition, "acme", "0", 0)
    now = START + 20 * HOUR
    judged = judge_overdue(schedule, definition, START, now, deadline=60_000, cap=50, records=4, spans=spans)
    inside = {s for s in schedule.slots(START, 0, now) if any(a < s <= b for a, b in spans)}
    due = [s for s in schedule.slots(START, 0, now) if s not in inside]
    kept = [slot for slot in due if slot > judged.after]
    missed = sum(number for run in judged.missed for _, number in run.days)
    assert missed + len(kept) == len(due)
    assert {"": 0, "latest": 1, "all": 50}[catch_up] + sum(now - s <= 60_000 for s in due) >= len(kept)
    for run in judged.missed:
        assert run.slots == [slot for slot in due if slot <= judged.after][-4:]
        assert (run.first, run.last) == (due[0], run.slots[-1])


def test_what_redis_lost_is_the_reason_where_it_lost_it_and_changes_no_number() -> None:
    definition = define("*/7 * * * *", catch_up_missed="latest")
    schedule = schedule_of(definition, "acme", "0", 0)
    now = START + 20 * HOUR
    lost = [(0, START + HOUR), (START + 3 * HOUR, START + 4 * HOUR), (START + 19 * HOUR, now)]

    def judged(lost: list[tuple[int, int]]) -> tuple[int, list[Missed]]:
        one = judge_overdue(schedule, definition, START, now, deadline=60_000, cap=50, records=30, lost=lost)
        return one.after, one.missed

    (after, (whole,)), (same, parts) = judged([]), judged(lost)
    assert same == after
    assert [run.reason for run in parts] == ["data_loss", "deadline", "data_loss", "deadline", "data_loss"]
    assert sum(n for run in parts for _, n in run.days) == sum(n for _, n in whole.days)
    assert [slot for run in parts for slot in run.slots] == whole.slots  # the newest get their records
    for run in parts:
        inside = [any(a < slot <= b for a, b in lost) for slot in (run.first, run.last)]
        assert inside == [run.reason == "data_loss"] * 2


async def test_late_slots_go_one_after_another_though_they_are_fired_in_several_calls(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(fire_batch=2)
    await triggers.replace(shard, "acme", [("0", define("*/10 * * * * *"))])
    clock.advance(55)
    await settle(shard)
    slots = []
    for number in range(5):
        (one,) = await claim_all(shard, number=number)
        slots.append(one.slot)
        await queue.finish(shard, [succeeded(one, clock.now)])
    assert slots == sorted(slots)
    clock.advance(5)
    await ticking.fire_due(shard)  # in time again: beside whatever is open
    (one,) = await claim_all(shard, number=6)
    await queue.renew(shard, {one.id: one.token})
    clock.advance(10)
    await ticking.fire_due(shard)
    assert len(await claim_all(shard, number=7)) == 1


async def test_a_slot_found_late_by_itself_skips_as_its_trigger_says(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("0", define(overlap_policy="skip"))])
    clock.advance(60)
    await ticking.fire_due(shard)
    clock.advance(60)  # the next slot is found 20 s late, while the first is open
    await ticking.fire_due(shard)
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals == {"due": 2, "skipped:overlap": 1, "open": 1}
