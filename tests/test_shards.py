"""Shards: workspaces spread over several, and all of the product on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial

import httpx
import pytest
from calls import ok
from conftest import StartProcess, eventually
from helpers import Target, define
from hypothesis import given
from hypothesis import strategies as st
from product import one_trigger, product, settings_of

from app.config import load_settings, parse_numbers
from app.errors import ConfigError, WrongDeployment
from app.keys import DEPLOYMENT, shard_number
from app.main import create_app
from app.store import fleet, open_shards, triggers, witness

pytestmark = pytest.mark.anyio

NAMES = [f"ws-{number}" for number in range(12)]
EVERY_SECOND, RARELY = "* * * * * *", "0 0 1 1 *"


@given(st.text(max_size=20), st.integers(1, 64))
def test_one_more_shard_moves_workspaces_to_it_only(workspace: str, shards: int) -> None:
    before, after = shard_number(workspace, shards), shard_number(workspace, shards + 1)
    assert 0 <= before < shards
    assert after in (before, shards)


def test_workspaces_are_spread_evenly() -> None:
    sizes = Counter(shard_number(f"tenant-{number}", 8) for number in range(8000))
    assert len(sizes) == 8
    assert all(850 < size < 1150 for size in sizes.values())


def test_the_shard_of_a_workspace_never_changes() -> None:
    """Stored data depends on it: these numbers are not to be corrected."""
    assert [shard_number(name, 4) for name in ("acme", "demo", "a", "z", "tenant-1")] == PINNED


PINNED = [1, 0, 1, 3, 3]


@pytest.mark.parametrize(
    ("text", "numbers"), [("", [0, 1, 2, 3]), ("2", [2]), ("0-1,3", [0, 1, 3]), ("3, 1-1", [1, 3])]
)
def test_a_worker_may_serve_some_shards(text: str, numbers: list[int]) -> None:
    assert parse_numbers(text, 4) == numbers


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("4", "no shard 4"),
        ("9", "no shard 9"),
        ("0-9", "no shard 4"),
        ("7-9", "no shard 7"),
        ("3-1", "write 1-3"),
        ("a", "'a'"),
        ("1-", "'1-'"),
    ],
)
def test_shards_that_are_none_are_refused(text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_settings({"CRONSPACE_SHARDS": "4", "CRONSPACE_WORKER_SHARDS": text})


async def test_the_whole_product_runs_on_several_shards(redis_url: str) -> None:
    async with Target().running() as target, product(settings_of(redis_url, 4)) as (client, shards):
        for name in NAMES:
            await ok(
                client.post(f"/api/workspaces/{name}/triggers", json=one_trigger(target, name, EVERY_SECOND))
            )
        assert len({shards.of(name).keys.tag for name in NAMES}) == 4
        await eventually(lambda: {one.path for one in target.received} == {f"/{name}" for name in NAMES})

        listed = (await ok(client.get("/api/workspaces", params={"limit": 5})))["workspaces"]
        cursor = (await ok(client.get("/api/workspaces", params={"limit": 5})))["next_cursor"]
        while cursor:
            page = await ok(client.get("/api/workspaces", params={"limit": 5, "cursor": cursor}))
            listed += page["workspaces"]
            cursor = page["next_cursor"]
        assert [one["id"] for one in listed] == sorted(NAMES)
        stats = await ok(client.get("/api/stats"))
        assert (stats["workspaces"], stats["triggers"]["total"]) == (len(NAMES), len(NAMES))

        async def finished() -> bool:
            page = await ok(client.get("/api/executions", params={"state": "succeeded", "limit": 500}))
            return {one["workspace_id"] for one in page["executions"]} == set(NAMES)

        await eventually(finished)
        for name in NAMES:
            await client.post(f"/api/workspaces/{name}/pause")
        await eventually(lambda: settled(client))
        every = await ok(client.get("/api/executions", params={"limit": 500}))
        ids = [one["id"] for one in every["executions"]]
        paged: list[str] = []
        cursor = None
        while cursor is not None or not paged:
            given = {"limit": 7} | ({"cursor": cursor} if cursor else {})
            page = await ok(client.get("/api/executions", params=given))
            paged += [one["id"] for one in page["executions"]]
            cursor = page["next_cursor"]
        assert paged == ids
        ends = [one["finished_at"] for one in every["executions"]]
        assert ends == sorted(ends, reverse=True)

        audit = await ok(client.get(f"/api/workspaces/{NAMES[0]}/audit"))
        assert audit["count"] == 2
        await ok(client.delete(f"/api/workspaces/{NAMES[0]}", params={"confirm": NAMES[0]}))
        assert (await ok(client.get("/api/audit")))["entries"][0]["workspace_id"] == NAMES[0]
        assert len((await ok(client.get("/api/workspaces")))["workspaces"]) == len(NAMES) - 1


async def test_a_worker_that_serves_some_shards_leaves_the_others_to_others(
    start_process: StartProcess, redis_url: str
) -> None:
    shards = open_shards(settings_of(redis_url, 4))
    await shards.verify()
    served = {name for name in NAMES if shard_number(name, 4) in (0, 2)}

    quiet = asyncio.subprocess.DEVNULL
    start = partial(start_process, "worker", stdout=quiet, stderr=quiet, CRONSPACE_SHARDS="4")

    async with Target().running() as target:

        def reached() -> set[str]:
            return {one.path.removeprefix("/") for one in target.received}

        for name in NAMES:
            definition = define(EVERY_SECOND, url=f"{target.url}/{name}")
            await triggers.replace(shards.of(name), name, [("t", definition)])
        running = [await start(CRONSPACE_WORKER_SHARDS="0,2")]
        await eventually(lambda: reached() == served and len(target.received) > 3 * len(served))
        assert (await fleet.read(shards)).unserved == [1, 3]
        running.append(await start(CRONSPACE_WORKER_SHARDS="1,3"))
        await eventually(lambda: reached() == set(NAMES))

        async def all_served() -> bool:
            return not (await fleet.read(shards)).unserved

        await eventually(all_served)
        for worker in running:
            worker.terminate()
        ended = [await worker.wait() for worker in running]
        assert ended == [0, 0]
        ids = [one.headers["webhook-id"] for one in target.received]
        assert len(ids) == len(set(ids))
    await shards.aclose()


async def settled(client: httpx.AsyncClient) -> bool:
    held = (await ok(client.get("/api/stats")))["executions"]
    return not (held["queued"] or held["running"] or held["retrying"])


async def test_places_bound_the_requests_of_all_shards_together(redis_url: str) -> None:
    settings = settings_of(redis_url, 4, max_jobs=3, max_concurrency=0)
    async with Target().running() as target, product(settings) as (client, _):
        target.hold.clear()
        for name in NAMES:
            await ok(client.post(f"/api/workspaces/{name}/triggers", json=one_trigger(target, name, RARELY)))
            await client.post(f"/api/workspaces/{name}/triggers/t/run")
        await eventually(lambda: len(target.received) == 3)

        async def counted() -> int:
            return int((await ok(client.get("/api/stats")))["executions"]["running"])

        assert await counted() == 3
        target.hold.set()
        await eventually(lambda: len(target.received) == len(NAMES))


async def test_a_process_with_another_number_of_shards_is_refused(
    redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    four, two = open_shards(settings_of(redis_url, 4)), open_shards(settings_of(redis_url, 2))
    try:
        await four.verify()
        with pytest.raises(WrongDeployment, match="CRONSPACE_SHARDS is 2: set it to 4"):
            await two.verify()
        served = httpx.ASGITransport(create_app(two.settings, two), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
            refused = await client.get("/api/workspaces")
            assert refused.status_code == 503
            problem = refused.json()
            assert (problem["code"], "Redis" in problem["title"]) == ("wrong_deployment", False)
            assert "set it to 4" in problem["detail"]
            await client.get("/ready")
            (told,) = [record for record in caplog.records if record.levelname == "WARNING"]
            assert told.getMessage().startswith("What is stored can't be used (What is stored has 4 shards")
    finally:
        await four.aclose()
        await two.aclose()


async def test_a_loss_on_one_redis_is_one_reason_that_names_its_shards(redis_url: str) -> None:
    shards = open_shards(settings_of(redis_url, 8))
    served = httpx.ASGITransport(create_app(shards.settings, shards))
    try:
        await shards.verify()
        for shard in shards:
            await witness.watch(shard)
        await shards.first.redis.flushdb()
        await shards.verify()
        for shard in shards:
            await witness.watch(shard)
        async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
            told = await ok(client.get("/api/system"))
            reasons = (await ok(client.get("/health/detailed"), 503))["reasons"]
            assert len(told["holds"]) == 8
            (reason,) = told["reasons"]
            assert reason.startswith("shards 0-7: Redis was emptied or replaced: nothing is left")
            assert reason.endswith(f" until {max(one['until'] for one in told['losses'])}.")
            assert [one for one in reasons if "firing is held" in one] == [
                f"firing is held: {reason} POST /api/system/resume goes on"
            ]
            await witness.resume(shards[3])
            (reason,) = (await ok(client.get("/api/system")))["reasons"]
            assert reason.startswith("shards 0-2, 4-7: ")
    finally:
        await shards.aclose()


@pytest.mark.parametrize("command", ["api", "worker"])
async def test_a_process_with_another_number_of_shards_does_not_start(
    start_process: StartProcess, redis_url: str, command: str
) -> None:
    four = open_shards(settings_of(redis_url, 4))
    await four.verify()
    await four.aclose()
    process = await start_process(command, stderr=asyncio.subprocess.PIPE, CRONSPACE_AUTH="none", PORT="0")
    _, told = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 1
    assert b"has 4 shards" in told.splitlines()[-1]


async def test_what_was_stored_before_there_were_shards_has_one(redis_url: str) -> None:
    one, four = open_shards(settings_of(redis_url, 1)), open_shards(settings_of(redis_url, 4))
    try:
        await one.first.redis.zadd(one.first.keys.workspaces, {"acme": 0})
        with pytest.raises(WrongDeployment, match="has 1 shard,"):
            await four.verify()
        await one.verify()
    finally:
        await one.aclose()
        await four.aclose()


async def test_a_later_format_is_refused(redis_url: str) -> None:
    shards = open_shards(settings_of(redis_url, 1))
    try:
        await shards.first.redis.hset(DEPLOYMENT, mapping={"shards": 1, "format": 99})
        with pytest.raises(WrongDeployment, match="format 99"):
            await shards.verify()
    finally:
        await shards.aclose()
