"""Explanations: what really happened to a trigger, told by the right code and in words."""

from __future__ import annotations

from typing import Any

import pytest
from calls import ACME, client_of, finish_all, fire, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory
from helpers import claim_all, define, failed, heartbeat

from app.clock import rfc3339
from app.models import Attempt, State
from app.store import Shard, holds, orders, queue, ticking, triggers, workers, workspaces
from app.store.history import WHATS
from app.store.queue import Ended
from app.wording import code_of, sentence

pytestmark = pytest.mark.anyio

MINUTE = 60_000
FIRST = START // MINUTE * MINUTE + MINUTE  # the first slot of a trigger of every minute


async def told(
    shard: Shard, at: int | None = None, trigger: str = "a", *, served: bool = True
) -> list[dict[str, Any]]:
    """The findings, now or of a slot; while a worker lives, unless it is not ``served``."""
    if served:
        await heartbeat(shard)
    async with client_of(shard) as client:
        query = "" if at is None else f"?at={rfc3339(at)}"
        explanation = await ok(client.get(f"{ACME}/triggers/{trigger}/explain{query}"))
    assert explanation["summary"] == explanation["findings"][0]["message"]
    assert (explanation["slot"] is None) == (at is None)
    findings: list[dict[str, Any]] = explanation["findings"]
    return findings


def codes(findings: list[dict[str, Any]]) -> list[str]:
    return [finding["code"] for finding in findings]


async def only(shard: Shard, at: int | None = None, trigger: str = "a") -> dict[str, Any]:
    (finding,) = await told(shard, at, trigger)
    return finding


async def test_a_new_trigger_says_when_it_will_run(shard: Shard) -> None:
    await store_set(shard, a=define(timezone="Europe/Berlin"))
    await fire(shard)
    found = await told(shard)
    assert codes(found) == ["next_slot", "never_ran"]
    assert found[0]["message"] == "The next slot is 2026-09-21 16:14:00 Europe/Berlin, in 40 seconds."
    assert found[0]["at"] == rfc3339(FIRST)


async def test_no_worker_and_an_overdue_slot_are_told(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", [("a", define())])
    found = await told(shard, served=False)
    assert codes(found)[:2] == ["no_worker", "next_slot"]
    assert found[0]["message"] == "No worker has called yet: nothing is sent until one runs."
    await fire(shard)
    clock.advance(600)
    found = await told(shard, served=False)
    assert codes(found)[:2] == ["no_worker", "slot_overdue"]
    assert "since 2026-09-21 14:13:20 UTC" in found[0]["message"]
    assert "overdue by 9 minutes" in found[1]["message"]
    assert codes(await told(shard, FIRST, served=False)) == ["no_worker", "slot_overdue"]


async def test_explain_and_health_agree_on_whether_a_worker_serves_the_shard(
    shard: Shard, clock: Clock
) -> None:
    await store_set(shard, a="* * * * *")
    await heartbeat(shard)
    await fire(shard)

    async def both() -> tuple[bool, bool]:
        async with client_of(shard) as client:
            health = (await client.get("/health/detailed")).json()
        no_worker = "no_worker" in codes(await told(shard, served=False))
        return no_worker, any("no worker is alive" in one for one in health["reasons"])

    assert await both() == (False, False)
    clock.now += workers.SILENT_MS + 1
    assert await both() == (True, True)
    await heartbeat(shard)
    assert await both() == (False, False)
    await workers.leave(shard, "w")
    assert await both() == (True, True)


async def test_holds_are_told_with_their_notes(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *", off=define(enabled=False))
    await fire(shard)
    await holds.pause_triggers(shard, "acme", ["a", "off"], "until the fix is out")
    await holds.pause_workspace(shard, "acme", "storm")
    clock.advance(25)
    found = await told(shard)
    assert codes(found) == ["trigger_paused", "workspace_paused", "never_ran"]
    assert "('until the fix is out')" in found[0]["message"]
    assert codes(await told(shard, trigger="off"))[:3] == [
        "trigger_disabled", "trigger_paused", "workspace_paused",
    ]  # fmt: skip


async def test_a_slot_in_a_pause_was_never_due(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 1)
    await holds.pause_triggers(shard, "acme", ["a"], "deploy")
    clock.advance(120)
    assert (await only(shard, FIRST + MINUTE))["code"] == "in_pause"
    await holds.resume_triggers(shard, "acme", ["a"])
    await minutes(shard, clock, 1)
    await holds.pause_workspace(shard, "acme", "storm")
    clock.advance(120)
    assert (await only(shard, FIRST + 5 * MINUTE))["code"] == "in_workspace_pause"
    await holds.resume_workspace(shard, "acme")
    await store_set(shard, a=define(enabled=False))
    clock.advance(120)
    assert (await only(shard, FIRST + 7 * MINUTE))["code"] == "while_disabled"
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 1)
    finding = await only(shard, FIRST + MINUTE)
    assert finding["code"] == "in_pause"
    assert (
        "was paused from 2026-09-21 14:14:20 UTC to 2026-09-21 14:16:20 UTC ('deploy')" in finding["message"]
    )
    assert (await only(shard, FIRST + 5 * MINUTE))["code"] == "in_workspace_pause"
    assert (await only(shard, FIRST + 7 * MINUTE))["code"] == "while_disabled"
    assert (await only(shard, FIRST))["code"] == "succeeded"


async def test_finished_schedules_say_why(shard: Shard, clock: Clock) -> None:
    await store_set(
        shard,
        once=define(cron="", at=FIRST),
        few=define(max_runs=1),
        ended=define(ends_at=FIRST),
    )
    await minutes(shard, clock, 1)
    for trigger, words in (("once", "its only slot was"), ("few", "max_runs (1)"), ("ended", "(ends_at)")):
        found = await told(shard, trigger=trigger)
        assert codes(found) == ["schedule_finished", "succeeded"], trigger
        assert words in found[0]["message"]


async def test_a_schedule_that_cannot_be_computed_says_so(shard: Shard) -> None:
    await store_set(shard, a="* * * * *")
    await fire(shard)
    await shard.redis.hset(shard.keys.of("acme", "errors"), "a", "the zone is unknown")
    found = await told(shard)
    assert codes(found)[0] == "schedule_error"
    assert "the zone is unknown" in found[0]["message"]


async def test_an_execution_that_waits_for_the_rate_says_so(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *", b="* * * * *")
    await workspaces.configure(shard, "acme", workspaces.WorkspaceSettings(max_rate=0.5))
    clock.now = FIRST
    await fire(shard)
    finding = await only(shard, FIRST, "b")
    assert finding["code"] == "waiting_for_rate"
    assert "max_rate is 0.5 a second" in finding["message"]


async def test_open_executions_say_what_they_wait_for(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1)
    await store_set(
        shard, a=define(overlap_policy="queue"), b="* * * * *", jitter=define(jitter_seconds=3600)
    )
    clock.now = FIRST
    await fire(shard)
    assert codes([await only(shard, FIRST)]) == ["ready"]
    assert (await only(shard, FIRST, "jitter"))["code"] == "waiting_for_jitter"
    finding = await only(shard, FIRST, "b")
    assert finding["code"] == "waiting_for_place"
    assert "(max_concurrency 1)" in finding["message"]
    assert finding["execution_id"] == f"acme:b:{FIRST}"
    (first,) = await claim_all(shard)
    assert (await only(shard, FIRST))["code"] == "running"
    clock.advance(60)
    await fire(shard)
    assert (await only(shard, FIRST + MINUTE))["code"] == "waiting_in_line"
    await queue.finish(shard, [failed(first, clock.now, "retry", 5000)])
    finding = await only(shard, FIRST)
    assert finding["code"] == "retrying"
    assert "attempt 1 failed (the target answered 500)" in finding["message"]
    assert "at 2026-09-21 14:15:05 UTC" in finding["message"]
    now = await told(shard)
    assert codes(now) == ["next_slot", "waiting_in_line", "retrying"]


async def test_a_later_attempt_tells_how_the_one_before_it_failed(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    clock.now = FIRST
    await fire(shard)
    (first,) = await claim_all(shard)
    await queue.finish(shard, [failed(first, clock.now, "retry", 5000)])
    clock.advance(5)
    await claim_all(shard, number=2)
    finding = await only(shard, FIRST)
    assert finding["code"] == "running"
    assert finding["message"].endswith(
        "is being sent once more, by the worker w: attempt 1 failed (the target answered 500)."
    )


async def test_a_failure_without_an_answer_says_why_as_long_as_it_is_kept(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    clock.now = FIRST
    await fire(shard)
    (first,) = await claim_all(shard)
    broken = Attempt(clock.now, 5, 0, "connect", "can't connect to 127.0.0.1:9", "", "w")
    await queue.finish(shard, [Ended(first.id, first.token, "failed", 0, broken)])
    assert (await told(shard))[-1]["message"].endswith(
        "failed for good after 1 attempt: can't connect to 127.0.0.1:9."
    )
    await orders.remove_letters(shard, "acme", [first.id])
    assert (await told(shard))[-1]["code"] == "failed"


async def test_caught_up_slots_wait_for_live_ones(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a=define(catch_up_missed="all"))
    clock.advance(3600)
    await fire(shard)
    assert (await only(shard, FIRST))["code"] == "waiting_for_live"
    assert (await only(shard, FIRST + MINUTE))["code"] == "waiting_in_line"


async def test_a_full_backlog_is_told(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1, max_backlog=1)
    await store_set(shard, a="* * * * *", b="* * * * *", c="* * * * *")
    clock.now = FIRST
    await fire(shard)
    found = [(await only(shard, FIRST, trigger))["code"] for trigger in ("a", "b", "c")]
    assert sorted(found) == ["ready", "skipped_backlog_full", "waiting_for_place"]


async def test_overlaps_and_cancellations_are_told(shard: Shard, clock: Clock) -> None:
    await store_set(shard, skip=define(overlap_policy="skip"), replace=define(overlap_policy="replace"))
    for slot in (FIRST, FIRST + MINUTE):
        clock.now = slot
        await fire(shard)
    assert (await only(shard, clock.now, "skip"))["code"] == "skipped_overlap"
    assert (await only(shard, FIRST, "replace"))["code"] == "cancelled_replaced"
    await orders.cancel(shard, [f"acme:replace:{clock.now}"])
    assert (await only(shard, clock.now, "replace"))["code"] == "cancelled_by_person"
    newest = (await told(shard, trigger="skip"))[-1]
    assert newest["message"] == (
        "The slot 2026-09-21 14:15:00 UTC was skipped because an earlier execution was still open"
        " (overlap_policy)."
    )


async def test_a_dead_letter_says_what_went_wrong(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 1, "failed")
    finding = await only(shard, FIRST)
    assert (finding["code"], finding["execution_id"]) == ("failed", f"acme:a:{FIRST}")
    assert "failed for good after 1 attempt: the target answered 500" in finding["message"]
    await orders.remove_letters(shard, "acme", [f"acme:a:{FIRST}"])
    finding = await only(shard, FIRST)
    assert (finding["code"], finding["execution_id"]) == ("failed", None)
    assert "The target answered 500" in finding["message"]


async def test_lost_workers_are_told(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_takeovers=1)
    await store_set(shard, a="* * * * *", once=define(delivery="at_most_once"))
    clock.advance(60)
    await fire(shard)
    assert len(await claim_all(shard, "doomed")) == 2
    for number in range(10):
        clock.advance(6)
        await ticking.fire_due(shard)
        await claim_all(shard, "heir", number=number, at_most=0)
    await claim_all(shard, "heir", number=99)
    assert (await only(shard, FIRST, "once"))["code"] == "unknown_outcome"
    assert (await only(shard, FIRST))["code"] == "worker_lost"


async def test_an_outage_is_told_slot_by_slot_and_as_a_whole(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *", window=define(catch_up_missed="all", catch_up_window_seconds=600))
    await minutes(shard, clock, 2)
    clock.advance(3600)
    await fire(shard)
    while await finish_all(shard, clock):
        pass
    finding = await only(shard, FIRST + 10 * MINUTE)
    assert finding["code"] == "missed_deadline"
    assert "more than 60 s late" in finding["message"]
    finding = await only(shard, FIRST + 10 * MINUTE, "window")
    assert finding["code"] == "missed_catch_up_window"
    whole = [one for one in await told(shard) if one["code"] == "missed_deadline"]
    assert any("slots from 2026-09-21 14:16:00 UTC" in one["message"] for one in whole)


async def test_what_is_forgotten_slot_by_slot_is_told_by_its_day(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(keep_slots=2, keep_succeeded=1)
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 6)
    finding = await only(shard, FIRST)
    assert finding["code"] == "day_succeeded"
    assert "all 6 of 2026-09-21" in finding["message"]
    await minutes(shard, clock, 1, "failed")
    finding = await only(shard, FIRST)
    assert finding["code"] == "not_recorded"
    assert "7 slots were counted: 6 succeeded, 1 failed" in finding["message"]
    finding = await only(shard, FIRST - 5 * 86_400_000)
    assert finding["code"] == "not_recorded"
    assert "No slot was counted on 2026-09-16" in finding["message"]


async def test_a_moment_between_slots_leads_to_the_nearest(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 2)
    found = await told(shard, FIRST + 25_000)
    assert codes(found) == ["not_a_slot", "succeeded"]
    assert [one["at"] for one in found] == [rfc3339(FIRST)] * 2
    found = await told(shard, FIRST + 31_000)
    assert found[1]["at"] == rfc3339(FIRST + MINUTE)
    found = await told(shard, FIRST + 9 * MINUTE)
    assert codes(found) == ["slot_ahead"]
    await holds.pause_triggers(shard, "acme", ["a"], "x")
    assert codes(await told(shard, FIRST + 9 * MINUTE)) == ["slot_ahead", "trigger_paused"]


async def test_two_moments_of_one_second_are_told_apart(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    missed, _ = await told(shard, FIRST - 86_400_000 + 500)
    assert missed["code"] == "not_a_slot"
    assert ":00.500 UTC is no slot of its schedule" in missed["message"]
    assert missed["message"].endswith(":00 UTC.")


@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago"])
@pytest.mark.parametrize("at", ["0001-01-01T00:00:00%2B14:00", "9999-12-31T23:59:59-14:00"])
async def test_the_ends_of_the_calendar_can_be_asked_about(shard: Shard, timezone: str, at: str) -> None:
    await store_set(shard, a=define("30 12 2 7 *", timezone=timezone))
    async with client_of(shard) as client:
        explanation = await ok(client.get(f"{ACME}/triggers/a/explain?at={at}"))
    assert codes(explanation["findings"])[0] == "not_a_slot"


async def test_a_trigger_that_is_gone_is_explained_while_something_is_kept(
    shard: Shard, clock: Clock
) -> None:
    await store_set(shard, a="* * * * *")
    clock.advance(60)
    await fire(shard)
    await triggers.replace(shard, "acme", [])
    assert codes(await told(shard))[0] == "no_such_trigger"
    await claim_all(shard)
    found = await told(shard, FIRST)
    assert codes(found) == ["no_such_trigger", "cancelled_removed"]
    async with client_of(shard) as client:
        await refused(client.get(f"{ACME}/triggers/b/explain"), 404, "not_found")
        await refused(client.get(f"{ACME}/triggers/a/explain?at=now"), 400, "invalid_request")


async def test_every_end_that_is_counted_has_a_sentence() -> None:
    for what in WHATS:
        if what in ("due", "failed:unreadable"):
            continue
        state, _, reason = what.partition(":")
        code = code_of(State(state), reason)
        assert code != "ended", what
        assert sentence(code, 60.0) != "ended."
