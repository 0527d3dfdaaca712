"""Redis that is full, slow, hanging, out of connections, or run with a policy that throws schedules away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from calls import ACME, client_of, ok
from conftest import ShardFactory, eventually
from helpers import Target, define, worker_running
from proxies import Proxy

from app.main import create_app
from app.store import Shards, server, triggers
from app.store.replicas import Replicas
from lab.redis_servers import RedisServer
from workers.worker import Worker

pytestmark = pytest.mark.anyio

PATH = f"{ACME}/triggers"
SET = {"triggers": [{"id": "t", "cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/x", "method": "POST"}]}


@pytest.fixture
def live_at(shard_at: ShardFactory) -> ShardFactory:
    """Shards by their Redis's URL, on its own clock."""
    return partial(shard_at, real_time=True)


@asynccontextmanager
async def running(live_at: ShardFactory, url: str) -> AsyncIterator[tuple[httpx.AsyncClient, Target, Worker]]:
    """An API, and a worker that sends every second to a target."""
    shard = live_at(url)
    async with (
        Target().running() as target,
        worker_running(live_at(url)) as worker,
        client_of(shard) as client,
    ):
        await triggers.replace(shard, "busy", [("t", define("* * * * * *", url=target.url))])
        await eventually(lambda: len(target.received) >= 1)
        yield client, target, worker
        begun = len(target.received)  # whatever it was, it is over
        await eventually(lambda: len(target.received) >= begun + 2)
        assert (await client.put(PATH, json=SET)).status_code == 200


async def refusal(client: httpx.AsyncClient) -> str:
    """The detail of the 503 that a replace is answered with."""
    response = await client.put(PATH, json=SET)
    assert (response.status_code, response.json()["code"]) == (503, "store_unavailable"), response.text
    assert int(response.headers["retry-after"]) >= 1
    return str(response.json()["detail"])


async def test_a_full_redis_refuses_changes_with_the_reason_and_firing_goes_on_when_there_is_room(
    live_at: ShardFactory,
    own_redis: RedisServer,
) -> None:
    async with running(live_at, own_redis.url()) as (client, _, worker):
        with own_redis.client as admin:
            await ok(client.put("/api/workspaces/other/triggers", json=SET))
            admin.config_set("maxmemory", 1)
            assert "full (maxmemory)" in await refusal(client)
            for path in ("", "?limit=1", "/t", "?sort=next_run&limit=1"):
                await ok(client.get(f"/api/workspaces/busy/triggers{path}"))
            assert (await ok(client.get("/api/workspaces/busy/triggers")))["count"] == 1
            await eventually(lambda: worker.ticker.failures >= 2)
            await ok(client.delete("/api/workspaces/other/triggers"))  # which frees memory
            admin.config_set("maxmemory", 0)


async def test_a_slow_redis_slows_everything_and_breaks_nothing(
    live_at: ShardFactory, own_redis: RedisServer
) -> None:
    proxy = Proxy(own_redis.socket)
    async with proxy.running() as url, running(live_at, f"{url}/0") as (client, target, worker):
        proxy.delay = 0.2
        await ok(client.put(PATH, json=SET))
        assert (await ok(client.get(PATH)))["count"] == 1
        before = len(target.received)
        await eventually(lambda: len(target.received) >= before + 4)
        ids = [one.headers["webhook-id"] for one in target.received]
        assert len(ids) == len(set(ids))
        assert worker.ticker.failures == worker.claimer.failures == worker.finisher.failures == 0
        proxy.delay = 0.0


async def test_a_redis_that_hangs_is_answered_for_in_time_however_many_call(
    live_at: ShardFactory, own_redis: RedisServer
) -> None:
    async with running(live_at, own_redis.url()) as (client, _, worker):
        own_redis.process.suspend()
        begun = time.monotonic()
        details = await asyncio.gather(*[refusal(client) for _ in range(10)])
        assert set(details) == {"Redis did not answer in time; try again."}
        assert time.monotonic() - begun < 8
        own_redis.process.resume()
        await eventually(lambda: worker.ticker.failures == worker.claimer.failures == 0)


async def test_without_free_connections_who_has_some_goes_on_and_others_are_told(
    live_at: ShardFactory, own_redis: RedisServer
) -> None:
    async with running(live_at, own_redis.url()) as (_, target, _worker):
        late = live_at(own_redis.url())
        with own_redis.client as admin:
            admin.config_set("maxclients", 1)
            async with client_of(late) as client:
                assert "maxclients" in await refusal(client)
                before = len(target.received)
                await eventually(lambda: len(target.received) >= before + 2)
                admin.config_set("maxclients", 1000)
                await ok(client.put(PATH, json=SET))


async def test_an_eviction_policy_is_warned_of_once_until_it_changes(
    live_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    shard = live_at(own_redis.url())
    replicas = Replicas(shard, look_seconds=0)

    async def told() -> list[str]:
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            await replicas.watch()
        return caplog.messages

    assert await told() == []
    with own_redis.client as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
        (warning,) = await told()
        assert "allkeys-lru" in warning
        assert "CONFIG SET maxmemory-policy noeviction" in warning
        assert await told() == []
        admin.config_set("maxmemory-policy", "noeviction")
        assert await told() == []
        admin.config_set("maxmemory-policy", "volatile-ttl")
        assert len(await told()) == 1


async def test_where_info_is_forbidden_that_is_said_once(
    live_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    own_redis.client.acl_setuser(
        "ours", enabled=True, passwords=["+x"], keys="*", commands=["+@all", "-info"]
    )
    replicas = Replicas(live_at(own_redis.url().replace("unix://", "unix://ours:x@")), look_seconds=0)
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await replicas.watch()
    assert ["+info" in message for message in caplog.messages] == [True]


async def test_api_and_worker_look_at_the_policy_when_they_start(
    live_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    with own_redis.client as admin:
        admin.config_set("maxmemory-policy", "allkeys-lru")
    caplog.set_level(logging.WARNING)
    shard = live_at(own_redis.url())
    app = create_app(shard.settings, Shards([shard]))
    async with app.router.lifespan_context(app):
        await eventually(lambda: "allkeys-lru" in caplog.text)
    caplog.clear()
    async with worker_running(shard):
        await eventually(lambda: "allkeys-lru" in caplog.text)


async def test_what_redis_it_is_is_known_without_config(
    live_at: ShardFactory, own_redis: RedisServer
) -> None:
    with own_redis.client as admin:
        admin.acl_setuser("limited", enabled=True, nopass=True, keys="*", commands=["+@all", "-config"])
        admin.config_set("maxmemory", 100_000_000)
    shard = live_at(own_redis.url().replace("unix://", "unix://limited:x@"))
    found = await server.look(shard)
    assert (found.role, found.eviction, found.max_memory) == ("master", "noeviction", 100_000_000)
    assert (found.replicas, found.append_only, found.persisted) == (0, False, True)
    assert found.version.split(".")[0] in ("6", "7", "8")
    assert found.used_memory > 100_000
    assert len(found.history) == 40


async def test_the_api_tells_once_of_an_outage_however_many_calls_it_refuses(
    live_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where only some calls are refused: it is over when Redis takes everything."""
    caplog.set_level("INFO")

    def told() -> list[str]:
        logs = ("app.outage", "app.api.problems", "app.api.refusals")
        return [record.getMessage()[:23] for record in caplog.records if record.name in logs]

    shard = live_at(own_redis.url())
    app = create_app(shard.settings, Shards([shard]))
    calls = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        httpx.AsyncClient(transport=calls, base_url="http://localhost") as client,
        app.router.lifespan_context(app),
    ):
        assert (await client.put(PATH, json=SET)).status_code == 200
        with own_redis.client as admin:
            admin.config_set("maxmemory", 1)
            for _ in range(5):
                assert (await client.get("/ready")).status_code == 503
                assert (await client.get(PATH)).status_code == 200
            assert told() == ["Redis can't be used (co"]
            admin.config_set("maxmemory", 0)
        await eventually(lambda: len(told()) == 2)
        assert told()[1] == "Redis can be used again"
        await asyncio.to_thread(own_redis.process.kill)
        for _ in range(5):
            assert (await client.get("/ready")).status_code == 503
        await eventually(lambda: len(told()) > 2)
        await asyncio.to_thread(own_redis.start)
        await eventually(lambda: told().count("Redis can be used again") == 2)
    begun = told()[2:-1]
    assert begun
    assert {one[:19] for one in begun} == {"Redis can't be used"}
    assert len(begun) <= 4  # each kind of error once: gone, perhaps loading; not by each call


async def test_a_worker_tells_of_each_outage_when_it_begins_and_when_it_is_over(
    live_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    """Also of the listener, whose round does not end while all is well."""
    caplog.set_level("INFO", "app.outage")

    def told() -> list[str]:
        return [record.getMessage()[:23] for record in caplog.records if record.name == "app.outage"]

    shard = live_at(own_redis.url(), data_loss_tolerance_seconds=3600)
    async with worker_running(shard) as worker:
        await eventually(lambda: worker.health.failures == 0)
        for outages in (1, 2):
            await asyncio.to_thread(own_redis.process.kill)
            await eventually(lambda: worker.ticker.failures and worker.listener.failures)
            await asyncio.to_thread(own_redis.start)
            await eventually(lambda outages=outages: told().count("Redis can be used again") >= outages)
            assert worker.ticker.failures == worker.listener.failures == 0
    begun = [one for one in told() if one.startswith("Redis can't be used")]
    assert 2 <= len(begun) <= 6  # each kind of error once: gone, perhaps loading; not by each of ten loops
    assert told()[0] == begun[0]
    assert told()[-1] == "Redis can be used again"
