"""API keys: what is stored of them, how long they go, and what is known of their use."""

from __future__ import annotations

import inspect

import pytest
from calls import bearer, client_of, key_for, ok, refused
from conftest import Clock, Monotonic, ShardFactory, eventually
from examples import ADMIN_KEY

from app.api import auth
from app.api.auth import KeyRing
from app.auth import keys
from app.auth.keys import ApiKey, digest_of, new_key, same_secret, split_key
from app.clock import rfc3339
from app.store import Shard, api_keys
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

ADMIN = {"authorization": f"Bearer {ADMIN_KEY}"}
WANTED = {"name": "CI of team a", "scope": "write", "workspaces": ["acme"]}


async def stored(shard: Shard, **fields: int) -> tuple[str, str, str]:
    """A new key that is stored: its id, its secret and its text."""
    id_, text, digest = new_key()
    key = ApiKey(id=id_, name="x", scope="read", workspaces=("*",), digest=digest, **{"created": 1} | fields)
    await api_keys.add(shard, key)
    parts = split_key(text)
    assert parts is not None
    return *parts, text


async def test_a_key_is_shown_once_and_its_secret_is_nowhere_in_redis(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY)
    async with client_of(shard) as client:
        made = await ok(client.post("/api/keys", json=WANTED, headers=ADMIN), 201)
        key = made.pop("key")
        assert made == {
            **WANTED,
            "id": key.split("_")[1],
            "created_at": rfc3339(clock.now),
            "expires_at": None,
            "last_used_at": None,
        }
        await ok(client.get("/api/workspaces/acme/triggers", headers=bearer(key)))
        listed = await ok(client.get("/api/keys", headers=ADMIN))
        assert listed == {"count": 1, "keys": [{**made, "last_used_at": rfc3339(clock.now)}]}
        audit = await ok(client.get("/api/audit", headers=ADMIN))
    _, _, secret = key.split("_", 2)
    assert secret not in str(listed) + str(audit)
    redis = shard.redis
    found = [await redis.dump(name) async for name in redis.scan_iter()]
    assert found
    assert not any(secret.encode() in one for one in found)


async def test_a_deleted_key_is_refused_at_once_by_who_deleted_it(make_shard: ShardFactory) -> None:
    async with client_of(make_shard(auth="tokens", admin_key=ADMIN_KEY)) as client:
        made = await ok(client.post("/api/keys", json=WANTED, headers=ADMIN), 201)
        path = "/api/workspaces/acme/triggers"
        await ok(client.get(path, headers=bearer(made["key"])))
        await ok(client.delete(f"/api/keys/{made['id']}", headers=ADMIN))
        await refused(client.get(path, headers=bearer(made["key"])), 401, "unauthorized")
        await refused(client.delete(f"/api/keys/{made['id']}", headers=ADMIN), 404, "not_found")


async def test_another_process_refuses_a_deleted_key_when_its_cache_is_over(shard: Shard) -> None:
    clock = Monotonic()
    ring = KeyRing(shard, clock)
    id_, secret, _ = await stored(shard)
    assert await ring.caller(id_, secret)
    await api_keys.remove(shard, id_)
    clock.now += shard.settings.key_cache_seconds - 0.01
    assert await ring.caller(id_, secret)
    clock.now += 0.01
    assert await ring.caller(id_, secret) is None


async def test_without_a_cache_a_deleted_key_is_refused_everywhere_at_once(make_shard: ShardFactory) -> None:
    shard = make_shard(key_cache_seconds=0)
    ring = KeyRing(shard)
    id_, secret, _ = await stored(shard)
    assert await ring.caller(id_, secret)
    await api_keys.remove(shard, id_)
    assert await ring.caller(id_, secret) is None


async def test_a_key_expires_by_redis_clock_even_while_it_is_cached(shard: Shard, clock: Clock) -> None:
    monotonic = Monotonic()
    ring = KeyRing(shard, monotonic)
    id_, secret, _ = await stored(shard, expires=clock.now + 2000)
    assert await ring.caller(id_, secret)
    monotonic.now += 1.9
    assert await ring.caller(id_, secret)
    monotonic.now += 0.1
    assert await ring.caller(id_, secret) is None


async def test_a_key_expires_in_the_future_and_within_the_calendar(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY)
    async with client_of(shard) as client:
        for moment in (rfc3339(clock.now), "9999-12-31T23:59:59-14:00"):  # by UTC it is the year 10000
            body = {**WANTED, "expires_at": moment}
            problem = await refused(
                client.post("/api/keys", json=body, headers=ADMIN), 400, "invalid_request"
            )
            assert [fault["path"] for fault in problem["errors"]] == ["expires_at"]
        assert await api_keys.all_keys(shard) == []
        last = {**WANTED, "expires_at": "9999-12-31T23:59:59Z"}
        made = await ok(client.post("/api/keys", json=last, headers=ADMIN), 201)
        assert made["expires_at"] == "9999-12-31T23:59:59.000Z"


async def test_the_use_of_a_key_is_noted_once_a_minute(shard: Shard, clock: Clock) -> None:
    monotonic = Monotonic()
    ring = KeyRing(shard, monotonic)
    id_, secret, _ = await stored(shard)
    first = clock.now

    async def used() -> int:
        ((_, at),) = await api_keys.all_keys(shard)
        return at

    assert await used() == 0
    assert await ring.caller(id_, "wrong") is None
    assert await used() == 0
    for passed, noted in ((0, first), (30, first), (29, first), (1, first + 60_000)):
        clock.advance(passed)
        monotonic.now += passed
        assert await ring.caller(id_, secret)
        assert await used() == noted


async def test_the_use_of_a_deleted_key_leaves_nothing(shard: Shard) -> None:
    id_, _, _ = await stored(shard)
    await api_keys.note_use(shard, id_)
    await api_keys.remove(shard, id_)
    await api_keys.note_use(shard, id_)
    assert not await shard.redis.keys("*")


async def test_a_key_is_read_once_for_many_calls(shard: Shard) -> None:
    """What authentication costs: no trip to Redis while the key is cached."""
    ring = KeyRing(shard, Monotonic())
    id_, secret, _ = await stored(shard)
    await ring.caller(id_, secret)
    before = (await shard.redis.info("stats"))["total_commands_processed"]
    for _ in range(1000):
        assert await ring.caller(id_, secret)
    after = (await shard.redis.info("stats"))["total_commands_processed"]
    assert after - before < 10  # INFO itself, and what other tests of this server may do


async def test_the_admin_key_and_cached_keys_go_on_while_redis_is_away(
    shard_at: ShardFactory, own_redis: RedisServer
) -> None:
    shard = shard_at(own_redis.url(), real_time=True, auth="tokens", admin_key=ADMIN_KEY)
    _, _, known = await stored(shard)
    async with client_of(shard) as client:
        path = "/api/cron/presets"  # needs nothing of Redis itself
        await ok(client.get(path, headers=bearer(known)))
        own_redis.process.kill()
        await ok(client.get(path, headers=ADMIN))
        await ok(client.get(path, headers=bearer(known)))
        await refused(client.get(path, headers=bearer(new_key()[1])), 503, "store_unavailable")
        own_redis.start()
        await eventually(lambda: shard.redis.ping())


@pytest.mark.parametrize(
    "text",
    ["cs_", "cs_abc_def", ADMIN_KEY[:-1], ADMIN_KEY + "x", "cs_" + "a" * 16 + "_" + "b" * 44, "x" * 100_000],
)
async def test_what_is_no_key_is_refused(make_shard: ShardFactory, text: str) -> None:
    async with client_of(make_shard(auth="tokens", admin_key=ADMIN_KEY)) as client:
        response = await client.get("/api/stats", headers=bearer(text))
        assert response.status_code == 401
        assert response.headers["www-authenticate"] == 'Bearer realm="cronspace", error="invalid_token"'
        bare = await client.get("/api/stats")
        assert bare.headers["www-authenticate"] == 'Bearer realm="cronspace"'


def test_keys_are_random_and_compared_by_their_digest() -> None:
    made = {new_key()[1] for _ in range(1000)}
    assert len(made) == 1000
    parts = [split_key(key) for key in made]
    assert all(part is not None and len(part[1]) == 43 for part in parts)
    assert same_secret("one", digest_of("one"))
    assert not same_secret("one", digest_of("two"))


def test_secrets_are_compared_in_constant_time() -> None:
    """Whoever compares one otherwise has to change this list."""
    assert "hmac.compare_digest(" in inspect.getsource(keys.same_secret)
    assert "hmac.compare_digest(" in inspect.getsource(auth.Gate.identify)
    assert "digest ==" not in inspect.getsource(keys) + inspect.getsource(auth)


@pytest.mark.parametrize("name", ["a\r\nb", "\x1b[2J", "end\n", "\u2028", "\x9b1m"])
async def test_a_name_is_one_line(make_shard: ShardFactory, name: str) -> None:
    async with client_of(make_shard(auth="tokens", admin_key=ADMIN_KEY)) as client:
        problem = await refused(
            client.post("/api/keys", json={**WANTED, "name": name}, headers=ADMIN), 400, "invalid_request"
        )
        assert problem["errors"] == [
            {"path": "name", "message": "expected one line without control characters"}
        ]


async def test_one_tenant_does_not_take_the_keys_of_all_others(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, max_api_keys=40)
    async with client_of(shard) as client:
        mine = bearer(await key_for(client, "admin", "acme"))
        both = bearer(await key_for(client, "admin", "acme", "beta"))
        body = {**WANTED, "workspaces": ["acme"]}
        for _ in range(3):
            last = await ok(client.post("/api/keys", json=body, headers=mine), 201)
        told = await refused(client.post("/api/keys", json=body, headers=mine), 409, "too_many_keys")
        assert "may be 4, a tenth of CRONSPACE_MAX_API_KEYS" in told["detail"]
        await refused(client.post("/api/keys", json=body, headers=both), 409, "too_many_keys")
        # Others make theirs, and who has all workspaces makes any.
        other = bearer(await key_for(client, "admin", "other"))
        await ok(client.post("/api/keys", json={**WANTED, "workspaces": ["other"]}, headers=other), 201)
        await ok(client.post("/api/keys", json=body, headers=ADMIN), 201)
        await ok(client.delete(f"/api/keys/{last['id']}", headers=mine))
        await refused(client.post("/api/keys", json=body, headers=mine), 409, "too_many_keys")
