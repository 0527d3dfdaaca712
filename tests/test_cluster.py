"""The whole product on a real Redis Cluster, through failovers."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest
from calls import ok
from conftest import eventually
from documents import ROOT
from helpers import OK, Target
from product import one_trigger, product, settings_of
from redis_cluster import RedisCluster

from app.telemetry.metrics import OF_FLEET

pytestmark = pytest.mark.anyio

NAMES = [f"ws-{number}" for number in range(12)]
LETTERS = "/api/workspaces/letters"
DASHBOARD = ROOT / "deploy/monitoring/dashboard.json"
EVERY_SECOND, RARELY = "* * * * * *", "0 0 1 1 *"


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
            figures = (await client.get("/metrics")).text
            asked = set(re.findall(r"\bcronspace_[a-z_]+", DASHBOARD.read_text()))
            asked &= {one.name for one in OF_FLEET}
            assert len(asked) > 10
            assert [name for name in asked if not re.search(rf"^{name}[ {{]", figures, re.M)] == []
            assert "\ncronspace_shards_unread 0.0\n" in figures


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
