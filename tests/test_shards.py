"""Shards: workspaces spread over several, and all of the product on them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from typing import Any

import httpx
import pytest
from calls import ok, refused
from conftest import LOOPBACK, StartProcess, eventually
from helpers import OK, Target, define
from hypothesis import given
from hypothesis import strategies as st
from product import product
from redis_cluster import RedisCluster

from app.config import Settings, load_settings, parse_numbers
from app.errors import ConfigError, WrongDeployment
from app.keys import DEPLOYMENT, shard_number
from app.main import create_app
from app.store import Shard, Shards, connect, fleet, open_shards, triggers, witness, workers
from lab.processes import redis_binary
from lab.redis_servers import RedisServer
from workers.account import Account
from workers.places import Places
from workers.probes import make_app

pytestmark = pytest.mark.anyio

NAMES = [f"ws-{number}" for number in range(12)]
LETTERS = "/api/workspaces/letters"
EVERY_SECOND, RARELY = "* * * * * *", "0 0 1 1 *"


def settings_of(url: str, shards: int, **given: Any) -> Settings:
    return Settings(redis_url=url, shards=shards, egress_allow=LOOPBACK, **given)


def one_trigger(target: Target, name: str, cron: str) -> dict[str, Any]:
    return {"triggers": [{"id": "t", "cron": cron, "method": "POST", "url": f"{target.url}/{name}"}]}


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
    ("text", "says"), [("4", "no shard 4"), ("a", "'a'"), ("1-", "'1-'"), ("0-9", "no shard 4")]
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


async def test_a_process_with_another_number_of_shards_is_refused(redis_url: str) -> None:
    four, two = open_shards(settings_of(redis_url, 4)), open_shards(settings_of(redis_url, 2))
    try:
        await four.verify()
        with pytest.raises(WrongDeployment, match="CRONSPACE_SHARDS is 2: set it to 4"):
            await two.verify()
        served = httpx.ASGITransport(create_app(two.settings, two), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
            refused = await client.get("/api/workspaces")
            assert refused.status_code == 503
            assert "set it to 4" in refused.json()["detail"]
    finally:
        await four.aclose()
        await two.aclose()


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
        with pytest.raises(WrongDeployment, match="has 1 shards"):
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


@pytest.fixture
def two_servers() -> Iterator[tuple[RedisServer, RedisServer]]:
    """A server for each of two shards, as the nodes of a cluster are."""
    with ExitStack() as undo:
        servers = RedisServer(redis_binary()), RedisServer(redis_binary())
        for server in servers:
            undo.callback(server.close)
        yield servers


def shards_on(servers: Sequence[RedisServer], **given: Any) -> Shards:
    made = []
    for number, server in enumerate(servers):
        settings = settings_of(server.url(), len(servers), **given)
        made.append(Shard(connect(settings), settings, number))
    return Shards(made)


async def test_a_redis_that_is_away_takes_only_its_own_workspaces_along(
    two_servers: tuple[RedisServer, RedisServer],
) -> None:
    shards, some = shards_on(two_servers), shards_on(two_servers, worker_shards="0")
    here, there = (next(name for name in NAMES if shard_number(name, 2) == number) for number in (0, 1))
    account, places = Account(), Places(1)
    transports = [
        httpx.ASGITransport(app, raise_app_exceptions=False)
        for app in (
            create_app(shards.settings, shards),
            make_app([], some, account, places),
            make_app([], shards, account, places),
        )
    ]
    async with AsyncExitStack() as undo:
        api, of_some, of_all = [
            await undo.enter_async_context(httpx.AsyncClient(transport=one, base_url="http://localhost"))
            for one in transports
        ]
        undo.push_async_callback(shards.aclose)
        undo.push_async_callback(some.aclose)
        assert [(await one.get("/ready")).status_code for one in (api, of_some, of_all)] == [200, 200, 200]
        two_servers[1].process.kill()
        assert [(await one.get("/ready")).status_code for one in (api, of_some, of_all)] == [200, 200, 503]
        await ok(api.post(f"/api/workspaces/{here}/triggers", json={"triggers": []}))
        assert (await api.post(f"/api/workspaces/{there}/triggers", json={"triggers": []})).status_code == 503
        assert (await ok(api.get("/health/detailed"), 503))["status"] == "down"


async def test_what_is_known_of_the_other_shards_is_told_while_one_is_away(
    two_servers: tuple[RedisServer, RedisServer],
) -> None:
    shards = shards_on(two_servers)
    for number, shard in enumerate(shards):
        await shard.redis.hset(shard.keys.totals, "due", 100 + number)
        facts = workers.Facts(name=f"w{number}", version="1", started=0, capacity=10, running=number + 1)
        await workers.note(shard, f"w{number}", facts)
    served = httpx.ASGITransport(create_app(shards.settings, shards))
    async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
        whole = (await client.get("/metrics")).text
        two_servers[1].process.kill()

        async def without_it() -> str:
            text = (await client.get("/metrics")).text
            return text if "cronspace_shards_unread 1.0" in text else ""

        part = await eventually(without_it)
        found = await ok(client.get("/health/detailed"), 503)
    await shards.aclose()
    assert "cronspace_due_slots_total 201.0" in whole
    assert "cronspace_in_flight_requests 3.0" in whole
    assert "cronspace_shards_unread 0.0" in whole
    assert "cronspace_in_flight_requests 1.0" in part
    assert "cronspace_redis_up 1.0" in part
    assert "cronspace_due_slots_total 1" not in part  # a counter that goes back would count all of it anew
    assert found["reasons"][0].startswith("the Redis of shard 1 can't be reached: ")
    assert [one["name"] for one in found["workers"]] == ["w0"]
    assert found["queue"]["running"] == 1


async def test_a_shard_that_is_held_can_be_resumed_while_another_is_away(
    two_servers: tuple[RedisServer, RedisServer],
) -> None:
    shards = shards_on(two_servers)
    for shard in shards:
        await witness.watch(shard)
    two_servers[0].client.flushall()
    await witness.watch(shards[0])
    two_servers[1].process.kill()
    served = httpx.ASGITransport(create_app(shards.settings, shards))
    async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
        found = await ok(client.get("/api/system"))
        assert [(one["shard"], one["kind"]) for one in found["holds"]] == [(0, "data_loss")]
        assert [one["shard"] for one in found["unread"]] == [1]
        resumed = await ok(client.post("/api/system/resume"))
        assert (resumed["changed"], resumed["holds"], resumed["firing"]) == (True, [], False)
        two_servers[0].process.kill()
        await refused(client.get("/api/system"), 503, "store_unavailable")
    await shards.aclose()


async def test_health_tells_of_the_fullest_redis_and_of_shards_that_nobody_serves(
    two_servers: tuple[RedisServer, RedisServer],
) -> None:
    shards = shards_on(two_servers)
    with two_servers[1].client as admin:
        admin.config_set("maxmemory", 8_000_000)
        admin.config_set("maxmemory-policy", "allkeys-lru")
    facts = workers.Facts(name="w", version="1", started=0, capacity=10, running=0)
    await workers.note(shards[0], "w", facts)
    served = httpx.ASGITransport(create_app(shards.settings, shards))
    async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
        found = await ok(client.get("/health/detailed"), 503)
        assert found["redis"]["max_memory_bytes"] == 8_000_000
        assert "no worker serves shard 1" in found["reasons"][0]
        assert "allkeys-lru" in found["reasons"][1]
        assert "cronspace_redis_memory_limit_bytes 8e+06" in (await client.get("/metrics")).text
        await workers.note(shards[1], "w", facts)
        found = await ok(client.get("/health/detailed"))
        assert found["status"] == "degraded"
        assert len(found["workers"]) == 1
    await shards.aclose()


@pytest.mark.xdist_group("cluster")
async def test_the_whole_product_runs_on_a_cluster_through_a_failover() -> None:
    gone = True

    def answer(request: Any, writer: asyncio.StreamWriter) -> None:
        first = request.headers["cronspace-attempt"] == "1" and request.path == "/retried"
        if request.path == "/gone" and gone:
            writer.write(b"HTTP/1.1 404 Gone\r\ncontent-length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n" if first else OK)

    with RedisCluster() as cluster:
        settings = settings_of(cluster.url, 6)
        async with Target(answer).running() as target, product(settings) as (client, shards):
            for name in NAMES:
                await ok(
                    client.post(
                        f"/api/workspaces/{name}/triggers", json=one_trigger(target, name, EVERY_SECOND)
                    )
                )
            await ok(
                client.post("/api/workspaces/again/triggers", json=one_trigger(target, "retried", RARELY))
            )
            await ok(client.post(f"{LETTERS}/triggers", json=one_trigger(target, "gone", RARELY)))
            assert len({cluster.owner_of(shard.keys.root) for shard in shards}) == 3

            async def ends_as(state: str, path: str) -> None:
                async def has_ended() -> bool:
                    return bool((await ok(client.get(path)))["execution"]["state"] == state)

                await eventually(has_ended)

            def arrived(since: int) -> set[str]:
                return {one.path for one in target.received[since:]} & {f"/{name}" for name in NAMES}

            await eventually(lambda: len(arrived(0)) == len(NAMES))
            run = await ok(client.post(f"{LETTERS}/triggers/t/run"), 202)
            letter = f"{LETTERS}/executions/{run['execution_id']}"
            await ends_as("failed", letter)
            run = await ok(client.post("/api/workspaces/again/triggers/t/run"), 202)
            path = f"/api/workspaces/again/executions/{run['execution_id']}"
            await ends_as("succeeded", path)
            assert len((await ok(client.get(path)))["execution"]["attempts"]) == 2

            lost = cluster.owner_of(shards.of("letters").keys.root)
            lost.process.kill()
            before = len(target.received)
            await eventually(lambda: len(arrived(before)) == len(NAMES), 30)
            assert cluster.owner_of(shards.of("letters").keys.root) is not lost

            gone = False  # the dead letter outlived its Redis, and is sent again
            again = await ok(client.post(f"{letter}/retry"), 202)
            await ends_as("succeeded", f"{LETTERS}/executions/{again['execution_id']}")
            assert (await ok(client.get(letter)))["execution"]["retried_as"] == again["execution_id"]
            every = (await ok(client.get("/api/executions", params={"limit": 500})))["executions"]
            assert {one["workspace_id"] for one in every} == {*NAMES, "again", "letters"}
            explained = await ok(client.get(f"{LETTERS}/triggers/t/explain"))
            assert explained["findings"][0]["code"] == "next_slot"
            days = (await ok(client.get(f"{LETTERS}/ledger")))["days"]
            assert {one["state"] for day in days for one in day["by_hand"]} == {"failed", "succeeded"}
            for name in NAMES:
                await ok(client.post(f"/api/workspaces/{name}/triggers", json={"triggers": []}))
            stats = await ok(client.get("/api/stats"))
            assert (stats["workspaces"], stats["triggers"]["total"]) == (len(NAMES) + 2, 2)


@pytest.mark.xdist_group("cluster")
async def test_a_shard_that_goes_to_another_node_is_found_though_the_former_one_lives() -> None:
    """As when a cluster is upgraded node by node: no connection breaks, and the former primary says MOVED."""
    with RedisCluster() as cluster:
        settings = settings_of(cluster.url, 1)
        async with Target().running() as target, product(settings) as (client, shards):
            path = "/api/workspaces/moved/triggers"
            await ok(client.post(path, json=one_trigger(target, "before", EVERY_SECOND)))
            await eventually(lambda: target.received)
            for _ in range(2):  # there and back
                cluster.hand_over(shards.first.keys.root)
                before = len(target.received)
                await ok(client.get("/ready"))
                await ok(client.get("/api/workspaces"))
                await eventually(lambda since=before: len(target.received) > since)
            await ok(client.post(path, json=one_trigger(target, "after", EVERY_SECOND)))
            await eventually(lambda: target.received[-1].path == "/after")
            ids = [one.headers["webhook-id"] for one in target.received]
            assert len(ids) == len(set(ids))
