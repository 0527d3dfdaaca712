"""Bounds on the bytes that a workspace may have stored: its set, its revisions, requests of executions."""

from __future__ import annotations

import base64
import os
import random
from typing import Any

import pytest
from calls import ACME, client_of, minutes, ok, refused, store_set
from conftest import Clock, ShardFactory
from helpers import bytes_balance, claim_all, define, failed, numbered, run_twice, succeeded

from app.errors import TooManyRuns
from app.models import State
from app.store import Shards, executions, orders, queue, revisions, rotation, sizes, triggers
from app.store.shard import pack, reply

pytestmark = pytest.mark.anyio

KEY = base64.b64encode(os.urandom(32)).decode()
TRIGGERS = f"{ACME}/triggers"


def one(size: int, **fields: Any) -> dict[str, Any]:
    """A trigger with a payload of so many bytes."""
    payload = "x" * (size - 2)
    return {"cron": "* * * * *", "url": "http://127.0.0.1:9/", "method": "POST", "payload": payload, **fields}


def noise(size: int) -> bytes:
    """A payload that does not get smaller."""
    return b'"%s"' % random.randbytes(size // 2).hex().encode()


# The set.


@pytest.mark.parametrize("keys", ["", KEY], ids=["plain", "sealed"])
async def test_a_set_takes_no_more_bytes_whatever_adds_to_it(make_shard: ShardFactory, keys: str) -> None:
    large = make_shard(encryption_keys=keys)
    shard = make_shard(encryption_keys=keys, max_set_bytes=5000)
    async with client_of(large) as client:
        await ok(client.put(TRIGGERS, json={"triggers": [one(3000, id="a"), one(3000, id="b")]}))
    async with client_of(shard) as client:
        for larger in ({"payload": "x" * 3500}, {"description": "some more"}):
            told = await refused(client.patch(f"{TRIGGERS}/a", json=larger), 409, "set_too_large")
            assert "may take 5,000 (CRONSPACE_MAX_SET_BYTES)" in told["detail"]
        for action in ("disable", "enable", "disable"):  # what does harm can be stopped
            answer = await ok(client.post(f"{TRIGGERS}/bulk", json={"action": action, "ids": ["a", "b"]}))
            assert answer["count"] == 2
        await ok(client.patch(f"{TRIGGERS}/a", json={"payload": "x" * 2000}))  # a larger one may shrink
        await ok(client.patch(f"{TRIGGERS}/b", json={"payload": "x" * 2000}))
        await refused(client.post(f"{TRIGGERS}/new", json=one(1000)), 409, "set_too_large")
        await refused(client.put(f"{TRIGGERS}/c", json=one(1000)), 409, "set_too_large")
        rollback, whole = f"{ACME}/revisions/1/rollback", {"triggers": [one(2000, id=id_) for id_ in "abc"]}
        for query in ("", "?dry_run=true"):
            await refused(client.post(rollback + query), 409, "set_too_large")
            await refused(client.put(TRIGGERS + query, json=whole), 409, "set_too_large")
        assert await shard.redis.keys("*:stage:*") == []
        await ok(client.delete(f"{TRIGGERS}/a"))
        await ok(client.put(f"{TRIGGERS}/c", json=one(1000)), 201)
        await ok(client.delete(TRIGGERS))
        await ok(client.put(TRIGGERS, json={"triggers": whole["triggers"][:2]}))
    assert (await bytes_balance(shard, "acme"))[0] <= 5000


async def test_what_is_noted_of_a_set_is_what_is_stored_through_every_change(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard()
    await triggers.replace(shard, "acme", numbered(5))
    for wanted in (
        {"0": define(payload=b"1" * 500)},
        {"7": define(name="new")},
        {"1": None},
        {"2": define()},
    ):
        await triggers.edit(shard, "acme", list(wanted), lambda _, wanted=wanted: wanted)
        await bytes_balance(shard, "acme")
    await triggers.replace(shard, "acme", [*numbered(3), ("x", define(payload=b"2" * 300))])
    await bytes_balance(shard, "acme")
    await triggers.replace(shard, "acme", [])
    assert (await bytes_balance(shard, "acme"))[0] == 0


async def test_what_somebody_changed_who_knows_of_no_bytes_is_measured(make_shard: ShardFactory) -> None:
    """A former version beside this one, or the data that it left; and keys that were changed."""
    shard = make_shard(max_set_bytes=2000)
    meta, stored = shard.keys.of("acme", "meta"), shard.keys.of("acme", "definitions")
    grow = {"t": define(payload=b"1" * 1000)}
    await triggers.replace(shard, "acme", numbered(3))
    usual = await sizes.read(shard, "acme")
    await reply(shard.redis.hdel(meta, "bytes"))
    assert await sizes.read(shard, "acme") == usual
    await triggers.edit(shard, "acme", ["0"], lambda _: {"0": define(name="x")})
    await bytes_balance(shard, "acme")
    await reply(shard.redis.hset(stored, "2", pack({"url": "/", "method": "GET", "payload": b"x" * 1500})))
    await reply(shard.redis.hset(meta, "serial", await shard.run("take_serial")))
    await reply(shard.redis.hincrby(meta, "revision", 1))
    assert (await sizes.read(shard, "acme")).bytes > usual.bytes + 1400
    async with client_of(shard) as client:
        await refused(client.put(f"{TRIGGERS}/t", json=one(1000)), 409, "set_too_large")
    await triggers.edit(shard, "acme", ["2"], lambda _: {"2": None})
    await triggers.edit(shard, "acme", ["t"], lambda _: grow)
    await bytes_balance(shard, "acme")
    sealing = make_shard(encryption_keys=KEY)
    assert (await rotation.rotate(Shards([sealing]), sealing.sealer)).complete
    known = await sizes.read(sealing, "acme")
    assert known.bytes == sum(map(len, await reply(shard.redis.hvals(stored))))
    await triggers.edit(sealing, "acme", ["3"], lambda _: {"3": define()})
    await bytes_balance(sealing, "acme")


async def test_revisions_that_take_much_are_fewer_and_the_one_before_is_kept(
    make_shard: ShardFactory,
) -> None:
    shard, large = make_shard(max_set_bytes=6000), make_shard()

    async def kept() -> list[int]:
        heads = sorted(await revisions.heads(shard, "acme"))
        assert {int(one) for one in await reply(shard.redis.hkeys(undo))} == set(heads)
        return heads

    undo = shard.keys.of("acme", "undo")
    for number in range(1, 7):
        await store_set(shard, t=define(payload=noise(3000), name=str(number)))
    # What undoes each takes some 1,750 bytes: hexadecimal digits have four bits.
    assert await kept() == [3, 4, 5, 6]
    assert await revisions.at(shard, "acme", 2) is None
    oldest = await revisions.at(shard, "acme", 3)
    assert oldest is not None
    assert oldest["t"].definition.name == "3"
    await store_set(large, t=define(payload=noise(20_000), name="large"))
    await triggers.edit(shard, "acme", ["t"], lambda _: {"t": None})
    assert await kept() == [7, 8]
    before = await revisions.at(shard, "acme", 7)
    assert before is not None
    assert before["t"].definition.name == "large"
    await store_set(shard, u="* * * * *")
    assert await kept() == [8, 9]


async def test_fewer_revisions_than_before_are_kept_from_the_next_change_on(make_shard: ShardFactory) -> None:
    for number in range(6):
        await store_set(make_shard(), t=define(name=str(number)))
    shard = make_shard(keep_revisions=2)
    await store_set(shard, t=define())
    assert sorted(await revisions.heads(shard, "acme")) == [6, 7]


# Requests of open executions.


async def test_open_runs_carry_no_more_bytes_and_any_end_makes_room(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_kept_bytes=5000, max_concurrency=1)
    async with client_of(shard) as client:
        await ok(client.put(f"{TRIGGERS}/t", json=one(10)), 201)
        run, body = f"{TRIGGERS}/t/run", {"payload": "x" * 2000}
        key = {"Idempotency-Key": "deploy"}
        first = (await ok(client.post(run, json=body, headers=key), 202))["execution_id"]
        await ok(client.post(run, json=body), 202)
        told = await refused(client.post(run, json=body), 409, "too_many_runs")
        assert "5,000 (CRONSPACE_MAX_KEPT_BYTES). Wait until some have ended, cancel" in told["detail"]
        plain = (await ok(client.post(run), 202))["execution_id"]  # this carries none
        assert (await ok(client.post(run, json=body, headers=key), 202))["repeated"]
        for ended in (first, plain):
            await ok(client.post(f"{ACME}/executions/{ended}/cancel"))
        await ok(client.post(run, json=body), 202)
        await refused(client.post(run, json=body), 409, "too_many_runs")
        for end in (succeeded, failed):
            (claimed,) = await claim_all(shard, number=len(end.__name__))
            assert claimed.definition.count(b"x") >= 2000
            await queue.finish(shard, [end(claimed, clock.now)])
            await ok(client.post(run, json=body), 202)
            await bytes_balance(shard, "acme")
        (letter,) = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
        await refused(client.post(f"{ACME}/executions/{letter.id}/retry"), 409, "too_many_runs")
        await refused(client.post(f"{ACME}/executions/retry", json={}), 409, "too_many_runs")
        assert await orders.retried_as(shard, "acme", [letter.id]) == [None]
        await ok(client.delete(TRIGGERS))
        await ok(client.delete(f"{ACME}?confirm=acme"))
    assert await shard.redis.keys("*w:acme:meta*") == []


async def test_an_order_whose_reply_was_lost_is_not_refused_the_second_time(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_kept_bytes=3000)
    await store_set(shard, t="* * * * *")
    run_twice(shard)
    order = orders.Order("t", clock.now, define(payload=noise(2000)))
    assert len((await orders.make(shard, "acme", "run", [order])).executions) == 1
    with pytest.raises(TooManyRuns):
        await orders.make(shard, "acme", "run", [order])
    assert (await bytes_balance(shard, "acme"))[1] > 2000


async def test_requests_that_a_former_version_left_count(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(max_kept_bytes=3000)
    requests, order = shard.keys.of("acme", "requests"), orders.Order("t", clock.now, define())
    await store_set(shard, t="* * * * *")
    await reply(shard.redis.hset(requests, "acme:t:1.run-ab0", b"x" * 3000))
    with pytest.raises(TooManyRuns):
        await orders.make(shard, "acme", "run", [order])
    await bytes_balance(shard, "acme")
    await reply(shard.redis.hdel(requests, "acme:t:1.run-ab0"))
    await orders.make(shard, "acme", "run", [order])
    await bytes_balance(shard, "acme")
    sealing = make_shard(encryption_keys=KEY)
    assert (await rotation.rotate(Shards([sealing]), sealing.sealer)).resealed["requests"] == 1
    await orders.make(sealing, "acme", "run", [order])
    await store_set(sealing, t="* * * * *")
    await bytes_balance(sealing, "acme")


# Dead letters.


async def test_the_oldest_dead_letters_go_where_their_requests_take_more(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_kept_bytes=7000)
    await store_set(shard, t=define(payload=b'"%s"' % (b"x" * 2000)))
    sent = await minutes(shard, clock, 5, "failed")
    assert await orders.letters(shard, "acme") == [made.id for made in sent[-3:]]
    stored, _, kept = await bytes_balance(shard, "acme")
    assert (stored, kept) == (kept // 3, 3 * stored)
    await store_set(make_shard(), t=define(payload=b'"%s"' % (b"x" * 20_000)))
    (last,) = await minutes(shard, clock, 1, "failed")  # it is kept at any size
    assert await orders.letters(shard, "acme") == [last.id]
    await store_set(shard, t=define())
    (small,) = await minutes(shard, clock, 1, "failed")
    assert await orders.letters(shard, "acme") == [small.id]
    assert await orders.remove_letters(shard, "acme", [small.id]) == 1
    assert (await bytes_balance(shard, "acme"))[1:] == (0, 0)
