"""Lists of executions, of one workspace and of all, and their statistics."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from calls import ACME, client_of, fire, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory
from helpers import claim_all, cpu_seconds, define, failed

from app.api import all_executions
from app.clock import from_ms, rfc3339
from app.models import Execution, State
from app.store import Shard, executions, queue

pytestmark = pytest.mark.anyio


async def pages(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """A whole list, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        page = await ok(client.get(f"{url}{cursor}"))
        found += page["executions"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={page['next_cursor']}"


async def busy_hour(make_shard: ShardFactory, clock: Clock, workspaces: int = 1) -> Shard:
    """Workspaces with executions in every state."""
    shard = make_shard(keep_succeeded=1000, max_concurrency=3)
    for index in range(workspaces):
        name = "acme" if index == 0 else f"w{index}"
        await store_set(
            shard,
            name,
            a=define(tags=("eu", "reports")),
            b=define(tags=("us",)),
            gone=define(tags=("eu",)),
            late=define(catch_up_missed="all"),
        )
    await minutes(shard, clock, 4)
    await minutes(shard, clock, 3, "failed")
    for index in range(workspaces):
        name = "acme" if index == 0 else f"w{index}"
        kept = {
            "a": define(tags=("eu", "reports")),
            "b": define(tags=("us",)),
            "late": define(catch_up_missed="all"),
        }
        await store_set(shard, name, **kept)
    clock.advance(60)
    await fire(shard)
    retried = await claim_all(shard)
    await queue.finish(shard, [failed(one, clock.now, "retry", 900_000) for one in retried[:2]])
    clock.advance(300)
    await fire(shard)
    await claim_all(shard, number=2, at_most=2)
    return shard


def place_of(shown: dict[str, Any]) -> tuple[str, str]:
    """What a list of finished executions goes by."""
    return shown["finished_at"], shown["id"]


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_a_list_shows_each_execution_once_newest_first(
    make_shard: ShardFactory, clock: Clock, limit: int
) -> None:
    shard = await busy_hour(make_shard, clock)
    every = await executions.list_newest(shard, "acme", limit=500)
    async with client_of(shard) as client:
        found = await pages(client, f"{ACME}/executions?limit={limit}")
        assert [one["id"] for one in found] == [one.id for one in every.executions]
        assert len({one["id"] for one in found}) == len(found) > 40
        ended = [one for one in found if one["finished_at"]]
        assert ended == sorted(ended, key=place_of, reverse=True)
        assert {one["state"] for one in found} >= {
            "queued", "running", "retrying", "succeeded", "failed", "missed",
        }  # fmt: skip


FILTERS: list[tuple[str, Callable[[Execution], bool]]] = [
    ("state=failed", lambda one: one.state == State.FAILED),
    ("state=failed,missed,running", lambda one: one.state in ("failed", "missed", "running")),
    ("trigger=a", lambda one: one.trigger == "a"),
    ("trigger=gone&state=failed", lambda one: one.trigger == "gone" and one.state == "failed"),
    ("tag=reports", lambda one: one.trigger == "a"),
    (
        "tag=eu&state=succeeded,queued",
        lambda one: one.trigger == "a" and one.state in ("succeeded", "queued"),
    ),
    ("tag=nothing", lambda one: False),
    (
        f"state=failed,succeeded&from={rfc3339(START + 180_000)}&to={rfc3339(START + 360_000)}",
        lambda one: (
            one.finished is not None
            and one.state in ("failed", "succeeded")
            and START + 180_000 <= one.finished < START + 360_000
        ),
    ),
    (f"state=failed&from={rfc3339(START)}&to={rfc3339(START)}", lambda one: False),
]


@pytest.mark.parametrize(("query", "wanted"), FILTERS, ids=[query[:40] for query, _ in FILTERS])
async def test_filters_give_what_looking_at_each_gives(
    make_shard: ShardFactory, clock: Clock, query: str, wanted: Callable[[Execution], bool]
) -> None:
    shard = await busy_hour(make_shard, clock)
    every = await executions.list_newest(shard, "acme", limit=500)
    async with client_of(shard) as client:
        found = await pages(client, f"{ACME}/executions?limit=3&{query}")
    assert [one["id"] for one in found] == [one.id for one in every.executions if wanted(one)]


@pytest.mark.parametrize(
    "query", ["state=failde", "state=", "limit=0", "cursor=abc", "from=yesterday", "tags=x"]
)
@pytest.mark.parametrize("path", [f"{ACME}/executions", "/api/executions"])
async def test_bad_queries_are_refused(shard: Shard, path: str, query: str) -> None:
    async with client_of(shard) as client:
        problem = await refused(client.get(f"{path}?{query}"), 400, "invalid_request")
        assert problem["errors"][0]["path"].partition("[")[0] in query


async def test_a_rare_match_is_found_although_a_page_looks_at_a_bounded_number(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = await busy_hour(make_shard, clock)
    every = await executions.list_newest(shard, "acme", state=State.SUCCEEDED, limit=500)
    monkeypatch.setattr(executions, "_LOOKED_AT", 4)
    async with client_of(shard) as client:
        found = await pages(client, f"{ACME}/executions?limit=500&state=succeeded&trigger=b")
    assert [one["id"] for one in found] == [one.id for one in every.executions if one.trigger == "b"]
    assert len(found) < len(every.executions) > 10


async def test_a_triggers_executions_are_those_of_the_list(make_shard: ShardFactory, clock: Clock) -> None:
    shard = await busy_hour(make_shard, clock)
    async with client_of(shard) as client:
        own = await pages(client, f"{ACME}/triggers/a/executions?limit=4&state=failed,queued")
        assert own == await pages(client, f"{ACME}/executions?limit=4&state=failed,queued&trigger=a")
        assert own
        await refused(client.get(f"{ACME}/triggers/gone/executions"), 404, "not_found")


@pytest.mark.parametrize("limit", [1, 10, 500])
async def test_the_list_over_all_workspaces_is_their_lists_merged(
    make_shard: ShardFactory, clock: Clock, limit: int
) -> None:
    shard = await busy_hour(make_shard, clock, 5)
    since, until = START + 180_000, START + 430_000
    query = f"limit={limit}&state=failed,succeeded&from={rfc3339(since)}&to={rfc3339(until)}"
    async with client_of(shard) as client:
        found = await pages(client, f"/api/executions?{query}")
        of_each: list[dict[str, Any]] = []
        for name in ("acme", "w1", "w2", "w3", "w4"):
            of_each += await pages(client, f"/api/workspaces/{name}/executions?{query}")
        assert found == sorted(of_each, key=place_of, reverse=True)
        assert len(found) > 50
        two = await pages(client, f"/api/executions?{query}&workspace=w3,w1")
        assert two == [one for one in found if one["workspace_id"] in ("w1", "w3")]


async def test_failures_over_a_thousand_workspaces_are_found_fast(shard: Shard, clock: Clock) -> None:
    for index in range(1000):
        await shard.redis.zadd(shard.keys.workspaces, {f"w{index:04}": 0})
    for name in ("w0003", "w0500", "w0999"):
        await store_set(shard, name, a="* * * * *")
    await minutes(shard, clock, 5, "failed")
    commands = (await shard.redis.info("stats"))["total_commands_processed"]
    async with client_of(shard) as client:
        began = await cpu_seconds(shard)
        found = await ok(client.get("/api/executions?state=failed&limit=9"))
        used = await cpu_seconds(shard) - began
        assert len(found["executions"]) == 9
        await ok(client.get("/api/executions"))
    assert used < 1  # measured: 0.06
    commands = (await shard.redis.info("stats"))["total_commands_processed"] - commands
    assert commands < 1000 + 10 * 1000 + 200


async def test_a_list_over_more_workspaces_than_a_call_looks_at_says_to_name_some(
    shard: Shard, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("one", "two", "three"):
        await store_set(shard, name, a="* * * * *")
    await minutes(shard, clock, 1)
    monkeypatch.setattr(all_executions, "_LOOKED_AT", 2)
    async with client_of(shard) as client:
        problem = await refused(client.get("/api/executions"), 400, "invalid_request")
        assert "These are 3 workspaces, and one call looks at 2 at most" in problem["detail"]
        found = await ok(client.get("/api/executions?workspace=one,two"))
    assert {one["workspace_id"] for one in found["executions"]} == {"one", "two"}


async def test_statistics_of_days_are_what_counting_one_by_one_gives(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = await busy_hour(make_shard, clock)
    day = f"{from_ms(START):%Y-%m-%d}"
    every = (await executions.list_newest(shard, "acme", limit=500)).executions
    async with client_of(shard) as client:
        stats = await ok(client.get(f"{ACME}/executions/stats"))
        assert stats == await ok(client.get(f"{ACME}/executions/stats?from={day}&to={day}"))
        assert (stats["first_day"], stats["last_day"]) == (day, day)
        counted = stats["counted"]
        assert counted["due"] == len(every)
        assert counted["open"] == sum(one.finished is None for one in every)
        for state, number in counted["states"].items():
            assert number == sum(one.state == state for one in every), state
        sent = [one for one in every if one.state in ("succeeded", "failed")]
        good = sum(one.state == "succeeded" for one in sent)
        assert counted["success_rate"] == round(good / len(sent), 4)
        late = [one.started - one.slot for one in sent if one.started is not None]
        assert counted["lateness_ms"]["max"] == max(late)
        assert counted["lateness_ms"]["avg"] == round(sum(late) / len(late), 1)
        assert (counted["duration_ms"]["min"], counted["duration_ms"]["max"]) == (5, 5)
        before = await ok(client.get(f"{ACME}/executions/stats?from=2026-01-01&to=2026-01-02"))
        assert before["counted"]["due"] == 0
        assert before["counted"]["success_rate"] is None
        await refused(client.get(f"{ACME}/executions/stats?from=2026-02-30"), 400, "invalid_request")
        await refused(client.get(f"{ACME}/executions/stats?from=tomorrow"), 400, "invalid_request")
