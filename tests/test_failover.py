"""Redis that fails over: real primaries, replicas and sentinels, killed and stopped."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from typing import Any

import httpx
import pytest
from calls import ACME, client_of, ok, refused
from conftest import ShardFactory, eventually
from helpers import Target, define, numbered, worker_running
from redis.exceptions import ConnectionError as RedisConnectionError

from app.config import Settings
from app.errors import ConfigError, NotConfirmed
from app.main import NOUNS
from app.store import connect, triggers
from app.store.connection import parse_sentinel_url
from app.store.replicas import Replicas
from lab.redis_servers import Replicated, redis_binaries

pytestmark = pytest.mark.anyio

SET = {"triggers": [{"id": "t", "cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/x", "method": "POST"}]}


@pytest.fixture
def live_at(shard_at: ShardFactory) -> ShardFactory:
    """Shards by their Redis's URL, on its own clock, with a short lease."""
    return partial(shard_at, real_time=True, lease_seconds=2)


@pytest.fixture
def undo() -> Iterator[ExitStack]:
    """What closes servers at the end."""
    with ExitStack() as stack:
        yield stack


def replicated(undo: ExitStack, *args: int, **given: Any) -> Replicated:
    servers = Replicated(*args, **given)
    undo.callback(servers.close)
    return servers


@pytest.mark.parametrize("binary", redis_binaries().values(), ids=redis_binaries())
async def test_after_a_sentinel_failover_everything_goes_on_by_itself(
    live_at: ShardFactory, undo: ExitStack, binary: str
) -> None:
    servers = replicated(undo, 2, 3, binary=binary)
    first = servers.primary
    shard = live_at(servers.url(3), wait_replicas=1)
    working = live_at(servers.url(3))
    every_second = {**SET["triggers"][0], "cron": "* * * * * *"}
    async with Target().running() as target, worker_running(working) as worker, client_of(shard) as client:
        wanted = {"triggers": [{**every_second, "url": target.url}]}
        await ok(client.put(f"{ACME}/triggers", json=wanted))
        await eventually(lambda: len(target.received) >= 2)
        first.process.kill()

        async def stored() -> bool:
            return (await client.put("/api/workspaces/other/triggers", json=SET)).status_code == 200

        await eventually(stored, 30)
        assert (await ok(client.get(f"{ACME}/triggers")))["count"] == 1
        before = len(target.received)
        await eventually(lambda: len(target.received) >= before + 2)
        with servers.primary.client as now:
            assert servers.primary is not first
            await eventually(lambda: now.pubsub_numsub(shard.keys.wake)[0][1] == 1)
        await worker.record_health()
        loops = (worker.ticker, worker.claimer, worker.finisher, worker.renewer)
        await eventually(lambda: not any(loop.failures for loop in loops))


@pytest.mark.parametrize("binary", redis_binaries().values(), ids=redis_binaries())
async def test_a_primary_that_was_demoted_is_left_for_the_new_one(
    live_at: ShardFactory, undo: ExitStack, binary: str
) -> None:
    """Where Redis has one name for the primary, which leads elsewhere after a failover."""
    servers = replicated(undo, 1, binary=binary)
    shard = live_at(servers.url())
    await triggers.replace(shard, "acme", numbered(1))
    replica = servers.servers[1].client
    await eventually(lambda: replica.exists(shard.keys.of("acme", "definitions")))
    with servers.servers[0].client as admin:
        before = {one["id"] for one in admin.client_list("normal")}
        servers.promote(1)
        with pytest.raises(RedisConnectionError, match="replica"):
            await triggers.replace(shard, "acme", numbered(2))
        kept = {one["id"] for one in admin.client_list("normal")} & before
        assert len(kept) == 1  # ours, that asks
    servers.promote(0)
    assert (await triggers.replace(shard, "acme", numbered(3))).revision == 2


async def test_what_too_few_replicas_have_is_stored_and_not_confirmed(
    live_at: ShardFactory, undo: ExitStack
) -> None:
    servers = replicated(undo, 2)
    shard = live_at(servers.url(), wait_replicas=1, wait_replicas_seconds=0.3)
    path = f"{ACME}/triggers"
    async with client_of(shard) as client:
        await ok(client.put(path, json=SET))
        for replica in servers.servers[1:]:
            replica.process.suspend()
        two = {"triggers": [{**SET["triggers"][0], "id": id_} for id_ in ("a", "b")]}
        response = await client.put(path, json=two)
        told = response.json()
        assert (response.status_code, told["code"]) == (503, "not_confirmed")
        assert told["title"] == "Stored, not confirmed"
        assert "0 of 1 replicas" in told["detail"]
        assert response.headers["retry-after"] == "5"
        assert (await ok(client.get(path)))["count"] == 2
        await ok(client.put(f"{path}?dry_run=true", json=SET))
        servers.servers[1].process.resume()

        async def again() -> httpx.Response | None:
            answer = await client.put(path, json=two)
            return answer if answer.is_success else None

        repeated = await eventually(again)  # the replica comes round in its own time
        assert repeated.json()["changes"]["unchanged"] == 2
        servers.servers[0].process.kill()
        servers.servers[2].process.resume()
        servers.promote(1)
    survivor = live_at(f"redis://127.0.0.1:{servers.servers[1].port}/0")
    async with client_of(survivor) as client:
        assert (await ok(client.get(path)))["count"] == 2


CALLS = {
    "replace_triggers": ("POST", "/triggers", SET),
    "create_trigger": ("POST", "/triggers/new", {**SET["triggers"][0], "id": "new"}),
    "patch_trigger": ("PATCH", "/triggers/t", {"name": "x"}),
    "run_trigger": ("POST", "/triggers/t/run", None),
    "pause_trigger": ("POST", "/triggers/t/pause", {}),
    "patch_workspace": ("PATCH", "", {"max_retries": 1}),
    "create_key": ("POST", "/api/keys", {"name": "x", "scope": "read", "workspaces": ["acme"]}),
    "delete_triggers": ("DELETE", "/triggers", None),
}


@pytest.mark.parametrize("name", CALLS)
async def test_every_kind_of_change_is_confirmed(live_at: ShardFactory, redis_url: str, name: str) -> None:
    """Here by no replica at all: each is refused, and each is done."""
    loose, strict = live_at(redis_url), live_at(redis_url, wait_replicas=1, wait_replicas_seconds=0.01)
    operation = next(one for noun in NOUNS for one in noun.operations if one.name == name)
    assert NotConfirmed in operation.errors
    method, path, body = CALLS[name]
    async with client_of(loose) as client:
        await ok(client.put(f"{ACME}/triggers", json=SET))
        before = await loose.redis.dbsize(), (await ok(client.get(f"{ACME}/audit")))["entries"]
    async with client_of(strict) as client:
        url = path if path.startswith("/api") else ACME + path
        await refused(client.request(method, url, json=body), 503, "not_confirmed")
        after = await loose.redis.dbsize(), (await ok(client.get(f"{ACME}/audit")))["entries"]
        assert after != before


def test_whatever_changes_something_tells_that_it_may_be_unconfirmed() -> None:
    for noun in NOUNS:
        for operation in noun.operations:
            assert (NotConfirmed in operation.errors) == operation.changes, operation.name


async def test_a_failover_between_a_write_and_its_confirmation_is_noticed(
    live_at: ShardFactory, undo: ExitStack
) -> None:
    """The new primary's replicas agree with it, but it may know nothing of the write."""
    servers = replicated(undo, 2)
    shard = live_at(servers.url(), wait_replicas=1)
    replicas = Replicas(shard)
    since = await replicas.history()
    await triggers.replace(shard, "acme", numbered(1))
    assert await replicas.confirm(since, 2) == ""
    servers.promote(1)
    after = live_at(f"redis://127.0.0.1:{servers.servers[1].port}/0", wait_replicas=1)
    moved = Replicas(after)
    with servers.servers[1].client as client:
        await eventually(lambda: client.info("replication").get("slave1", {}).get("state") == "online")
    assert "failed over" in await moved.confirm(since, 1)
    assert await moved.confirm(await moved.history(), 2) == ""


async def test_what_is_sent_at_most_once_waits_until_a_replica_has_its_claim(
    live_at: ShardFactory, undo: ExitStack
) -> None:
    servers = replicated(undo, 1)
    shard = live_at(servers.url(), wait_replicas_seconds=0.2)
    async with Target().running() as target, worker_running(shard) as worker:
        await eventually(lambda: worker._replicas.connected == 1)
        servers.servers[1].process.suspend()
        plain = define("* * * * * *", url=f"{target.url}/plain")
        once = define("* * * * * *", url=f"{target.url}/once", delivery="at_most_once")
        await triggers.replace(shard, "acme", [("plain", plain), ("once", once)])

        def paths() -> list[str]:
            return [one.path for one in target.received]

        await eventually(lambda: len(paths()) >= 3)
        assert set(paths()) == {"/plain"}
        servers.servers[1].process.resume()
        await eventually(lambda: paths().count("/once") >= 2)
        sent = [one.headers["webhook-id"] for one in target.received]
        assert len(sent) == len(set(sent))
        # Without any replica there is nothing to wait for.
        servers.servers[1].process.kill()
        await eventually(lambda: servers._replicas_of(servers.servers[0]) == 0)
        before = paths().count("/once")
        await eventually(lambda: paths().count("/once") >= before + 2)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis+sentinel://a:1,b:2", "name of the primary"),
        ("redis+sentinel://a:1,/mymaster", "each sentinel"),
        ("redis+sentinel://a:x/mymaster", "can't be read"),
        ("redis+sentinel://a/mymaster/one", "number of the database"),
        ("redis+sentinel://u:secret@a/mymaster?password=x", "sentinel_username"),
    ],
)
def test_a_sentinel_url_that_can_not_be_read_is_one_clear_line(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        connect(Settings(redis_url=url))
    assert "secret" not in str(caught.value)


def test_a_sentinel_url_has_hosts_a_name_a_database_and_two_logins() -> None:
    read = parse_sentinel_url(
        "rediss+sentinel://u:p%40%2F@a:1,b,[::1]:3/my%20primary/4?sentinel_username=s&sentinel_password=t%26"
    )
    assert read.sentinels == [("a", 1), ("b", 26379), ("::1", 3)]
    assert (read.primary, read.database, read.tls) == ("my primary", 4, True)
    assert read.login == {"username": "u", "password": "p@/"}
    assert read.sentinel_login == {"username": "s", "password": "t&"}
