"""What requests go out with beside their triggers, as it is stored, kept by workers, and masked."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from calls import ACME, client_of, fire, ok, once, run_once, store_set
from conftest import Clock, ShardFactory
from helpers import Target, claim_all, worker_running

from app.outgoing import Masker
from app.store import Shard, upkeep
from workers.outgoing import OutgoingCache

pytestmark = pytest.mark.anyio


MASK = "********"


async def test_erasing_a_workspace_erases_its_secrets(shard: Shard) -> None:
    async with client_of(shard) as client:
        await ok(client.put(f"{ACME}/secrets/a", json={"value": "hunter2"}), 201)
        await ok(client.post(f"{ACME}/signing-secrets"), 201)
        await ok(client.put(f"{ACME}/egress", json={"deny": ["*"]}))
        assert await upkeep.erase(shard, "acme")
        assert not await shard.redis.exists(shard.keys.of("acme", "outgoing"), shard.keys.outgoing)
        await ok(client.put(ACME, json={}), 201)
        assert (await ok(client.get(f"{ACME}/secrets")))["secrets"] == []
        assert (await ok(client.get(f"{ACME}/signing-secrets")))["signing_secrets"] == []
        assert (await ok(client.get(f"{ACME}/egress")))["deny"] == []


async def test_changes_at_the_same_time_are_all_kept(make_shard: ShardFactory) -> None:
    shards = [make_shard() for _ in range(4)]
    clients = [client_of(shard) for shard in shards]
    async with clients[0] as a, clients[1] as b, clients[2] as c, clients[3] as d:
        await asyncio.gather(
            *(
                ok(client.put(f"{ACME}/secrets/s{index}", json={"value": "hunter2"}), 201)
                for index, client in enumerate((a, b, c, d))
            )
        )
        assert len((await ok(a.get(f"{ACME}/secrets")))["secrets"]) == 4


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("a hunter2 b hunter2", f"a {MASK} b {MASK}"),
        ("hunter2-long", MASK),
        ("q=a%2Fb+c%C3%BC%22 q=a%2fb%20c%c3%bc%22", f"q={MASK} q={MASK}"),
        (r'{"x": "a\/b c\u00fc\""}', f'{{"x": "{MASK}"}}'),
        ("<p>a/b cü&quot;</p>", f"<p>{MASK}</p>"),
        ("cut hunter", f"cut {MASK}"),
        ("cut hunt", f"cut {MASK}"),
        ("cut a/b c\ufffd", f"cut {MASK}"),
        ("whole \ufffd", "whole \ufffd"),
        ("no hun", "no hun"),
        ("hunters", "hunters"),
        ("", ""),
    ],
)
def test_a_mask_covers_every_form_of_a_value(text: str, masked: str) -> None:
    assert Masker(["hunter2", "hunter2-long", 'a/b cü"'])(text) == masked


@pytest.mark.parametrize(
    "text",
    [
        r"""{"x": "p+a\u0026b\u003cc\u003e'ü\"\\d"}""",  # Go
        r"""{"x": "p\u002Ba\u0026b\u003Cc\u003E\u0027\u00FC\u0022\\d"}""",  # .NET
        """<p x="p+a&amp;b&lt;c&gt;&#39;ü&quot;\\d">""",
        """<p x="p+a&amp;b&lt;c&gt;&#039;ü&quot;\\d">""",  # PHP
        """<p x="p+a&amp;b&lt;c&gt;'ü&quot;\\d">""",
    ],
)
def test_a_mask_covers_what_common_servers_make_of_a_value(text: str) -> None:
    masked = Masker(["p+a&b<c>'ü\"\\d"])(text)
    assert MASK in masked
    assert "a" not in masked


LONG = "a" * 4000


def test_so_much_of_a_value_that_it_is_no_chance_is_masked_with_what_follows() -> None:
    secret = "0123456789abcdefghijklmnopqrstuvwxyz"
    assert Masker([secret])(f"cut {secret[:-1]}") == f"cut {MASK}"
    assert Masker([secret])(f"cut {secret[:33]}!") == f"cut {MASK}"
    assert Masker([secret])(f"cut {secret[:20]}!") == f"cut {secret[:20]}!"


def test_a_target_that_repeats_beginnings_does_not_hold_its_worker_up() -> None:
    mask = Masker(f"{LONG}{number}" for number in range(1000, 1100))

    def seconds(text: str) -> float:
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            mask(text)
            times.append(time.perf_counter() - begun)
        return min(times)

    assert seconds(LONG + "!") < 20 * seconds("x" * len(LONG))  # it was 250 times as long


def test_without_secrets_nothing_is_masked() -> None:
    assert Masker([])("hunter2") == "hunter2"


async def claim_of(shard: Shard, clock: Clock, number: int) -> list[Any]:
    clock.advance(60)
    await fire(shard)
    return await claim_all(shard, number=number)


async def test_a_worker_reads_only_what_changed_and_a_workspace_that_came_anew_is_another(
    shard: Shard, clock: Clock
) -> None:
    cache = OutgoingCache(shard)
    read = 0
    pipeline = shard.redis.pipeline

    def counting(*args: Any, **kwargs: Any) -> Any:
        nonlocal read
        read += 1
        return pipeline(*args, **kwargs)

    async def loaded(number: int) -> tuple[dict[str, str], int]:
        nonlocal read
        claimed = await claim_of(shard, clock, number)
        shard.redis.pipeline = counting  # type: ignore[method-assign]
        read = 0
        ready = await cache.load(claimed)
        shard.redis.pipeline = pipeline  # type: ignore[method-assign]
        return dict(ready["acme"].secrets) if "acme" in ready else {}, read

    async with client_of(shard) as client:
        await store_set(shard, one="* * * * *", two="* * * * *")
        assert await loaded(1) == ({}, 0)
        await ok(client.put(f"{ACME}/secrets/a", json={"value": "first"}), 201)
        assert await loaded(2) == ({"a": "first"}, 1)
        assert await loaded(3) == ({"a": "first"}, 0)
        await ok(client.put(f"{ACME}/secrets/a", json={"value": "second"}))
        assert await loaded(4) == ({"a": "second"}, 1)
        assert await upkeep.erase(shard, "acme")
        await ok(client.put(f"{ACME}/secrets/a", json={"value": "third"}), 201)
        await store_set(shard, one="* * * * *")
        assert await loaded(5) == ({"a": "third"}, 1)
        await ok(client.delete(f"{ACME}/secrets/a"))
        assert await loaded(6) == ({}, 0)


async def test_the_memory_for_what_workers_keep_is_bounded_and_what_is_needed_stays(
    shard: Shard, clock: Clock
) -> None:
    cache = OutgoingCache(shard, most_bytes=12_000)
    async with client_of(shard) as client:
        for number in range(12):
            workspace = f"w{number}"
            await store_set(shard, workspace, one="* * * * *")
            path = f"/api/workspaces/{workspace}/secrets/a"
            await ok(client.put(path, json={"value": f"{number:02}" + "x" * 2000}), 201)
    claimed = await claim_of(shard, clock, 1)
    for one in claimed:
        ready = await cache.load([one])
        assert ready[one.workspace].secrets["a"].startswith(one.workspace[1:].zfill(2))
        assert cache._size <= 12_000
    assert 2 <= len(cache._known) < 6
    ready = await cache.load(claimed)  # more than there is room for: all the same, all are there
    assert len(ready) == 12


async def test_nothing_is_sent_without_what_redis_has_lost_until_it_is_put_again(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, client_of(shard) as client:
        await ok(client.put(f"{ACME}/secrets/a", json={"value": "hunter2"}), 201)
        await shard.redis.delete(shard.keys.of("acme", "outgoing"))  # as an eviction policy may
        async with worker_running(shard):
            await store_set(shard, t=once(target))
            execution = await run_once(client)
            assert execution["error"]["kind"] == "internal"
            assert "Redis has lost them" in execution["error"]["message"]
            assert target.received == []
            await ok(client.put(f"{ACME}/secrets/a", json={"value": "hunter2"}), 201)
            assert (await run_once(client))["state"] == "succeeded"
    assert len(target.received) == 1
