"""What lies in Redis with encryption keys, how keys are changed, and what happens without the right one."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest
from calls import ACME, client_of, fire, ok, refused, store_set
from conftest import LOOPBACK, Clock, ShardFactory, eventually
from helpers import Target, claim_all, define, failed, succeeded

from app.egress import make_egress
from app.errors import IdempotencyConflict
from app.loops import Loop, end
from app.models import Attempt, Standing, State
from app.sealing import Sealer, parse_keys
from app.store import (
    Shard,
    Shards,
    catalog,
    executions,
    orders,
    queue,
    revisions,
    rotation,
    ticking,
    triggers,
)
from app.store.queue import Ended
from app.store.rotation import Rotated
from lab.redis_servers import RedisServer
from workers import delivery
from workers.outgoing import Ready
from workers.transport import Transport

pytestmark = pytest.mark.anyio

FIRST, SECOND = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
SECRET = "hunter2"


async def rotate(shard: Shard) -> Rotated:
    return await rotation.rotate(Shards([shard]), shard.sealer)


async def stored_values(shard: Shard) -> dict[str, bytes]:
    """Every key with its value as Redis dumps it, which does not compress what is so short."""
    keys = [key.decode() async for key in shard.redis.scan_iter()]
    return {key: (await shard.redis.dump(key)) or b"" for key in keys}


async def test_a_replace_of_the_same_set_leaves_it_alone(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(encryption_keys=FIRST)
    await store_set(shard, one=define(headers={"X-Key": SECRET}), two="0 * * * *")
    before = await catalog.read(shard, "acme")
    clock.advance(90)
    done = await triggers.replace(
        shard, "acme", [("one", define(headers={"X-Key": SECRET})), ("two", define("0 * * * *"))]
    )
    assert (done.changes.unchanged, done.revision) == (2, 1)
    edited = await triggers.edit(shard, "acme", ["one"], lambda current: current)
    assert edited.changes == {"one": "unchanged"}
    changed = await triggers.replace(shard, "acme", [("one", define(headers={"X-Key": "other"}))])
    assert (changed.changes.updated, changed.changes.deleted) == (1, 1)
    former = await revisions.at(shard, "acme", 1)
    assert former is not None
    assert {id_: one.definition for id_, one in former.items()} == {
        trigger.id: trigger.definition for trigger in before.triggers
    }


async def test_a_rotation_between_reading_and_storing_makes_no_trigger_new(
    make_shard: ShardFactory, clock: Clock
) -> None:
    """A set is prepared with the bytes that are stored; when they change, it is prepared anew."""
    shard = make_shard(encryption_keys=f"{SECOND},{FIRST}")
    await store_set(make_shard(encryption_keys=FIRST), one=define(headers={"X-Key": SECRET}))
    run, rotated = shard.run, []

    async def run_amid(name: str, *args: Any, **more: Any) -> Any:
        if name == "stage_triggers" and not rotated:
            rotated.append(True)
            await rotate(make_shard(encryption_keys=f"{SECOND},{FIRST}"))
        return await run(name, *args, **more)

    shard.run = run_amid  # type: ignore[method-assign]  # the moment between a read and a script
    done = await triggers.replace(shard, "acme", [("one", define(headers={"X-Key": SECRET}))])
    assert rotated
    assert (done.changes.unchanged, done.revision) == (1, 1)


async def busy(shard: Shard, clock: Clock) -> str:
    """Every kind of value that can hold a secret; returns the id of a dead letter."""
    secret = define(url=f"http://127.0.0.1:9/x?token={SECRET}", headers={"X-Key": SECRET}, max_retries=1)
    await store_set(shard, one=secret, two=define(payload=b'"hunter2"', cron="0 0 1 1 *"))
    await store_set(shard, one=secret)
    clock.advance(60)
    await fire(shard)
    (one,) = await claim_all(shard)
    made = Attempt(clock.now, 5, 500, "status", f"it said {SECRET}", f"{SECRET} is wrong", "w")
    await queue.finish(shard, [Ended(one.id, one.token, "failed", 0, made, one.definition)])
    await orders.make(shard, "acme", "run", [orders.Order("one", clock.now, secret)])
    clock.advance(60)
    await fire(shard)
    retrying = (await claim_all(shard, number=2))[0]
    await queue.finish(shard, [Ended(retrying.id, retrying.token, "retry", 99_000, made)])
    return one.id


async def as_read(shard: Shard, letter: str) -> list[Any]:
    found = await executions.get(shard, "acme", letter)
    listed = await executions.list_newest(shard, "acme")
    return [
        found,
        await orders.requests_of(shard, "acme", [letter]),
        await catalog.read(shard, "acme"),
        await revisions.at(shard, "acme", 1),
        [(one.id, one.state, one.attempts) for one in listed.executions],
    ]


async def test_what_is_written_into_the_audit_is_sealed(make_shard: ShardFactory) -> None:
    shard = make_shard(encryption_keys=FIRST)
    async with client_of(shard) as client:
        await ok(client.put(ACME, json={"description": SECRET}), 201)
        await ok(client.delete(f"{ACME}/triggers"))
        assert (await ok(client.get(f"{ACME}/audit")))["count"] == 2
        await ok(client.delete(f"{ACME}?confirm=acme"))
    (erased,) = await shard.redis.xrange(shard.keys.audit)
    assert shard.sealer.is_current(erased[1][b"entry"])


async def audited(shard: Shard) -> Any:
    async with client_of(shard) as client:
        return await ok(client.get(f"{ACME}/audit"))


async def test_keys_are_introduced_changed_and_given_up(make_shard: ShardFactory, clock: Clock) -> None:
    plain = make_shard()
    letter = await busy(plain, clock)
    async with client_of(plain) as client:
        await ok(client.patch(f"{ACME}/triggers/one", json={"name": "x"}))
    await plain.redis.set(plain.keys.of("acme", "outgoing"), b"\xa7hunter2")
    wanted = await as_read(plain, letter)
    entries = await audited(plain)
    assert any(SECRET.encode() in value for value in (await stored_values(plain)).values())

    for keys in (FIRST, f"{SECOND},{FIRST}"):
        shard = make_shard(encryption_keys=keys)
        assert await as_read(shard, letter) == wanted
        done = await rotate(shard)
        assert (done.complete, done.unreadable) == (True, {})
        assert set(done.resealed) == {"definitions", "requests", "undo", "outgoing", "attempts", "audit"}
        again = await rotate(shard)
        assert not again.resealed
        assert [key for key, value in (await stored_values(shard)).items() if SECRET.encode() in value] == []
        only = make_shard(encryption_keys=keys.split(",")[0])  # the key before is not needed any more
        assert await as_read(only, letter) == wanted
        assert await audited(only) == entries

    decrypting = Sealer(parse_keys(SECOND), only_opens=True)
    assert (await rotation.rotate(Shards([make_shard(encryption_keys=SECOND)]), decrypting)).complete
    assert await as_read(plain, letter) == wanted
    assert await audited(plain) == entries


async def test_what_was_called_with_an_idempotency_key_is_known_again_with_other_keys_and_not_by_trying(
    make_shard: ShardFactory,
) -> None:
    plain, first = make_shard(), make_shard(encryption_keys=FIRST)
    both = make_shard(encryption_keys=f"{SECOND},{FIRST}")
    await store_set(first, one="* * * * *")

    async def run(shard: Shard, key: str, asked: bytes = b"pin=4711") -> orders.Made:
        return await orders.make(
            shard, "acme", "run", [orders.Order("one", 0)], idempotency_key=key, asked=asked
        )

    made = {"before": await run(plain, "before"), "k": await run(first, "k")}
    for shard, key in ((first, "before"), (both, "before"), (both, "k")):
        assert await run(shard, key) == orders.Made(made[key].executions, repeated=True)
        with pytest.raises(IdempotencyConflict):
            await run(shard, key, b"pin=4712")
    with pytest.raises(IdempotencyConflict):  # without its key nobody can say that it is the same call
        await run(plain, "k")
    guess = hashlib.sha256(b"pin=4711").hexdigest().encode()
    kept = [value for key, value in (await stored_values(first)).items() if ":idempotency:" in key]
    assert [guess in value for value in kept].count(True) == 1  # the one from before there was a key


async def test_a_rotation_keeps_what_somebody_writes_meanwhile(make_shard: ShardFactory) -> None:
    shard = make_shard(encryption_keys=f"{SECOND},{FIRST}")
    await store_set(make_shard(encryption_keys=FIRST), one=define(headers={"X-Key": "old"}))
    run = shard.run

    async def run_late(name: str, *args: Any, **more: Any) -> Any:
        if name == "reseal_values" and args[1] == "definitions":
            await store_set(make_shard(encryption_keys=SECOND), one=define(headers={"X-Key": "new"}))
        return await run(name, *args, **more)

    shard.run = run_late  # type: ignore[method-assign]  # the moment between a read and a script
    assert (await rotate(shard)).complete
    (one,) = (await catalog.read(shard, "acme")).triggers
    assert one.definition.headers == {"X-Key": "new"}


@pytest.mark.parametrize(
    ("begins", "ends"), [("waiting", "admitted"), ("waiting", "backlog"), ("admitted", "waiting")]
)
async def test_a_rotation_meets_what_moves_between_the_lists_meanwhile(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch, begins: str, ends: str
) -> None:
    old, new = (
        make_shard(encryption_keys=f"{FIRST},{SECOND}"),
        make_shard(encryption_keys=f"{SECOND},{FIRST}"),
    )
    await store_set(new, one="* * * * *")
    clock.advance(60)
    await fire(old)
    (one,) = await claim_all(old)
    await queue.finish(old, [failed(one, clock.now, "retry", 1000)])
    if begins == "admitted":
        clock.advance(1)
        assert await claim_all(old, number=2)
    members, moved = rotation._Pass._members, []

    async def move_first(self: Any, workspace: str, name: str) -> AsyncIterator[list[str]]:
        if name == begins and not moved:
            moved.append(True)
            assert await new.redis.zrem(new.keys.of(workspace, begins), one.id)
            await new.redis.zadd(new.keys.of(workspace, ends), {one.id: clock.now})
        async for page in members(self, workspace, name):
            yield page

    monkeypatch.setattr(rotation._Pass, "_members", move_first)
    assert (await rotate(new)).resealed["attempts"] == 1
    assert moved


@pytest.mark.parametrize("erased", [False, True])
async def test_what_is_noted_while_an_audit_is_copied_is_kept_and_an_erased_one_stays_so(
    make_shard: ShardFactory, erased: bool
) -> None:
    shard = make_shard(encryption_keys=FIRST)
    async with client_of(make_shard()) as client:
        await ok(client.put(ACME, json={"description": "x"}), 201)
        run, amid = shard.run, []

        async def run_late(name: str, *args: Any, **more: Any) -> Any:
            if name == "reseal_audit" and not amid:
                amid.append(True)
                if erased:
                    await ok(client.delete(f"{ACME}?confirm=acme"))
                else:
                    await ok(client.patch(ACME, json={"description": "y"}))
            return await run(name, *args, **more)

        shard.run = run_late  # type: ignore[method-assign]  # the moment between a read and a script
        await rotate(shard)
    assert amid
    entries = [fields[b"entry"] for _, fields in await shard.redis.xrange(shard.keys.of("acme", "audit"))]
    assert len(entries) == (0 if erased else 2)
    assert all(shard.sealer.is_current(entry) for entry in entries)
    assert [key async for key in shard.redis.scan_iter("*audit:*")] == []


async def test_a_missing_key_holds_up_its_own_executions_and_no_others_and_the_api_says_so(
    make_shard: ShardFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    async with Target().running() as target:
        sealed, plain = make_shard(encryption_keys=FIRST), make_shard()
        letter = await busy(sealed, clock)
        await store_set(plain, "other", one=define(url=target.url))
        wrong = make_shard(encryption_keys=SECOND)
        await rotation.KeyCheck(Shards([wrong])).once()
        assert "CAN'T BE DECRYPTED" in caplog.text
        clock.advance(60)
        await ticking.fire_due(wrong)
        claimed = await claim_all(wrong, "w2")
        transport = Transport(keep=100, read_at_most=1000, places=2)
        ready = Ready(make_egress(LOOPBACK, "", ""))
        ended = [await delivery.attempt(transport, one, clock.now, "w", ready) for one in claimed]
        await transport.aclose()
        states = await queue.finish(wrong, ended)
        became = {one.id: state for one, state in zip(claimed, states, strict=True)}
        assert {id_.split(":")[0]: state for id_, state in became.items()} == {
            "acme": State.RETRYING,
            "other": State.SUCCEEDED,
        }
        bad = next(id_ for id_, state in became.items() if state == State.RETRYING)
        found = await executions.get(wrong, "acme", bad)
        assert found is not None
        assert "CRONSPACE_ENCRYPTION_KEYS" in found.attempts[-1].message
        async with client_of(wrong) as client:
            problem = await refused(client.get(f"{ACME}/triggers"), 503, "encryption_key_missing")
            assert "CRONSPACE_ENCRYPTION_KEYS" in problem["detail"]
            listed = await ok(client.get(f"{ACME}/executions"))
            assert letter in {one["id"] for one in listed["executions"]}
            # Whoever has the set can put it in place again.
            await ok(client.put(f"{ACME}/triggers", json={"triggers": []}))


async def test_a_schedule_whose_key_is_missing_shows_it(make_shard: ShardFactory, clock: Clock) -> None:
    await store_set(make_shard(encryption_keys=FIRST), one=define(headers={"X-Key": SECRET}))
    wrong = make_shard()
    for _ in range(30):
        clock.advance(60)
        await fire(wrong)
    one = await catalog.read_one(make_shard(encryption_keys=FIRST), "acme", "one")
    assert one is not None
    assert one.standing == Standing.ERROR
    assert "CRONSPACE_ENCRYPTION_KEYS" in str(one.error)


async def test_a_process_says_at_its_start_that_something_is_not_encrypted_with_the_first_key(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(encryption_keys=FIRST)
    assert await rotation.warnings(shard) == []
    await store_set(make_shard(), one="* * * * *")
    (warning,) = await rotation.warnings(shard)
    assert "rotate-keys" in warning
    await rotate(shard)
    assert await rotation.warnings(shard) == []
    (warning,) = await rotation.warnings(make_shard())
    assert "DECRYPTED" in warning


async def test_the_texts_of_scripts_stay_plain_and_are_nobody_s_secret(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(encryption_keys=FIRST)
    await store_set(shard, one="* * * * *")
    clock.advance(60)
    await fire(shard)
    await claim_all(shard, "dead")
    for number in range(3):  # others keep calling; the dead one does not renew
        clock.advance(4.9)
        await claim_all(shard, "alive", number=number)
    clock.advance(0.4)
    (one,) = await claim_all(shard, "alive", number=9)
    assert one.attempts[0].message.startswith("the worker was lost")
    assert (await queue.finish(shard, [succeeded(one, clock.now)])) == [State.SUCCEEDED]
    found = await executions.get(shard, "acme", one.id)
    assert found is not None
    assert found.attempts[0].message == one.attempts[0].message
    assert found.attempts[-1].snippet == "ok"
    await rotate(shard)
    assert not (await rotate(shard)).resealed


async def rotate_keys(url: str, keys: str, *arguments: str) -> tuple[int, str]:
    command = [sys.executable, "-m", "app", "rotate-keys", *arguments]
    environ = {**os.environ, "REDIS_URL": url, "CRONSPACE_ENCRYPTION_KEYS": keys}
    process = await asyncio.create_subprocess_exec(
        *command, env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    told, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, told.decode()


async def test_the_command_encrypts_decrypts_and_says_what_it_left(
    make_shard: ShardFactory, redis_url: str
) -> None:
    await store_set(make_shard(), one=define(headers={"X-Key": SECRET}))
    code, told = await rotate_keys(redis_url, "")
    assert (code, "CRONSPACE_ENCRYPTION_KEYS is not set" in told) == (1, True)
    code, told = await rotate_keys(redis_url, FIRST)
    assert (code, told) == (0, "encrypted with the first key: definitions (1), undo (1)\n")
    code, told = await rotate_keys(redis_url, SECOND)
    assert code == 1
    assert "for want of their key: definitions (1), undo (1)" in told
    assert FIRST not in told
    code, told = await rotate_keys(redis_url, f"{SECOND},{FIRST}", "--decrypt")
    assert (code, told) == (0, "decrypted: definitions (1), undo (1)\n")
    assert (await rotate_keys(redis_url, SECOND, "--decrpyt"))[0] == 1


async def test_a_failed_execution_is_retried_with_what_was_sealed(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(encryption_keys=FIRST)
    await store_set(shard, one=define(headers={"X-Key": SECRET}, max_retries=0))
    clock.advance(60)
    await fire(shard)
    (one,) = await claim_all(shard)
    await queue.finish(shard, [failed(one, clock.now)])
    async with client_of(shard) as client:
        await ok(client.post(f"{ACME}/executions/{one.id}/retry"), 202)
    (again,) = await claim_all(shard, number=2)
    assert SECRET.encode() in again.definition


async def test_what_is_wrong_with_the_keys_is_one_line_for_all_shards_and_told_when_redis_comes(
    shard_at: ShardFactory, own_redis: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    plain = shard_at(own_redis.url())
    shards = [Shard(plain.redis, plain.settings, number) for number in range(3)]
    for shard in shards:
        await store_set(shard, one="* * * * *")
    own_redis.client.config_set("requirepass", "another")
    keyed = shard_at(own_redis.url(), encryption_keys=FIRST)  # its connections are new ones
    check = rotation.KeyCheck([Shard(keyed.redis, keyed.settings, number) for number in range(3)], 0.05)
    loop = Loop("key check", check.once)
    looking = asyncio.create_task(loop.run())
    await eventually(lambda: "NOAUTH" in str(own_redis.client.info("errorstats")))
    own_redis.client.config_set("requirepass", "")
    await eventually(lambda: any("definitions" in one for one in caplog.messages))
    await end({loop: looking})
    (told,) = [one for one in caplog.messages if "definitions" in one]
    assert told.startswith("3 of 3 definitions seen are not encrypted")
