"""/metrics of the API: the fleet's figures, the same from every process, at a bounded cost."""

from __future__ import annotations

import pytest
from calls import ACME, bearer, client_of, key_for, minutes, ok, store_set
from conftest import Clock, ShardFactory
from examples import ADMIN_KEY
from helpers import claim_all, failed, heartbeat, numbered
from redis.exceptions import ResponseError
from samples import Samples, at, samples

from app.api import scrape
from app.store import Shard, Shards, census, queue, ticking, triggers
from app.store.census import Census
from app.store.history import WHATS
from app.telemetry.metrics import ALL, OF_FLEET
from workers.account import Account

pytestmark = pytest.mark.anyio


async def scraped(shard: Shard) -> Samples:
    async with client_of(shard) as client:
        response = await client.get("/metrics")
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    return samples(response.text)


async def test_the_api_reports_the_fleet_out_of_redis(shard: Shard, clock: Clock) -> None:
    await store_set(shard, "acme", one="* * * * *", two="* * * * *")
    await store_set(shard, "other", one="* * * * *")
    await minutes(shard, clock)
    await minutes(shard, clock, what="failed")
    clock.advance(60)
    await ticking.fire_due(shard)
    await heartbeat(shard, "a", running=2)
    await heartbeat(shard, "b", running=1)
    found = await scraped(shard)
    assert at(found, "workspaces") == 2
    assert at(found, "triggers", state="active") == 3
    assert at(found, "executions", state="queued") == 3
    assert at(found, "executions", state="failed") == 3
    assert at(found, "ended_executions_total", state="succeeded", reason="") == 3
    assert at(found, "due_slots_total") == 9
    assert at(found, "queue_depth") == 3
    assert at(found, "in_flight_requests") == 3
    assert at(found, "places") == 20
    assert at(found, "workers", state="alive") == 2
    assert (at(found, "redis_memory_bytes") or 0) > 0


async def test_two_processes_report_the_same_and_it_is_not_to_be_summed(shard: Shard, clock: Clock) -> None:
    await store_set(shard, one="* * * * *")
    await minutes(shard, clock)
    first, second = await scraped(shard), await scraped(shard)
    fleet = {f"{one.name}" for one in OF_FLEET} - {"cronspace_redis_memory_bytes"}
    ours = {key: value for key, value in first.items() if key[0] in fleet}
    assert ours
    assert ours == {key: value for key, value in second.items() if key[0] in fleet}


async def test_skipped_and_missed_are_counted_by_reason(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_concurrency=1, max_backlog=1)
    await triggers.replace(shard, "acme", numbered(4))
    clock.advance(60)
    await ticking.fire_due(shard)
    clock.advance(300)
    await ticking.fire_due(shard)
    await ticking.refill(shard)
    found = await scraped(shard)
    assert at(found, "ended_executions_total", state="skipped", reason="backlog_full") == 2
    assert (at(found, "ended_executions_total", state="missed", reason="deadline") or 0) >= 4


async def test_what_never_happened_is_told_as_0_so_that_its_first_time_is_an_increase(
    shard: Shard, clock: Clock
) -> None:
    """`increase()`, which the alerts ask, sees nothing of what a series begins with."""
    missed = {"state": "missed", "reason": "deadline"}
    await store_set(shard, one="* * * * *")
    before = await scraped(shard)
    clock.advance(600)
    await ticking.fire_due(shard)
    await ticking.refill(shard)
    assert at(before, "ended_executions_total", **missed) == 0
    assert (at(await scraped(shard), "ended_executions_total", **missed) or 0) > 0
    told = {labels for name, labels in before if name == "cronspace_ended_executions_total"}
    assert len(told) == len(WHATS) - 1  # all but what came due


async def test_a_worker_tells_once_of_all_that_it_takes_over_from_another(
    shard: Shard, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "workers.account")
    await store_set(shard, one="* * * * *", two="* * * * *", three="* * * * *")
    clock.advance(60)
    await ticking.fire_due(shard)
    await queue.claim(shard, "w1~0a1b2c3d", 1, 2)
    await queue.claim(shard, "w2~0a1b2c3d", 1, 2)
    account = Account()
    for number in range(7):  # somebody lives meanwhile
        clock.advance(5)
        account.claimed(await queue.claim(shard, "alive~0a1b2c3d", number, 10), 0)
    assert [record.getMessage() for record in caplog.records] == [
        "took over 2 executions from w1, whose lease has lapsed",
        "took over 1 execution from w2, whose lease has lapsed",
    ]
    assert [record.from_worker for record in caplog.records] == ["w1", "w2"]  # type: ignore[attr-defined]


async def test_a_takeover_is_counted(shard: Shard, clock: Clock) -> None:
    await store_set(shard, one="* * * * *")
    clock.advance(60)
    await ticking.fire_due(shard)
    await claim_all(shard, worker="dead")
    for _ in range(6):  # somebody lives meanwhile
        clock.advance(5)
        await claim_all(shard, worker="alive", number=clock.now)
    assert at(await scraped(shard), "lease_takeovers_total") == 1


async def test_a_retry_is_not_an_end(shard: Shard, clock: Clock) -> None:
    await store_set(shard, one="* * * * *")
    clock.advance(60)
    await ticking.fire_due(shard)
    (claimed,) = await claim_all(shard)
    await queue.finish(shard, [failed(claimed, clock.now, "retry", 1000)])
    found = await scraped(shard)
    assert at(found, "executions", state="retrying") == 1
    assert at(found, "ended_executions_total", state="failed", reason="") == 0


async def test_no_label_names_a_trigger_or_a_url_and_workspaces_only_as_many_as_configured(
    make_shard: ShardFactory, clock: Clock
) -> None:
    for named in (0, 2):
        shard = make_shard(metrics_workspaces=named)
        for workspace in ("alpha", "beta", "gamma", "delta"):
            await store_set(shard, workspace, **{"secret-trigger": "* * * * *"})
        await minutes(shard, clock)
        found = await scraped(shard)
        values = {value for _, labels in found for _, value in labels}
        assert not {value for value in values if "secret-trigger" in value or "http" in value}
        told = {dict(labels)["workspace"] for name, labels in found if "workspace_executions" in name}
        assert told == ({"alpha", "beta", "_other"} if named else set())
    assert at(found, "workspace_executions", workspace="alpha", state="succeeded") == 2
    assert at(found, "workspace_executions", workspace="_other", state="succeeded") == 4


async def test_what_is_gone_is_not_reported_any_more(
    make_shard: ShardFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_FRESH_SECONDS", 0.0)
    shard = make_shard(metrics_workspaces=5)
    await store_set(shard, "acme", one="* * * * *")
    async with client_of(shard) as client:
        assert 'workspace="acme"' in (await client.get("/metrics")).text
        await ok(client.delete(f"{ACME}?confirm=acme"))
        assert 'workspace="acme"' not in (await client.get("/metrics")).text


async def test_a_count_takes_bounded_steps_and_the_last_complete_one_holds(shard: Shard) -> None:
    for number in range(5):
        await store_set(shard, f"w{number}", one="* * * * *")
    counting = Census(Shards([shard]), step=2)
    for _ in range(2):
        await counting.go_on()
        assert counting.total is None
    await counting.go_on()
    assert counting.total is not None
    assert counting.total.triggers["active"] == 5
    await store_set(shard, "w5", one="* * * * *")
    await counting.go_on()
    assert counting.total.triggers["active"] == 5
    for _ in range(2):
        await counting.go_on()
    assert counting.total.triggers["active"] == 6


@pytest.mark.parametrize("step", [2, 1000])
async def test_a_count_that_fails_amid_it_counts_nothing_twice_and_leaves_nothing_out(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    monkeypatch.setattr(census, "_AT_ONCE", 2)
    for number in range(5):
        await store_set(shard, f"w{number}", one="* * * * *")
    spoilt = shard.keys.of("w3", "failed")
    await shard.redis.set(spoilt, "no sorted set")
    counting = Census(Shards([shard]), step=step)

    async def count() -> None:
        while counting.total is None:
            await counting.go_on()

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        await count()
    await shard.redis.delete(spoilt)
    await count()
    assert counting.total is not None
    assert counting.total.triggers["active"] == 5


async def test_redis_is_read_once_a_second_however_many_ask(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr(scrape.time, "monotonic", lambda: now)
    await store_set(shard, one="* * * * *")
    async with client_of(shard) as client:
        first = (await client.get("/metrics")).text
        await store_set(shard, "other", one="* * * * *")
        assert (await client.get("/metrics")).text == first
        now += 1.0
        assert (await client.get("/metrics")).text != first


@pytest.mark.parametrize(
    ("metrics", "anybody", "tenant", "all_workspaces"),
    [("public", 200, 200, 200), ("authenticated", 401, 403, 200), ("off", 404, 404, 404)],
)
async def test_it_has_a_switch(
    make_shard: ShardFactory, metrics: str, anybody: int, tenant: int, all_workspaces: int
) -> None:
    shard = make_shard(metrics=metrics, auth="tokens", admin_key=ADMIN_KEY)
    async with client_of(shard) as client:
        keys = [await key_for(client, "read", "acme"), await key_for(client, "read", "*")]
        assert (await client.get("/metrics")).status_code == anybody
        given = [(await client.get("/metrics", headers=bearer(key))).status_code for key in keys]
        assert given == [tenant, all_workspaces]


async def test_errors_of_redis_are_counted_by_kind(make_shard: ShardFactory) -> None:
    shard = make_shard(redis_url="unix:///nowhere")
    async with client_of(shard) as client:
        assert (await client.get("/api/stats")).status_code == 503
        found = samples((await client.get("/metrics")).text)
    assert at(found, "redis_errors_total", kind="connection") == 2
    assert at(found, "redis_up") == 0
    assert at(found, "queue_depth") is None


def test_every_metric_has_a_name_of_its_own_and_its_kinds_ending() -> None:
    assert len({one.name for one in ALL}) == len(ALL)
    for one in ALL:
        assert (one.kind == "counter") == one.name.endswith("_total")
        assert one.kind != "histogram" or one.buckets == tuple(sorted(one.buckets))
