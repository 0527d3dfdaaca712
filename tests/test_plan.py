"""The plan before a replace: what it says, that it stores nothing, that it is soon there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import uvicorn
from calls import client_of
from conftest import START, Clock, ShardFactory, eventually
from helpers import cpu_seconds, define

from app.clock import rfc3339
from app.main import create_app
from app.models import Definition, Pause, Standing, Trigger
from app.plan import DETAILED, HORIZON_MS, LONGEST_VALUE, field_changes, plan_replace
from app.schedule import schedule_of
from app.store import Shard, Shards, holds

pytestmark = pytest.mark.anyio

PATH = "/api/workspaces/acme/triggers"
PLAN = f"{PATH}?dry_run=true"
ONE = {"cron": "0 * * * *", "url": "https://example.com/x", "method": "POST"}
HOUR = 3_600_000


def stored(id_: str, definition: Definition, **fields: Any) -> Trigger:
    standing = Standing.ACTIVE if definition.enabled else Standing.DISABLED
    return Trigger(
        id=id_, definition=definition, position=0, version=1, standing=standing, next_slot=None, **fields
    )


def runs_of(old: Trigger | None, new: Definition | None, paused: bool = False) -> tuple[int, int]:
    """Runs added and lost when one trigger is changed."""
    wanted = [] if new is None else [("t", new)]
    plan = plan_replace("acme", [] if old is None else [old], wanted, START, paused)
    return plan.added, plan.lost


async def contents(shard: Shard) -> dict[bytes, bytes]:
    """Every key of the database with its value."""
    keys = await shard.redis.keys("*")
    return {key: await shard.redis.dump(key) for key in sorted(keys)}


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        yield client


async def test_a_plan_tells_what_a_replace_would_do(client: httpx.AsyncClient) -> None:
    old = [{**ONE, "id": id_} for id_ in ("same", "moved", "gone")]
    await client.post(PATH, json={"triggers": old})
    new = [
        {**ONE, "id": "same"},
        {**ONE, "id": "moved", "cron": "0 */2 * * *", "headers": {"X-Api-Key": "s3cret"}, "tags": ["eu"]},
        {**ONE, "id": "new", "cron": "30 12 * * *"},
    ]
    planned = await client.post(PLAN, json={"triggers": new})
    assert (planned.status_code, planned.headers["etag"]) == (200, '"1"')
    body = planned.json()
    assert {name: body[name] for name in ("success", "dry_run", "revision", "removed", "added")} == {
        "success": True,
        "dry_run": True,
        "revision": 1,
        "removed": 3,
        "added": 3,
    }
    assert body["changes"] == {"created": 1, "updated": 1, "unchanged": 1, "deleted": 1}
    assert body["needs_confirmation"] is False
    assert body["runs"] == {
        "after": rfc3339(START),
        "until": rfc3339(START + HORIZON_MS),
        "added": 1,
        "lost": 36,
    }
    gone, moved, made = body["triggers"]
    assert [(one["id"], one["change"]) for one in (gone, moved, made)] == [
        ("gone", "deleted"),
        ("moved", "updated"),
        ("new", "created"),
    ]
    assert (gone["runs_added"], gone["runs_lost"], len(gone["first_lost"])) == (0, 24, 5)
    assert (moved["runs_added"], moved["runs_lost"]) == (0, 12)
    assert moved["first_lost"][:2] == ["2026-09-21T15:00:00.000Z", "2026-09-21T17:00:00.000Z"]
    assert moved["fields"] == [
        {"field": "tags", "old": [], "new": ["eu"], "masked": False},
        {"field": "cron", "old": "0 * * * *", "new": "0 */2 * * *", "masked": False},
        {"field": "headers['X-Api-Key']", "old": None, "new": "********", "masked": True},
    ]
    assert made["first_added"] == ["2026-09-22T12:30:00.000Z"]
    assert made["fields"] == []
    assert "s3cret" not in planned.text


async def test_what_is_planned_is_what_happens(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": f"t{n}"} for n in range(5)]})
    body = {"triggers": [{**ONE, "id": f"t{n}", "name": "x" if n == 3 else None} for n in range(1, 9)]}
    planned = (await client.put(PLAN, json=body)).json()
    done = (await client.put(PATH, json=body)).json()
    assert planned["changes"] == done["changes"]
    assert (planned["removed"], planned["added"]) == (done["removed"], done["added"])


async def test_a_plan_stores_nothing(client: httpx.AsyncClient, shard: Shard) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": f"t{n}"} for n in range(20)]})
    before = await contents(shard)
    body = {"triggers": [{**ONE, "cron": "5 5 * * *", "id": f"t{n}"} for n in range(10, 30)]}
    assert (await client.post(PLAN, json=body)).status_code == 200
    assert (await client.post(PLAN.replace("acme", "other"), json=body)).status_code == 200
    assert await contents(shard) == before


async def test_a_plan_is_refused_where_the_replace_would_be(client: httpx.AsyncClient, clock: Clock) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": "a"}]})
    late = await client.post(PLAN, json={"triggers": []}, headers={"If-Match": '"7"'})
    assert (late.status_code, late.json()["code"]) == (412, "revision_conflict")
    bad = await client.post(PLAN, json={"triggers": [{**ONE, "cron": "x"}]})
    assert bad.status_code == 400
    once = {"at": rfc3339(clock.now - 1000), "url": ONE["url"], "method": "GET"}
    past = await client.post(PLAN, json={"triggers": [once]})
    assert [fault["path"] for fault in past.json()["errors"]] == ["triggers[0].at"]
    misspelt = await client.post(f"{PATH}?dryrun=true", json={"triggers": []})
    assert misspelt.status_code == 400


async def test_a_plan_says_that_a_confirmation_is_needed(make_shard: ShardFactory) -> None:
    async with client_of(make_shard(confirm_delete_share=0.5)) as client:
        await client.post(PATH, json={"triggers": [{**ONE, "id": f"t{n}"} for n in range(4)]})
        half = {"triggers": [{**ONE, "id": f"t{n}"} for n in range(2)]}
        assert (await client.post(PLAN, json=half)).json()["needs_confirmation"] is False
        planned = await client.post(PLAN, json={"triggers": []})
        assert planned.json()["needs_confirmation"] is True
        refused = await client.post(PATH, json={"triggers": []})
        assert (refused.status_code, refused.json()["code"]) == (409, "confirmation_required")
        assert (await client.delete(PATH)).json()["code"] == "confirmation_required"
        assert (await client.delete(f"{PATH}?confirm=true")).json()["removed"] == 4


async def test_a_paused_workspace_has_no_runs_to_plan(client: httpx.AsyncClient, shard: Shard) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": "a"}]})
    await holds.pause_workspace(shard, "acme")
    runs = (await client.post(PLAN, json={"triggers": []})).json()["runs"]
    assert (runs["added"], runs["lost"]) == (0, 0)


async def test_the_details_are_bounded_and_the_totals_are_not(client: httpx.AsyncClient) -> None:
    body = {"triggers": [{**ONE, "id": f"t{n}"} for n in range(DETAILED + 50)]}
    planned = (await client.post(PLAN, json=body)).json()
    assert len(planned["triggers"]) == DETAILED
    assert planned["changes"]["created"] == DETAILED + 50
    assert planned["runs"]["added"] == 24 * (DETAILED + 50)


@pytest.mark.parametrize(
    ("old", "new", "runs"),
    [
        (None, define("0 * * * *"), (24, 0)),
        (stored("t", define("0 * * * *")), None, (0, 24)),
        (stored("t", define("0 * * * *")), define("0 * * * *", name="x"), (0, 0)),
        (stored("t", define("0 * * * *")), define("0,30 * * * *"), (24, 0)),
        (stored("t", define("0 * * * *")), define("0 * * * *", enabled=False), (0, 24)),
        (stored("t", define("0 * * * *", enabled=False)), define("0 * * * *"), (24, 0)),
        (stored("t", define("0 * * * *"), pause=Pause(START, "")), define("30 * * * *"), (0, 0)),
        # the phase of an interval stays, a new one counts from now
        (
            stored("t", define("", interval=3600), anchor=START - 7),
            define("", interval=3600, name="x"),
            (0, 0),
        ),
        (stored("t", define("", interval=3600), anchor=START), define("", interval=1800), (24, 0)),
        (None, define("", interval=3600), (24, 0)),
        # bounds
        (None, define("0 * * * *", max_runs=3), (3, 0)),
        (stored("t", define("0 * * * *", max_runs=5), runs=5), define("0 * * * *", max_runs=7), (2, 0)),
        (stored("t", define("0 * * * *", max_runs=5), runs=2), None, (0, 3)),
        (None, define("0 * * * *", ends_at=START + 3 * HOUR), (3, 0)),
        (None, define("0 * * * *", starts_at=START + 21 * HOUR), (3, 0)),
        # one-offs
        (None, define("", at=START + HOUR), (1, 0)),
        (None, define("", at=START + 25 * HOUR), (0, 0)),
        (stored("t", define("", at=START + HOUR)), define("", at=START + 2 * HOUR), (1, 1)),
        (stored("t", define("", at=START - HOUR)), define("", at=START - HOUR, name="x"), (0, 0)),
        (None, define("", at=START - HOUR, catch_up_missed="all"), (1, 0)),
        (None, define("", at=START - HOUR, catch_up_missed="all", enabled=False), (0, 0)),
        (stored("t", define("0 * * * *")), define("", at=START - HOUR, catch_up_missed="all"), (1, 24)),
        # what can't be computed has no runs
        (stored("t", define("not a cron")), define("0 * * * *"), (24, 0)),
    ],
)
def test_runs_that_come_and_go(old: Trigger | None, new: Definition | None, runs: tuple[int, int]) -> None:
    assert runs_of(old, new) == runs
    assert runs_of(old, new, paused=True) == (0, 0)


def test_runs_are_counted_as_the_schedule_has_them() -> None:
    crons = ["*/7 * * * *", "0 */5 * * *", "* * * * * *", "30 2 * * 1-5", "H * * * *", "15 3,9 L * *"]
    for old in crons:
        for new in crons:
            before, after = (define(one, timezone="Europe/Berlin") for one in (old, new))
            slots = [
                set(schedule_of(one, "acme", "t", 0).slots(START, 0, START + HORIZON_MS))
                for one in (before, after)
            ]
            assert runs_of(stored("t", before), after) == (len(slots[1] - slots[0]), len(slots[0] - slots[1]))


def test_fields_are_told_one_by_one_without_credentials() -> None:
    old = define("0 * * * *", headers={"Authorization": "a", "X-A": "1", "X-Gone": "2"}, timeout_seconds=3)
    new = define("", interval=60, headers={"Authorization": "b", "X-A": "9"}, payload=b'{"a":1}')
    told = {one.field: (bytes(one.old), bytes(one.new), one.masked) for one in field_changes(old, new)}
    assert told == {
        "cron": (b'"0 * * * *"', b"null", False),
        "interval": (b"null", b"60", False),
        "headers['Authorization']": (b'"********"', b'"********"', True),
        "headers['X-A']": (b'"1"', b'"9"', False),
        "headers['X-Gone']": (b'"2"', b"null", False),
        "payload": (b"null", b'{"a":1}', False),
        "timeout_seconds": (b"3", b"30.0", False),
    }


def test_headers_in_another_order_are_a_change() -> None:
    old, new = define(headers={"A": "1", "B": "2"}), define(headers={"B": "2", "A": "1"})
    (change,) = field_changes(old, new)
    assert change.field == "headers"


def test_a_long_value_is_shown_by_its_beginning() -> None:
    (change,) = field_changes(define(), define(payload=b'"' + b"x" * 5000 + b'"'))
    assert len(change.new) < LONGEST_VALUE + 20
    assert bytes(change.new).endswith('…"'.encode())


def expressions(hours: str) -> list[str]:
    return [f"{n % 60} {n // 60 % 24} {1 + n // 1440 % 28} * {hours}" for n in range(10_000)]


async def test_a_plan_of_ten_thousand_different_schedules_all_changed_is_soon_there(shard: Shard) -> None:
    """Over HTTP, parsing and the client included: well under a second on two cores."""
    config = uvicorn.Config(create_app(shard.settings, Shards([shard])), port=0, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        address = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        async with httpx.AsyncClient(base_url=address, timeout=60) as client:
            for hours, path in (("0-4", PATH), ("1-5", PLAN)):
                triggers = [{**ONE, "id": f"t{n}", "cron": one} for n, one in enumerate(expressions(hours))]
                began = await cpu_seconds(shard)
                answer = await client.post(path, json={"triggers": triggers})
                used = await cpu_seconds(shard) - began
    finally:
        server.should_exit = True
        await serving
    assert answer.json()["changes"]["updated"] == 10_000
    assert len(answer.content) < 500_000
    assert used < 5  # measured: 1.1
