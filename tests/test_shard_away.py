"""Shards on several Redis servers: what is done and told while one is away, held, full or unserved."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from typing import Any

import httpx
import pytest
from calls import ok, refused
from conftest import eventually
from product import settings_of

from app.keys import shard_number
from app.main import create_app
from app.store import Shard, Shards, connect, witness, workers
from lab.processes import redis_binary
from lab.redis_servers import RedisServer
from workers.account import Account
from workers.places import Places
from workers.probes import make_app

pytestmark = pytest.mark.anyio

NAMES = [f"ws-{number}" for number in range(12)]


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
