"""/live, /ready and /health/detailed: what each says, and when it says that something is wrong."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from calls import bearer, client_of, fire, key_for, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory
from examples import ADMIN_KEY
from helpers import heartbeat

from app.health_checks import Facts, examine, verdict
from app.store import Shard, Shards, fleet, readiness, server, workers
from app.store.shard import script_names, script_sha
from app.store.workers import SILENT_MS
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

WELL = Facts(
    takes_writes="",
    role="master",
    warnings=(),
    fullness=0.0,
    holds=(),
    alive=1,
    unserved=(),
    unread={},
    silent=(),
    keyless=(),
    ticker_lag=0,
    queue_wait=0,
    running=0,
    capacity=10,
)


async def detailed(shard: Shard, status: int) -> Any:
    async with client_of(shard) as client:
        return await ok(client.get("/health/detailed"), status)


@pytest.mark.parametrize(
    ("changed", "status", "said"),
    [
        ({}, "ok", []),
        ({"takes_writes": "OOM"}, "down", ["Redis refuses writes: OOM"]),
        ({"role": "slave"}, "down", ["not to the primary"]),
        ({"warnings": ["set noeviction"]}, "degraded", ["set noeviction"]),
        ({"fullness": 0.95}, "degraded", ["uses 95% of its maxmemory"]),
        ({"holds": ["It went back."]}, "down", ["firing is held: It went back. POST /api/system/resume"]),
        ({"alive": 0, "unserved": [0]}, "down", ["no worker is alive"]),
        ({"unserved": [1, 3]}, "down", ["no worker serves shards 1, 3:"]),
        ({"unread": {2: "refused"}}, "down", ["the Redis of shard 2 can't be reached: refused"]),
        ({"unread": {0: "x", 1: "x", 2: "x", 4: "y"}}, "down", ["of shards 0-2 can't", "of shard 4 can't"]),
        ({"silent": [("w1", 40_000)]}, "degraded", ["w1 has been silent for 40 s"]),
        ({"keyless": ["w1"]}, "degraded", ["w1 can't decrypt what it is to send"]),
        ({"ticker_lag": 6_000}, "degraded", ["waiting 6 s to be fired"]),
        ({"ticker_lag": 61_000}, "down", ["waiting 61 s to be fired"]),
        ({"queue_wait": 11_000}, "degraded", ["ready for 11 s"]),
        ({"queue_wait": 11_000, "running": 10}, "degraded", ["start more workers"]),
        ({"warnings": ["a disk"], "alive": 0}, "down", ["no worker", "a disk"]),
    ],
)
def test_what_is_wrong_has_a_reason_and_the_worst_decides(
    changed: dict[str, Any], status: str, said: list[str]
) -> None:
    findings = examine(msgspec.structs.replace(WELL, **changed))
    assert verdict(findings) == status
    assert len(findings) == len(said)
    for finding, part in zip(findings, said, strict=True):
        assert part in finding.reason


async def test_detailed_health_shows_redis_workers_ticker_and_queue(shard: Shard, clock: Clock) -> None:
    await store_set(shard, one="* * * * *", two="* * * * *")
    clock.advance(60)
    await fire(shard)  # ready, and not claimed
    clock.advance(30)
    await heartbeat(shard, running=3)
    found = await detailed(shard, 200)
    assert (found["status"], len(found["reasons"])) == ("degraded", 1)
    assert "ready for" in found["reasons"][0]
    redis = found["redis"]
    assert (redis["role"], redis["eviction_policy"], redis["append_only"]) == ("master", "noeviction", False)
    assert redis["used_memory_bytes"] > 0
    (worker,) = found["workers"]
    assert {name: worker[name] for name in ("name", "state", "version", "running", "capacity")} == {
        "name": "w",
        "state": "alive",
        "version": "1.2.3",
        "running": 3,
        "capacity": 10,
    }
    assert (found["queue"]["depth"], found["queue"]["running"], found["queue"]["capacity"]) == (2, 3, 10)
    assert found["queue"]["oldest_ready"]["workspace_id"] == "acme"
    assert found["ticker"]["lag_seconds"] == 0


async def test_the_oldest_overdue_slot_is_the_tickers_lag(shard: Shard, clock: Clock) -> None:
    await store_set(shard, "acme", late="* * * * *")
    await store_set(shard, "other", later="15 14 * * *")
    await heartbeat(shard)
    clock.advance(46)  # six seconds after the minute
    await heartbeat(shard)
    ticker = (await detailed(shard, 200))["ticker"]
    assert (ticker["overdue_slots"], ticker["lag_seconds"]) == (1, 6)
    assert ticker["oldest_overdue"]["trigger_id"] == "late"
    clock.advance(61)
    await heartbeat(shard)
    found = await detailed(shard, 503)
    assert found["status"] == "down"
    assert found["ticker"]["overdue_slots"] == 2


async def test_a_worker_that_falls_silent_is_told_and_one_that_leaves_is_not(
    shard: Shard, clock: Clock
) -> None:
    for name in ("a", "b", "c"):
        await heartbeat(shard, name)
    await workers.leave(shard, "a")
    clock.now += SILENT_MS + 1
    await heartbeat(shard, "b")
    found = await detailed(shard, 200)
    assert [(one["name"], one["state"]) for one in found["workers"]] == [("b", "alive"), ("c", "silent")]
    assert found["status"] == "degraded"
    clock.advance(3600)
    found = await detailed(shard, 503)
    assert "no worker is alive: nothing is sent" in found["reasons"]
    await heartbeat(shard, "d")  # whoever comes forgets the dead
    assert [one["name"] for one in (await detailed(shard, 200))["workers"]] == ["d"]
    assert await shard.redis.hlen(shard.keys.worker_facts) == 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("came", "missed"),
    [
        ([], ["a", "b"]),  # fewer than before
        (["a"], ["b"]),  # a container that was restarted
        (["x"], ["b"]),  # a pod that was replaced
        (["x", "y"], []),
        (["b", "a", "z"], []),
    ],
)
async def test_a_silent_worker_is_a_finding_until_another_has_come_for_it(
    shard: Shard, clock: Clock, came: list[str], missed: list[str]
) -> None:
    for process in ("a", "b"):
        await beat(shard, process, process, START)
        clock.advance(1)
    await beat(shard, "other", "other", START)
    clock.now += SILENT_MS
    await beat(shard, "other", "other", START)
    for name in came:
        await beat(shard, f"new {name}", name, clock.now)
    found = await detailed(shard, 200)
    assert found["reasons"] == [
        f"worker {name} has been silent for {17 - (name == 'b')} s" for name in missed
    ]
    assert sorted(one["name"] for one in found["workers"] if one["state"] == "silent") == ["a", "b"]


async def beat(shard: Shard, process: str, name: str, started: int) -> None:
    facts = workers.Facts(name=name, version="1", started=started, capacity=10, running=0)
    await workers.note(shard, process, facts)


async def test_the_list_of_workers_is_bounded(shard: Shard, clock: Clock) -> None:
    for number in range(7):
        clock.advance(0.001)
        await shard.run("note_worker", f"w{number}", b"facts", 60_000, 5, 3, 10_000)
    kept = await shard.redis.zrange(shard.keys.workers, 0, -1)
    assert kept == [b"w2", b"w3", b"w4", b"w5", b"w6"]
    assert sorted(await shard.redis.hkeys(shard.keys.worker_facts)) == kept  # type: ignore[misc]


async def test_it_needs_a_key_for_all_workspaces(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY)
    await heartbeat(shard)
    async with client_of(shard) as client:
        await ok(client.get("/health/detailed", headers=bearer(await key_for(client, "read", "*"))))
        for path in ("/live", "/ready", "/health"):
            assert (await ok(client.get(path)))["status"] == "ok"


async def test_without_redis_it_is_down_and_not_ready_but_lives(make_shard: ShardFactory) -> None:
    shard = make_shard(redis_url="unix:///nowhere")
    found = await detailed(shard, 503)
    assert (found["status"], found["redis"]) == ("down", None)
    assert found["reasons"][0].startswith("Redis can't be reached: ")
    async with client_of(shard) as client:
        await refused(client.get("/ready"), 503, "store_unavailable")
        assert (await ok(client.get("/live")))["status"] == "ok"


async def test_ready_means_writable_and_scripts_loaded(
    shard_at: ShardFactory, own_redis: RedisServer
) -> None:
    shard = shard_at(own_redis.url())
    await heartbeat(shard)
    async with client_of(shard) as client:
        await ok(client.get("/ready"))
        shas = [script_sha(name) for name in script_names()]
        assert all(await shard.redis.script_exists(*shas))
        await shard.redis.config_set("maxmemory", 1)
        problem = await refused(client.get("/ready"), 503, "store_unavailable")
        assert "maxmemory" in problem["detail"]
        found = await ok(client.get("/health/detailed"), 503)
        assert "refuses writes" in found["reasons"][0]
        await shard.redis.config_set("maxmemory", 0)
        await shard.redis.config_set("maxmemory-policy", "allkeys-lru")
        found = await ok(client.get("/health/detailed"))
        assert (found["status"], len(found["reasons"])) == ("degraded", 1)
        await shard.redis.replicaof("127.0.0.1", 9)
        await refused(client.get("/ready"), 503, "store_unavailable")
        assert (await ok(client.get("/health/detailed"), 503))["redis"]["role"] == "slave"


async def test_a_script_goes_by_the_name_that_redis_gives_it(shard: Shard) -> None:
    await readiness.check_ready(Shards([shard]))
    await shard.redis.script_flush()
    await readiness.check_ready(Shards([shard]))
    loaded = await shard.redis.script_exists(*(script_sha(name) for name in script_names()))
    assert all(loaded)
    assert len(loaded) > 20


async def test_totals_count_each_end_once_over_all_workspaces(shard: Shard, clock: Clock) -> None:
    await store_set(shard, "acme", one="* * * * *")
    await store_set(shard, "other", one="* * * * *", two="* * * * *")
    await minutes(shard, clock, 2)
    await minutes(shard, clock, 1, what="failed")
    clock.advance(600)
    await fire(shard)
    totals = (await fleet.read(Shards([shard]))).totals
    assert (totals["succeeded"], totals["failed"], totals["missed:deadline"]) == (6, 3, 27)
    assert totals["due"] == 6 + 3 + 27 + 3  # the last ones wait


async def test_facts_of_the_server_are_there_where_config_is_refused(make_shard: ShardFactory) -> None:
    found = await server.look(make_shard())
    assert found.version[0] in "67"
    assert found.eviction == "noeviction"
    assert 0 <= found.unsaved_seconds < 7200


@pytest.mark.parametrize(
    ("told", "warned"),
    [
        ({}, True),
        ({"aof_enabled": 1}, False),
        ({"rdb_changes_since_last_save": 0}, False),
        ({"rdb_last_save_time": 1_790_000_000 - 3700}, False),
        ({"slave0": {"ip": "10.0.0.2", "port": 6379, "state": "online"}}, False),
        ({"server_time_usec": None}, False),
    ],
)
def test_a_redis_that_keeps_everything_in_memory_only_is_warned_of(
    told: dict[str, Any], warned: bool
) -> None:
    info = {
        "redis_version": "7.0.15",
        "aof_enabled": 0,
        "rdb_changes_since_last_save": 12,
        "rdb_last_save_time": 1_790_000_000 - 3 * 3600,
        "server_time_usec": 1_790_000_000_000_000,
    }
    given = {name: value for name, value in {**info, **told}.items() if value is not None}
    warnings = server.server_of(given).warnings()
    assert ["saved nothing for 3 h" in one for one in warnings] == [True] * warned
