"""Managed Redis services refuse CONFIG, and more: all of the product does without."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import redis
from calls import ok
from conftest import LOOPBACK, eventually
from helpers import OK, Target
from msgspec import structs
from product import product

from app.config import Settings
from app.reshard import reshard
from app.store.shard import script_names, script_source
from lab.redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[1]
# What docs/scaling.md says that a user of Redis needs.
ALLOWED = ["+@all", "-@admin", "-@dangerous", "+info", "+restore"]


@pytest.fixture(params=sorted(redis_binaries()))
def binary(request: pytest.FixtureRequest) -> str:
    return redis_binaries()[request.param]


@pytest.fixture(params=["renamed", "forbidden"])
def managed(request: pytest.FixtureRequest, binary: str) -> Iterator[str]:
    """The URL of a Redis without CONFIG: the command is not there, or its user may not call it, nor anything
    else that administers the server.
    """
    options = ("--rename-command", "CONFIG", "") if request.param == "renamed" else ()
    server = RedisServer(binary, *options)
    url = server.url()
    try:
        if request.param == "forbidden":
            server.client.acl_setuser(
                "ours", enabled=True, passwords=["+x"], keys="*", channels="*", commands=ALLOWED
            )
            url = url.replace("unix://", "unix://ours:x@")
        yield url
    finally:
        server.close()


async def test_the_whole_product_runs_where_config_is_refused(managed: str) -> None:
    with redis.Redis.from_url(managed) as client, pytest.raises(redis.ResponseError):
        client.config_get("maxmemory")

    def answer(request: Any, writer: asyncio.StreamWriter) -> None:
        first = request.headers["cronspace-attempt"] == "1" and request.path == "/retried"
        writer.write(b"HTTP/1.1 503 Later\r\ncontent-length: 0\r\n\r\n" if first else OK)

    settings = Settings(redis_url=managed, egress_allow=LOOPBACK, lease_seconds=1)
    acme = "/api/workspaces/acme"
    async with Target(answer).running() as target:

        async def all_of_it(client: httpx.AsyncClient) -> None:
            given = [
                {"id": "often", "cron": "* * * * * *", "method": "POST", "url": f"{target.url}/often"},
                {
                    "id": "again",
                    "cron": "0 0 1 1 *",
                    "method": "POST",
                    "url": f"{target.url}/retried",
                    "retry_delay_seconds": 0.1,
                },
            ]
            await ok(client.post(f"{acme}/triggers", json={"triggers": given}))
            before = len(target.received)
            await eventually(lambda: any(one.path == "/often" for one in target.received[before:]))
            run = await ok(client.post(f"{acme}/triggers/again/run"), 202)

            async def succeeded() -> bool:
                found = (await ok(client.get(f"{acme}/executions/{run['execution_id']}")))["execution"]
                return (found["state"], len(found["attempts"])) == ("succeeded", 2)

            await eventually(succeeded)
            await ok(client.get("/ready"))
            found = await ok(client.get("/health/detailed"))
            assert (found["status"], found["redis"]["eviction_policy"]) == ("ok", "noeviction")
            assert "cronspace_redis_up 1" in (await client.get("/metrics")).text
            await ok(client.post(f"{acme}/triggers", json={"triggers": []}))

        async with product(settings) as (client, _):
            await all_of_it(client)
        await reshard(settings, 3, noticed_seconds=0)
        async with product(structs.replace(settings, shards=3)) as (client, _):
            await all_of_it(client)
            await ok(client.delete(acme, params={"confirm": "acme"}))


async def test_where_info_is_refused_all_works_and_somebody_is_told(
    binary: str, caplog: pytest.LogCaptureFixture
) -> None:
    own = RedisServer(binary)
    try:
        own.client.acl_setuser(
            "ours", enabled=True, passwords=["+x"], keys="*", channels="*", commands=[*ALLOWED, "-info"]
        )
        settings = Settings(redis_url=own.url().replace("unix://", "unix://ours:x@"), egress_allow=LOOPBACK)
        async with Target().running() as target, product(settings) as (client, _):
            trigger = {"id": "often", "cron": "* * * * * *", "method": "POST", "url": target.url}
            await ok(client.post("/api/workspaces/acme/triggers", json={"triggers": [trigger]}))
            await eventually(lambda: target.received)
            found = await ok(client.get("/health/detailed"))
            assert found["status"] == "degraded"
            assert [one for one in found["reasons"] if "+info" in one] == found["reasons"]
            assert found["redis"]["version"] == ""
            text = (await client.get("/metrics")).text
            assert "cronspace_redis_up 1" in text
            assert "cronspace_workers{" in text
        told = [one for one in caplog.records if "+info" in one.getMessage()]
        assert [one.levelname for one in told] == ["WARNING"]
    finally:
        own.close()


def test_nothing_of_ours_calls_config() -> None:
    called = re.compile(r"config_(get|set|rewrite|resetstat)|[\"']CONFIG[\"']")
    sources = [path.read_text() for folder in ("app", "workers") for path in (ROOT / folder).rglob("*.py")]
    sources += map(script_source, script_names())
    assert len(sources) > 150
    assert not any(called.search(source) for source in sources)
