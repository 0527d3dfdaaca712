"""Runs by hand, backfills and the question when a trigger runs next, over ASGI and a real Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from calls import client_of, ok
from conftest import START, Clock, ShardFactory
from helpers import claim_all, define, open_ids, succeeded

from app.clock import rfc3339
from app.keys import assigned_time, execution_id
from app.models import pack_definition, unpack_definition
from app.store import Shard, holds, queue, ticking, triggers

pytestmark = pytest.mark.anyio

PATH = "/api/workspaces/acme/triggers"
ONE = {"cron": "0 * * * *", "url": "https://example.com/x", "method": "POST", "payload": {"own": True}}
HOUR = 3_600_000


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        await client.put(f"{PATH}/t", json=ONE)
        yield client


def faults_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 400, response.text
    return [fault["path"] for fault in response.json()["errors"]]


async def test_a_run_is_queued_at_once(client: httpx.AsyncClient, shard: Shard) -> None:
    made = await client.post(f"{PATH}/t/run")
    body = made.json()
    assert (made.status_code, body["repeated"]) == (202, False)
    assert made.headers["location"] == f"/api/workspaces/acme/executions/{body['execution_id']}"
    assert (await client.get(made.headers["location"])).json()["execution"]["state"] == "queued"
    (claimed,) = await claim_all(shard)
    assert claimed.id == body["execution_id"]
    assert unpack_definition(claimed.definition).payload == b'{"own":true}'


async def test_a_run_may_have_a_payload_of_its_own(client: httpx.AsyncClient, shard: Shard) -> None:
    await client.post(f"{PATH}/t/run", json={"payload": {"other": [1]}})
    await client.post(f"{PATH}/t/run", json={"payload": None})
    sent = [unpack_definition(one.definition).payload for one in await claim_all(shard)]
    assert sorted(sent) == [b"", b'{"other":[1]}']
    assert (await client.get(f"{PATH}/t")).json()["trigger"]["payload"] == ONE["payload"]
    assert faults_of(await client.post(f"{PATH}/t/run", json={"payload": "{{nonsense}}"})) == ["payload"]
    assert faults_of(await client.post(f"{PATH}/t/run", json={"pay": 1})) == ["pay"]


@pytest.mark.parametrize("held", ["pause", "disable"])
async def test_what_is_paused_or_disabled_can_be_run_by_hand(
    client: httpx.AsyncClient, shard: Shard, held: str
) -> None:
    await client.post(f"{PATH}/bulk", json={"action": held, "ids": ["t"]})
    assert (await client.post(f"{PATH}/t/run")).status_code == 202
    assert len(await claim_all(shard)) == 1


async def test_a_run_that_finds_the_backlog_full_is_recorded_as_skipped(make_shard: ShardFactory) -> None:
    for kept in (10, 0):
        shard = make_shard(max_backlog=0, max_concurrency=1, keep_succeeded=kept)
        async with client_of(shard) as client:
            await client.put(f"/api/workspaces/w{kept}/triggers/t", json=ONE)
            path = f"/api/workspaces/w{kept}/triggers/t/run"
            assert (await client.post(path)).json()["execution_id"] is not None
            full = await client.post(path)
            assert (full.status_code, "location" in full.headers) == (202, kept > 0)
            if kept:
                shown = (await client.get(full.headers["location"])).json()["execution"]
                assert (shown["state"], shown["reason"]) == ("skipped", "backlog_full")


async def test_an_idempotency_key_makes_one_run_of_many_calls(
    client: httpx.AsyncClient, shard: Shard
) -> None:
    key = {"Idempotency-Key": "deploy-17"}
    answers = await asyncio.gather(*(client.post(f"{PATH}/t/run", headers=key) for _ in range(6)))
    assert {one.status_code for one in answers} == {202}
    assert len({one.json()["execution_id"] for one in answers}) == 1
    assert sorted(one.json()["repeated"] for one in answers) == [False] + [True] * 5
    assert len(await claim_all(shard)) == 1
    other = await client.post(f"{PATH}/t/run", headers=key, json={"payload": 1})
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")
    await client.put(f"{PATH}/u", json=ONE)
    assert (await client.post(f"{PATH}/u/run", headers=key)).status_code == 422
    assert faults_of(await client.post(f"{PATH}/t/run", headers={"Idempotency-Key": "x" * 256})) == [
        "idempotency-key"
    ]


async def test_an_idempotency_key_goes_with_its_workspace(client: httpx.AsyncClient, clock: Clock) -> None:
    key = {"Idempotency-Key": "deploy-17"}
    former = await client.post(f"{PATH}/t/run", headers=key)
    await client.delete("/api/workspaces/acme?confirm=acme")
    clock.advance(1)
    await client.put(f"{PATH}/t", json=ONE)
    again = await client.post(f"{PATH}/t/run", headers=key)
    assert (again.status_code, again.json()["repeated"]) == (202, False)
    assert again.json()["execution_id"] != former.json()["execution_id"]


async def test_a_backfill_is_counted_first(client: httpx.AsyncClient, shard: Shard) -> None:
    asked = {"from": "2026-09-20T00:00:00Z", "to": "2026-09-21T00:00:00Z", "dry_run": True}
    counted = await client.post(f"{PATH}/t/backfill", json=asked)
    body = counted.json()
    assert (counted.status_code, body["dry_run"], body["count"], body["at_most"]) == (200, True, 24, 1000)
    assert body["first"][:2] == ["2026-09-20T00:00:00.000Z", "2026-09-20T01:00:00.000Z"]
    assert (len(body["first"]), body["execution_ids"]) == (10, [])
    assert await claim_all(shard) == []


async def test_a_backfill_makes_an_execution_for_each_slot(
    client: httpx.AsyncClient, shard: Shard, clock: Clock
) -> None:
    asked = {"from": "2026-09-21T10:00:00Z", "to": "2026-09-21T13:00:00Z"}
    made = await client.post(f"{PATH}/t/backfill", json=asked)
    body = made.json()
    assert (made.status_code, body["count"], len(body["execution_ids"])) == (202, 3, 3)
    sent = []
    for number in range(3):  # one after another
        (one,) = await claim_all(shard, number=number)
        sent.append(one.slot)
        await queue.finish(shard, [succeeded(one, clock.now)])
    assert [rfc3339(slot) for slot in sent] == body["first"]
    assert (
        await client.get(f"/api/workspaces/acme/executions/{body['execution_ids'][0]}")
    ).status_code == 200


async def test_a_backfill_can_go_side_by_side(client: httpx.AsyncClient, shard: Shard) -> None:
    asked = {"from": "2026-09-21T10:00:00Z", "to": "2026-09-21T13:00:00Z", "overlap_policy": "allow"}
    await client.post(f"{PATH}/t/backfill", json=asked)
    assert len(await claim_all(shard)) == 3


async def test_a_backfill_ends_at_the_present(client: httpx.AsyncClient) -> None:
    asked = {"from": "2026-09-21T12:00:00Z", "to": "2027-01-01T00:00:00Z", "dry_run": True}
    body = (await client.post(f"{PATH}/t/backfill", json=asked)).json()
    assert (body["count"], body["to"]) == (3, rfc3339(START + 1))
    assert body["first"][-1] == "2026-09-21T14:00:00.000Z"


async def test_the_ends_of_a_backfill_are_in_the_trigger_s_zone(client: httpx.AsyncClient) -> None:
    await client.put(f"{PATH}/t", json={**ONE, "cron": "0 9 * * *", "timezone": "Asia/Tokyo"})
    asked = {"from": "2026-09-20T09:00:00", "to": "2026-09-21T09:00:00", "dry_run": True}
    body = (await client.post(f"{PATH}/t/backfill", json=asked)).json()
    assert body["first"] == ["2026-09-20T00:00:00.000Z"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"from": "yesterday"}, "from"),
        ({"to": "2026-02-30T00:00:00Z"}, "to"),
        ({"from": "2026-10-01T00:00:00Z"}, "from"),
        ({"to": "2026-09-19T00:00:00Z"}, "to"),
        ({"overlap_policy": "skip"}, "overlap_policy"),
        ({"form": "x"}, "form"),
    ],
)
async def test_a_bad_backfill_is_refused(client: httpx.AsyncClient, change: Any, path: str) -> None:
    asked = {"from": "2026-09-20T00:00:00Z", "to": "2026-09-21T00:00:00Z", **change}
    assert faults_of(await client.post(f"{PATH}/t/backfill", json=asked)) == [path]


async def test_a_moment_that_is_none_is_told_how_to_be_written(client: httpx.AsyncClient) -> None:
    refused = await client.post(f"{PATH}/t/backfill", json={"from": "2026-09-20", "to": "2026-09-21"})
    assert all("such as '2026-03-29T02:30:00Z'" in one["message"] for one in refused.json()["errors"])


async def test_a_backfill_is_bounded(make_shard: ShardFactory) -> None:
    asked = {"from": "2026-09-20T00:00:00Z", "to": "2026-09-20T12:00:00Z"}
    async with client_of(make_shard(max_backfill=11)) as client:
        await client.put(f"{PATH}/t", json=ONE)
        assert faults_of(await client.post(f"{PATH}/t/backfill", json=asked)) == ["to"]
        counted = (await client.post(f"{PATH}/t/backfill", json={**asked, "dry_run": True})).json()
        assert (counted["count"], counted["at_most"]) == (12, 11)
        asked["to"] = "2026-09-20T11:00:00Z"
        assert (await client.post(f"{PATH}/t/backfill", json=asked)).status_code == 202


async def test_a_backfill_of_every_second_of_years_is_counted_at_once(client: httpx.AsyncClient) -> None:
    await client.put(f"{PATH}/t", json={**ONE, "cron": "* * * * * *"})
    asked = {"from": "1971-01-01T00:00:00Z", "to": "2026-01-01T00:00:00Z", "dry_run": True}
    body = (await client.post(f"{PATH}/t/backfill", json=asked)).json()
    assert body["count"] == 20_089 * 86_400


async def test_a_backfill_with_a_key_is_made_once(client: httpx.AsyncClient, shard: Shard) -> None:
    asked = {"from": "2026-09-21T10:00:00Z", "to": "2026-09-21T13:00:00Z", "overlap_policy": "allow"}
    key = {"Idempotency-Key": "b"}
    first, second = [
        (await client.post(f"{PATH}/t/backfill", json=asked, headers=key)).json() for _ in range(2)
    ]
    assert (first["execution_ids"], second["repeated"]) == (second["execution_ids"], True)
    assert len(await claim_all(shard)) == 3
    run = await client.post(f"{PATH}/t/run", headers=key)
    assert run.status_code == 422


async def test_next_runs_are_shown_in_the_trigger_s_zone(client: httpx.AsyncClient) -> None:
    await client.put(f"{PATH}/t", json={**ONE, "cron": "30 2 * * *", "timezone": "Europe/Berlin"})
    body = (await client.get(f"{PATH}/t/next-runs?count=2&after=2026-10-24T12:00:00Z")).json()
    assert body["runs"] == [
        {
            "scheduled_at": "2026-10-25T00:30:00.000Z",
            "local": "2026-10-25T02:30:00+02:00",
            "assigned_at": "2026-10-25T00:30:00.000Z",
        },
        {
            "scheduled_at": "2026-10-26T01:30:00.000Z",
            "local": "2026-10-26T02:30:00+01:00",
            "assigned_at": "2026-10-26T01:30:00.000Z",
        },
    ]
    usual = (await client.get(f"{PATH}/t/next-runs")).json()
    assert (len(usual["runs"]), usual["timezone"], usual["error"]) == (5, "Europe/Berlin", None)
    assert (await client.get(f"{PATH}/t/next-runs?count=0")).status_code == 400


async def test_what_is_held_says_so_and_shows_its_schedule(client: httpx.AsyncClient, shard: Shard) -> None:
    await client.post(f"{PATH}/t/pause", json={"note": "wait"})
    await holds.pause_workspace(shard, "acme", "all of it")
    body = (await client.get(f"{PATH}/t/next-runs")).json()
    assert (body["state"], body["pause"]["note"]) == ("paused", "wait")
    assert body["workspace_pause"] == {"since": rfc3339(START), "note": "all of it"}
    assert body["runs"][0]["scheduled_at"] == "2026-09-21T15:00:00.000Z"


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"cron": "0 * * * *", "max_runs": 2}, 2),
        ({"cron": "0 * * * *", "ends_at": "2026-09-21T17:00:00Z"}, 3),
        ({"at": "2026-09-22T00:00:00Z"}, 1),
        ({"interval": 90}, 5),
    ],
)
async def test_next_runs_end_where_the_schedule_does(
    client: httpx.AsyncClient, fields: dict[str, Any], count: int
) -> None:
    await client.put(f"{PATH}/t", json={"url": ONE["url"], "method": "POST", **fields})
    runs = (await client.get(f"{PATH}/t/next-runs")).json()["runs"]
    assert len(runs) == count
    shown = (await client.get(f"{PATH}/t")).json()["trigger"]
    assert runs[0]["scheduled_at"] == shown["next_run_at"]


@pytest.mark.parametrize(
    ("fields", "count"),
    [
        ({"cron": "* * * * *", "starts_at": "9999-12-31T23:59:00Z"}, 0),
        ({"interval": "366d", "starts_at": "9999-12-31T23:59:00Z"}, 1),
        ({"at": "9999-12-31T23:59:59Z"}, 1),
    ],
)
async def test_a_schedule_at_the_end_of_the_calendar_is_shown_as_any(
    client: httpx.AsyncClient, fields: dict[str, Any], count: int
) -> None:
    """In its zone it is the year 10000, which no clock shows."""
    trigger = {"url": ONE["url"], "method": "POST", "timezone": "Pacific/Kiritimati", **fields}
    await ok(client.put(f"{PATH}/t", json=trigger))
    assert len((await ok(client.get(f"{PATH}/t/next-runs")))["runs"]) == count
    for path in ("", "/explain"):
        await ok(client.get(f"{PATH}/t{path}"))


async def test_a_schedule_that_can_t_be_computed_says_why(shard: Shard) -> None:
    await triggers.replace(shard, "acme", [("t", define("0 * * * *"))])
    broken = define("0 * * * *", timezone="Mars/Olympus")
    await shard.redis.hset(shard.keys.of("acme", "definitions"), "t", pack_definition(broken))  # type: ignore[misc]
    async with client_of(shard) as client:
        body = (await client.get(f"{PATH}/t/next-runs")).json()
        assert body["runs"] == []
        assert "Mars/Olympus" in body["error"]
        asked = {"from": "2026-09-20T00:00:00Z", "to": "2026-09-21T00:00:00Z"}
        assert faults_of(await client.post(f"{PATH}/t/backfill", json=asked)) == [""]


async def test_with_jitter_the_assigned_time_is_when_it_may_start(
    client: httpx.AsyncClient, shard: Shard, clock: Clock
) -> None:
    """The formula stands in Python and in Lua: the script's own ready time is the assigned one."""
    await client.put(f"{PATH}/t", json={**ONE, "cron": "* * * * *", "jitter_seconds": 600})
    runs = (await client.get(f"{PATH}/t/next-runs?count=8")).json()["runs"]
    assert len({run["assigned_at"] for run in runs}) == 8
    for run in runs:
        clock.now += 60_000
        await ticking.refill_some(shard, (await ticking.fire_due(shard)).dry)
        (id_,) = [one for one in await open_ids(shard, "acme") if one.endswith(slot_of(run))]
        ready = await shard.redis.zscore(shard.keys.queue, shard.keys.job_id(id_))
        assert ready is not None
        assert rfc3339(int(ready)) == run["assigned_at"]


def slot_of(run: dict[str, str]) -> str:
    minute = int(run["scheduled_at"][14:16])
    return f":{START - START % 60_000 + (minute - 13) * 60_000}"


def test_an_assigned_time_lies_within_the_jitter() -> None:
    slots = range(START, START + 1000 * HOUR, HOUR)
    late = [assigned_time(execution_id("w", "t", slot), slot, 5000) - slot for slot in slots]
    assert (min(late) < 100, max(late) > 4900) == (True, True)
    assert all(0 <= one <= 5000 for one in late)
    assert assigned_time("w:t:1", 1, 0) == 1
