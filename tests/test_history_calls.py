"""History, ledger and metrics: what was counted, held against counting one by one."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from calls import ACME, client_of, finish_all, fire, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory
from helpers import claim_all, define

from app.clock import DAY_MS, day_of, from_ms, rfc3339
from app.health_score import health_score
from app.keys import kind_of
from app.models import Attempt, Execution, State
from app.store import Shard, executions, holds, orders, queue
from app.store.queue import Ended, What

pytestmark = pytest.mark.anyio


def date(ms: int) -> str:
    return f"{from_ms(ms):%Y-%m-%d}"


async def everything(shard: Shard) -> list[Execution]:
    return (await executions.list_newest(shard, "acme", limit=500)).executions


async def two_days(make_shard: ShardFactory, clock: Clock) -> Shard:
    """Executions of two UTC days with every kind of end, and durations from 0 to 5 s."""
    shard = make_shard(keep_succeeded=10_000, keep_failed=10_000, keep_succeeded_seconds=90 * 86_400)
    await store_set(shard, a="*/20 * * * *", b=define("*/30 * * * *", overlap_policy="skip"), c="0 * * * *")
    number = 0
    for step in range(30):
        clock.now = (clock.now // 3_600_000 + 1) * 3_600_000 + step * 137
        await fire(shard)
        for one in await claim_all(shard, number=step + 1):
            number += 1
            what: What = "failed" if number % 5 == 0 else "succeeded"
            status = 200 if what == "succeeded" else 500
            made = Attempt(
                clock.now, number * 53 % 5000, status, "" if status == 200 else "status", "", "", "w"
            )
            await queue.finish(shard, [Ended(one.id, one.token, what, 0, made)])
    letters = await orders.letters(shard, "acme")
    await orders.make(shard, "acme", "retry", [orders.retry_of(one, define()) for one in letters[:3]])
    await finish_all(shard, clock)
    clock.now = (clock.now // 3_600_000 + 1) * 3_600_000
    await fire(shard)  # and some stay open
    return shard


def scheduled(found: list[Execution], day: int, trigger: str | None = None) -> list[Execution]:
    return [
        one
        for one in found
        if kind_of(one.id) is None and day_of(one.slot) == day and trigger in (None, one.trigger)
    ]


@pytest.mark.parametrize("trigger", [None, "a", "b"])
async def test_history_is_what_counting_one_by_one_gives(
    make_shard: ShardFactory, clock: Clock, trigger: str | None
) -> None:
    shard = await two_days(make_shard, clock)
    found = await everything(shard)
    query = f"from={date(START - DAY_MS)}&to={date(clock.now)}"
    async with client_of(shard) as client:
        url = f"{ACME}/history?{query}" + (f"&trigger={trigger}" if trigger else "")
        history = await ok(client.get(url))
        assert history["trigger_id"] == trigger
        assert [day["day"] for day in history["days"]][:2] == [date(START - DAY_MS), date(START)]
        if trigger:
            assert history == await ok(client.get(f"{ACME}/triggers/{trigger}/history?{query}"))
        for index, shown in enumerate(history["days"]):
            slots = scheduled(found, day_of(START) - 1 + index, trigger)
            assert shown["due"] == len(slots)
            assert shown["open"] == sum(one.finished is None for one in slots)
            assert shown["states"] == {
                state: sum(one.state == state for one in slots) for state in shown["states"]
            }
            by_hand = [
                one
                for one in found
                if kind_of(one.id) and one.finished and day_of(one.finished) == day_of(START) - 1 + index
                and trigger in (None, one.trigger)
            ]  # fmt: skip
            assert sum(shown["by_hand"].values()) == len(by_hand)
            sent = [one for one in [*slots, *by_hand] if one.state in ("succeeded", "failed")]
            durations = sorted(one.attempts[-1].duration for one in sent)
            late = [one.attempts[0].started - one.slot for one in slots if one in sent]  # not those by hand
            assert shown["lateness_ms"]["avg"] == (round(sum(late) / len(late), 1) if late else None)
            spread = shown["duration_ms"]
            if not durations:
                assert set(spread.values()) == {None}
                continue
            assert (spread["min"], spread["max"]) == (durations[0], durations[-1])
            assert spread["avg"] == round(sum(durations) / len(durations), 1)
            for name, share in (("p50", 0.5), ("p95", 0.95), ("p99", 0.99)):
                exact = durations[max(0, -(-len(durations) * share // 1).__int__() - 1)]
                assert spread[name] == pytest.approx(exact, rel=0.06, abs=1), name
            assert shown["success_rate"] == round(sum(o.state == "succeeded" for o in sent) / len(sent), 4)


async def test_a_range_as_one_is_its_days_together(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await two_days(make_shard, clock)
    async with client_of(shard) as client:
        days = (await ok(client.get(f"{ACME}/history")))["days"]
        stats = await ok(client.get(f"{ACME}/history/stats"))
        assert (len(days), stats["first_day"], stats["last_day"]) == (30, days[0]["day"], date(clock.now))
        for name in ("due", "open"):
            assert stats["counted"][name] == sum(day[name] for day in days)
        for state, number in stats["counted"]["states"].items():
            assert number == sum(day["states"][state] for day in days)
        most = max(day["duration_ms"]["max"] or 0 for day in days)
        assert stats["counted"]["duration_ms"]["max"] == most


async def test_no_more_days_are_told_than_are_kept(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(keep_days=10)
    async with client_of(shard) as client:
        days = (await ok(client.get(f"{ACME}/history?from=1970-01-01&to=9999-12-31")))["days"]
        assert (len(days), days[-1]["day"]) == (11, date(clock.now))
        assert (await ok(client.get(f"{ACME}/history?from=2026-09-02&to=2026-09-01")))["days"] == []
        for bad in ("from=2026-02-30", "to=1.2.2026", "from=2026-9-1", "trigger=a b", "day=2026-01-01"):
            await refused(client.get(f"{ACME}/history?{bad}"), 400, "invalid_request")
        await refused(client.get(f"{ACME}/triggers/a/history"), 404, "not_found")


async def test_timings_may_be_kept_for_fewer_days_than_counters(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(keep_days=5000, keep_timings_days=1000, keep_slots=1)
    await store_set(shard, a="0 * * * *")
    await minutes(shard, clock, 4 * 60)
    (day,) = {day_of(clock.now), day_of(START)}
    of, now = shard.keys.of, int((await shard.redis.time())[0])
    for name, kept in ((f"day:{day}", 5000), (f"timings:{day}", 1000)):
        until = now + await shard.redis.ttl(of("acme", name))
        assert until == pytest.approx((day + 1 + kept) * 86_400, abs=3)
    await shard.redis.delete(of("acme", f"timings:{day}"), of("acme", "last"), of("acme", "recent"))
    async with client_of(shard) as client:
        (shown,) = (await ok(client.get(f"{ACME}/history?trigger=a&from={date(START)}&to={date(START)}")))[
            "days"
        ]
    assert shown["states"]["succeeded"] == 4
    assert shown["duration_ms"]["p50"] is None


@pytest.mark.parametrize("trigger", [None, "a", "b", "c"])
async def test_every_slot_in_the_ledger_is_open_or_ended_in_one_way(
    make_shard: ShardFactory, clock: Clock, trigger: str | None
) -> None:
    shard = await two_days(make_shard, clock)
    found = await everything(shard)
    async with client_of(shard) as client:
        query = f"?trigger={trigger}" if trigger else ""
        ledger = await ok(client.get(f"{ACME}/ledger{query}"))
    assert ledger["days"][-1]["day"] == date(clock.now)
    for index, shown in enumerate(reversed(ledger["days"])):
        slots = scheduled(found, day_of(clock.now) - index, trigger)
        ended = Counter((str(one.state), one.reason) for one in slots if one.finished)
        assert {(end["state"], end["reason"]): end["count"] for end in shown["ended"]} == ended
        assert shown["due"] == sum(end["count"] for end in shown["ended"]) + shown["open"] == len(slots)
    if trigger:
        own = [one for one in found if one.finished and one.trigger == trigger and not kind_of(one.id)]
        newest = sorted((one.slot for one in own), reverse=True)[:50]
        assert [one["scheduled_at"] for one in ledger["slots"]] == [rfc3339(slot) for slot in newest]
    else:
        assert (ledger["slots"], ledger["exceptions"]) == ([], [])


async def test_the_ledger_shows_outages_as_runs_and_holds_as_spans(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *")
    await minutes(shard, clock, 2)
    clock.advance(3600)  # an outage
    await fire(shard)
    await finish_all(shard, clock)
    outage = clock.now
    await holds.pause_triggers(shard, "acme", ["a"], "deploy")
    paused = clock.now
    clock.advance(600)
    await holds.resume_triggers(shard, "acme", ["a"])
    resumed = clock.now
    await holds.pause_workspace(shard, "acme", "storm")
    clock.advance(300)
    await holds.resume_workspace(shard, "acme")
    over = clock.now
    await store_set(shard, a=define(enabled=False))
    async with client_of(shard) as client:
        ledger = await ok(client.get(f"{ACME}/ledger?trigger=a"))
        missed = [run for run in ledger["exceptions"] if run["state"] == "missed"]
        assert sum(run["count"] for run in missed) == 59
        assert {run["reason"] for run in missed} == {"deadline"}
        assert max(run["last"] for run in missed) <= rfc3339(outage)
        assert ledger["spans"] == [
            {"since": rfc3339(over), "until": None, "what": "trigger_disabled", "note": None},
            {"since": rfc3339(resumed), "until": rfc3339(over), "what": "workspace_paused", "note": "storm"},
            {"since": rfc3339(paused), "until": rfc3339(resumed), "what": "trigger_paused", "note": "deploy"},
        ]
        (day,) = [one for one in ledger["days"] if one["due"]]
        assert {end["state"]: end["count"] for end in day["ended"]} == {"succeeded": 3, "missed": 59}
        before = await ok(client.get(f"{ACME}/ledger?trigger=a&to=2026-09-01"))
        assert (before["exceptions"], before["slots"], len(before["spans"])) == ([], [], 0)
        total = await ok(client.get(f"{ACME}/ledger"))
        assert total["days"] == ledger["days"]
        assert [span["what"] for span in total["spans"]] == ["workspace_paused"]
        await refused(client.get(f"{ACME}/ledger?trigger=a&from=x"), 400, "invalid_request")


async def test_metrics_tell_how_a_trigger_fares(shard: Shard, clock: Clock) -> None:
    await store_set(shard, a="* * * * *", new="0 0 1 1 *")
    await minutes(shard, clock, 7)
    await minutes(shard, clock, 2, "failed")
    async with client_of(shard) as client:
        metrics = await ok(client.get(f"{ACME}/triggers/a/metrics"))
        assert (metrics["runs"], metrics["consecutive_failures"]) == (9, 2)
        assert metrics["success_rate"] == round(7 / 9, 4)
        states = [State.FAILED] * 2 + [State.SUCCEEDED] * 7
        late = metrics["week"]["lateness_ms"]["p95"]
        assert late == pytest.approx(20_000, rel=0.05)
        assert metrics["health_score"] == health_score(states, due=9, absent=0, lateness_p95=late)
        assert (metrics["last_run"]["state"], metrics["last_run"]["status"]) == ("failed", 500)
        failure = metrics["last_failure"]
        assert failure["error"] == {"kind": "status", "message": "the target answered 500"}
        assert (await ok(client.get(f"{ACME}/executions/{failure['execution_id']}")))["execution"]
        assert metrics["week"]["duration_ms"]["p99"] == 5
        new = await ok(client.get(f"{ACME}/triggers/new/metrics"))
        empty: dict[str, Any] = {
            name: new[name] for name in ("health_score", "success_rate", "last_run", "last_failure")
        }
        assert set(empty.values()) == {None}
        await refused(client.get(f"{ACME}/triggers/none/metrics"), 404, "not_found")
