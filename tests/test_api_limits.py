"""Rate limits of the API: per caller, per workspace, by Redis's clock, and none while Redis is away."""

from __future__ import annotations

import pytest
from calls import ACME, client_of, ok, refused
from conftest import Clock, ShardFactory
from examples import ADMIN_KEY

from app.store import Shard, rate_limits
from app.store.rate_limits import Limit
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

PATH = f"{ACME}/triggers"


async def keys_of(shard: Shard, *names: str) -> list[dict[str, str]]:
    """Headers with new keys."""
    async with client_of(shard) as client:
        headers = []
        for name in names:
            body = {"name": name, "scope": "read", "workspaces": ["*"]}
            admin = {"authorization": f"Bearer {ADMIN_KEY}"}
            made = await ok(client.post("/api/keys", json=body, headers=admin), 201)
            headers.append({"authorization": f"Bearer {made['key']}"})
        return headers


async def test_a_key_that_calls_too_often_is_told_when_to_come_back(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, rate_limit_key=6)
    one, other = await keys_of(shard, "one", "other")
    async with client_of(shard) as client:
        for left in range(5, -1, -1):
            response = await client.get(PATH, headers=one)
            assert response.status_code == 200
            assert response.headers["ratelimit-policy"] == '"key";q=6;w=60'
            assert response.headers["ratelimit"] == f'"key";r={left};t={60 - 10 * left}'
        await refused(client.get(PATH, headers=one), 429, "too_many_requests")
        refusal = await client.get(PATH, headers=one)
        assert refusal.headers["retry-after"] == "10"
        assert refusal.headers["ratelimit"] == '"key";r=0;t=60'
        assert (await client.get(PATH, headers=other)).status_code == 200
        assert (await client.get("/health", headers=one)).status_code == 200
        clock.advance(9.999)
        assert (await client.get(PATH, headers=one)).status_code == 429
        clock.advance(0.001)
        assert (await client.get(PATH, headers=one)).status_code == 200
        assert (await client.get(PATH, headers=one)).status_code == 429


async def test_a_workspace_has_a_limit_for_all_callers_together(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, rate_limit_key=100, rate_limit_workspace=2)
    one, other = await keys_of(shard, "one", "other")
    async with client_of(shard) as client:
        for headers in (one, other):
            await ok(client.get(PATH, headers=headers))
        problem = await refused(client.get(PATH, headers=other), 429, "too_many_requests")
        assert "'acme'" in problem["detail"]
        assert (await client.get("/api/workspaces/beta/triggers", headers=other)).status_code == 200
        response = await client.get("/api/stats", headers=other)
        assert response.headers["ratelimit"] == '"key";r=97;t=2'  # what was refused took no place


async def test_without_authentication_the_address_counts(make_shard: ShardFactory) -> None:
    shard = make_shard(rate_limit_key=1, trusted_proxies="127.0.0.1")
    async with client_of(shard) as client:
        for address, status in (("203.0.113.1", 200), ("203.0.113.2", 200), ("203.0.113.1", 429)):
            response = await client.get(PATH, headers={"x-forwarded-for": address})
            assert response.status_code == status


async def test_a_foreign_workspace_is_not_used_up_by_who_may_not_know_of_it(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, rate_limit_workspace=1)
    async with client_of(shard) as client:
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        body = {"name": "x", "scope": "read", "workspaces": ["beta"]}
        key = (await ok(client.post("/api/keys", json=body, headers=admin), 201))["key"]
        await refused(client.get(PATH, headers={"authorization": f"Bearer {key}"}), 404, "not_found")
        await ok(client.get(PATH, headers=admin))


async def test_while_redis_is_away_nothing_is_limited(shard_at: ShardFactory, own_redis: RedisServer) -> None:
    shard = shard_at(own_redis.url(), real_time=True, rate_limit_key=1)
    async with client_of(shard) as client:
        path = "/api/cron/presets"
        await ok(client.get(path))
        await refused(client.get(path), 429, "too_many_requests")
        own_redis.process.kill()
        for _ in range(3):
            await ok(client.get(path))


async def test_limits_leave_nothing_behind_and_a_clock_that_goes_back_locks_nobody_out(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard()
    limit = Limit("key", "k", 10)
    (first,) = await rate_limits.take(shard, [limit])
    assert (first.passed, first.left, first.full_after, first.next_after) == (True, 9, 6000, 0)
    (key,) = await shard.redis.keys("*limit*")
    assert 0 < await shard.redis.pttl(key) <= 6000
    clock.advance(-86_400)
    (back,) = await rate_limits.take(shard, [limit])
    assert back.next_after <= 6000


@pytest.mark.parametrize("quota", [1, 7, 600, 100_000])
async def test_never_more_than_the_quota_in_a_moment_nor_than_twice_it_in_a_window(
    shard: Shard, clock: Clock, quota: int
) -> None:
    limit = Limit("key", "k", quota)
    if quota > 1000:
        assert (await rate_limits.take(shard, [limit]))[0].left == quota - 1
        return
    passed = 0
    for _ in range(3 * quota):
        passed += (await rate_limits.take(shard, [limit]))[0].passed
    assert passed == quota
    clock.advance(60)
    for _ in range(3 * quota):
        passed += (await rate_limits.take(shard, [limit]))[0].passed
    assert passed == 2 * quota
