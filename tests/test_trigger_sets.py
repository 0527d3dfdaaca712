"""The calls on a whole set beside the four of the seed: lists, pages, filters; many triggers stay fast."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from calls import client_of
from conftest import Clock, ShardFactory
from helpers import claim_all, cpu_seconds, define, failed, succeeded

from app.store import Shard, holds, queue, ticking, triggers

pytestmark = pytest.mark.anyio

PATH = "/api/workspaces/acme/triggers"
URL = "https://example.com/x"


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        yield client


async def varied(shard: Shard) -> None:
    """A set in which each trigger is something that a list can be asked for."""
    await triggers.replace(
        shard,
        "acme",
        [
            ("late", define("0 20 * * *", url=URL, tags=("eu", "reports"), name="Nightly Report")),
            ("off", define("0 15 * * *", url=URL, enabled=False, tags=("us",))),
            ("held", define("0 16 * * *", url=URL, description="the REPORT of the day")),
            ("soon", define("* * * * *", url="https://api.example.org/report", tags=("us", "eu"))),
            ("other", define("0 17 * * *", url=URL)),
        ],
    )
    await holds.pause_triggers(shard, "acme", ["held"], "wait")


async def ids(client: httpx.AsyncClient, query: str) -> list[str]:
    response = await client.get(f"{PATH}?{query}")
    assert response.status_code == 200, response.text
    body = response.json()
    assert body["count"] == len(body["jobs"])
    return [job["id"] for job in body["jobs"]]


FILTERS = [
    ("", ["late", "off", "held", "soon", "other"]),
    ("tag=us", ["off", "soon"]),
    ("tag=reports,us", ["late", "off", "soon"]),
    ("tag=none", []),
    ("enabled=false", ["off"]),
    ("enabled=true&tag=us", ["soon"]),
    ("paused=true", ["held"]),
    ("paused=false&state=active", ["late", "soon", "other"]),
    ("state=paused", ["held"]),
    ("state=disabled", ["off"]),
    ("q=report", ["late", "held", "soon"]),
    ("q=OTH", ["other"]),
    ("last_state=failed", ["soon"]),
    ("last_state=succeeded", []),
    ("sort=next_run", ["soon", "other", "late"]),
    ("sort=next_run&tag=eu", ["soon", "late"]),
]


@pytest.mark.parametrize(("query", "wanted"), FILTERS)
async def test_filters_whole_and_by_pages(
    client: httpx.AsyncClient, shard: Shard, clock: Clock, query: str, wanted: list[str]
) -> None:
    await varied(shard)
    clock.advance(41)
    await ticking.refill_some(shard, (await ticking.fire_due(shard)).dry)
    (execution,) = await claim_all(shard)
    await queue.finish(shard, [failed(execution, clock.now)])
    assert await ids(client, query) == wanted
    paged: list[str] = []
    cursor = ""
    while True:
        page = (await client.get(f"{PATH}?{query}&limit=2{cursor}")).json()
        paged += [job["id"] for job in page["jobs"]]
        if page["next_cursor"] is None:
            break
        assert page["count"] == 2
        cursor = f"&cursor={page['next_cursor']}"
    assert paged == wanted


async def test_a_page_has_the_last_slots_and_a_whole_set_has_not(
    client: httpx.AsyncClient, shard: Shard, clock: Clock
) -> None:
    await varied(shard)
    clock.advance(41)
    await ticking.fire_due(shard)
    (execution,) = await claim_all(shard)
    await queue.finish(shard, [succeeded(execution, clock.now)])
    page = (await client.get(f"{PATH}?limit=10")).json()
    by_id = {job["id"]: job for job in page["jobs"]}
    assert by_id["soon"]["last"]["state"] == "succeeded"
    assert by_id["late"]["last"] is None
    whole = (await client.get(PATH)).json()
    assert all("last" not in job for job in whole["jobs"])
    assert by_id["held"]["pause"]["note"] == "wait"


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("limit=0", "limit"),
        ("limit=5000", "limit"),
        ("cursor=nonsense!", "cursor"),
        ("state=running", "state"),
        ("sort=name", "sort"),
        ("tags=x", "tags"),
        ("enabled=1", "enabled"),
    ],
)
async def test_a_bad_question_is_refused(client: httpx.AsyncClient, query: str, path: str) -> None:
    response = await client.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert [fault["path"] for fault in response.json()["errors"]] == [path]


async def test_the_answers_carry_the_revision(client: httpx.AsyncClient) -> None:
    body: dict[str, Any] = {"triggers": [{"cron": "0 9 * * *", "url": URL, "method": "GET"}]}
    for call in (client.post(PATH, json=body), client.get(PATH), client.get(f"{PATH}?limit=1")):
        response = await call
        assert (response.headers["etag"], response.json()["revision"]) == ('"1"', 1)
    deleted = await client.delete(PATH, headers={"If-Match": '"1"'})
    assert deleted.headers["etag"] == '"2"'


async def test_schedules_of_each_kind_are_shown_in_the_answer_of_a_replace(client: httpx.AsyncClient) -> None:
    kinds = [{"cron": "0 9 * * *"}, {"interval": "5m"}, {"at": "2026-10-01T00:00:00Z"}]
    body = {"triggers": [{**kind, "url": URL, "method": "GET"} for kind in kinds]}
    jobs = (await client.post(PATH, json=body)).json()["jobs"]
    assert [(job["cron"], job["interval"], job["at"]) for job in jobs] == [
        ("0 9 * * *", None, None),
        (None, 300, None),
        (None, None, "2026-10-01T00:00:00.000Z"),
    ]


async def test_lists_of_a_hundred_thousand_triggers_stay_fast(make_shard: ShardFactory) -> None:
    """Milliseconds for a page, hundreds where it looks for rare ones."""
    shard = make_shard(max_triggers=100_000)
    many = [
        (
            f"t{n:06}",
            define(f"{n % 60} {n // 60 % 24} * * *", tags=("rare",) if n % 25_000 == 7 else ("often",)),
        )
        for n in range(100_000)
    ]
    await triggers.replace(shard, "acme", many)
    async with client_of(shard) as client:
        await client.get(f"{PATH}?limit=1")  # the order is read once, and kept until the set changes

        async def timed(query: str, at_most: float) -> Any:
            began = await cpu_seconds(shard)
            response = await client.get(f"{PATH}?{query}")
            used = await cpu_seconds(shard) - began
            assert response.status_code == 200
            assert used < at_most, query
            return response.json()

        page = await timed("limit=100", 1)
        page = await timed(f"limit=100&cursor={page['next_cursor']}", 1)
        assert [job["id"] for job in page["jobs"]][:1] == ["t000100"]
        page = await timed("limit=100&sort=next_run", 1)
        page = await timed(f"limit=100&sort=next_run&cursor={page['next_cursor']}", 1)
        assert page["count"] == 100
        found, cursor, pages = [], "", 0
        while True:
            page = await timed(f"limit=100&tag=rare{cursor}", 4)
            found += [job["id"] for job in page["jobs"]]
            pages += 1
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert (found, pages) == (["t000007", "t025007", "t050007", "t075007"], 10)
        began = await cpu_seconds(shard)
        assert (await client.patch(f"{PATH}/t050000", json={"name": "x"})).status_code == 200
        assert (await client.get(f"{PATH}/t050000")).json()["trigger"]["name"] == "x"
        assert await cpu_seconds(shard) - began < 1
        await timed("limit=100&q=t0999", 4)
