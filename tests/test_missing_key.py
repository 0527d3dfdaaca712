"""A worker without the right encryption key, as in a roll-out: nothing is lost, nothing waits for ever."""

from __future__ import annotations

import base64
import os
from collections import Counter

import pytest
from attempts import NOW, claimed
from calls import ACME, client_of, fire, ok, once, run_once, store_set
from conftest import LOOPBACK, Clock, ShardFactory, eventually
from helpers import Target, accounts_balance, claim_all, define, open_ids, worker_running

from app.clock import day_of
from app.egress import make_egress
from app.models import KEY_WAIT_MS, Attempt, FailureKind, State
from app.store import Shard, catalog, executions, orders, queue
from app.store.rotation import rotate
from app.store.shards import Shards
from app.telemetry.metrics import ATTEMPTS
from workers import delivery, retries
from workers.outgoing import Ready
from workers.transport import Transport

pytestmark = pytest.mark.anyio

RIGHT, WRONG = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
MINUTE = 60_000


async def look(shard: Shard, clock: Clock, number: int) -> Counter[str]:
    """Claim and attempt what is ready; how many are in which state then."""
    found = await claim_all(shard, shard.name, number=number)
    transport = Transport(keep=100, read_at_most=1000, places=100)
    ready = Ready(make_egress(LOOPBACK, "", ""))
    ended = [await delivery.attempt(transport, one, clock.now, shard.name, ready) for one in found]
    await transport.aclose()
    return Counter(str(state) for state in await queue.finish(shard, ended))


@pytest.mark.parametrize("guarantee", ["at_least_once", "at_most_once"])
async def test_a_mixed_fleet_sends_everything_once(
    make_shard: ShardFactory, caplog: pytest.LogCaptureFixture, guarantee: str
) -> None:
    right = make_shard(real_time=True, encryption_keys=RIGHT, worker_name="right", max_concurrency=0)
    wrong = make_shard(real_time=True, encryption_keys=WRONG, worker_name="wrong", max_concurrency=0)
    async with Target().running() as target, client_of(right) as client:
        await store_set(right, t=once(target, delivery=guarantee, max_retries=0))
        async with worker_running(wrong):
            made = [(await ok(client.post(f"{ACME}/triggers/t/run"), 202))["execution_id"] for _ in range(8)]

            async def all_met() -> bool:
                return await right.redis.zcard(right.keys.of("acme", "waiting")) == len(made)

            await eventually(all_met)
            async with worker_running(right):

                async def all_sent() -> bool:
                    return not await open_ids(right, "acme")

                await eventually(all_sent, timeout=60)
        assert Counter(one.headers["webhook-id"] for one in target.received) == dict.fromkeys(made, 1)
        shown = (await ok(client.get(f"{ACME}/executions/{made[0]}")))["execution"]
    assert shown["state"] == "succeeded"
    waited, sent = shown["attempts"]  # however often the wrong one looked
    assert (waited["worker"], waited["error"]["kind"]) == ("wrong", "key")
    assert "CRONSPACE_ENCRYPTION_KEYS" in waited["error"]["message"]
    assert (sent["worker"], sent["error"]) == ("right", None)
    assert len([one for one in caplog.records if "has the key" in one.message]) == 1


async def test_ten_minutes_with_the_wrong_key_alone_lose_nothing(
    make_shard: ShardFactory, clock: Clock
) -> None:
    """Neither what was fired, nor the slots of triggers that ran dry meanwhile."""
    right = make_shard(encryption_keys=RIGHT, worker_name="right")
    wrong = make_shard(encryption_keys=WRONG, worker_name="wrong")
    async with Target().running() as target:
        await store_set(right, one=define(url=target.url), hasty=define(url="", start_deadline_seconds=5))
        begun = clock.now
        became: Counter[str] = Counter()
        for number in range(60):
            clock.advance(10)
            await fire(wrong)
            became += await look(wrong, clock, number)
        assert became.keys() == {"retrying"}
        dry = await catalog.read_one(right, "acme", "one")
        assert dry is not None
        assert "CRONSPACE_ENCRYPTION_KEYS" in str(dry.error)
        for number in range(100, 108):
            clock.advance(10)
            await fire(right)
            became = await look(right, clock, number)
        sent = Counter(one.headers["cronspace-scheduled-at"] for one in target.received)
        minutes = (clock.now - begun) // MINUTE
        assert (len(sent), set(sent.values())) == (minutes, {1})
    found = (await executions.list_newest(right, "acme", limit=500)).executions
    assert {one.state for one in found if one.trigger == "one"} == {State.SUCCEEDED}
    # Who sets a deadline means it, whatever the cause.
    assert "deadline" in {one.reason for one in found if one.trigger == "hasty"}
    await accounts_balance(right, "acme", day_of(begun), day_of(clock.now))


async def test_who_waits_for_a_key_for_an_hour_becomes_a_dead_letter_that_can_be_retried(
    make_shard: ShardFactory, clock: Clock
) -> None:
    right, wrong = make_shard(encryption_keys=RIGHT), make_shard(encryption_keys=WRONG)
    await store_set(right, one=define("0 0 1 1 *", headers={"X-Key": "hunter2"}))
    (id_,) = (await orders.make(right, "acme", "run", [orders.Order("one", clock.now)])).executions
    begun, looks, became = clock.now, 0, Counter[str]()
    while not became["failed"]:
        became = await look(wrong, clock, clock.now)
        looks += bool(became)
        clock.advance(10)
        assert clock.now - begun < 2 * KEY_WAIT_MS
    assert clock.now - begun >= KEY_WAIT_MS
    assert looks > 100
    found = await executions.get(right, "acme", id_)
    assert found is not None
    (waited,) = found.attempts
    assert (waited.kind, waited.started, waited.duration >= KEY_WAIT_MS) == ("key", begun, True)
    (kept,) = await orders.requests_of(right, "acme", [id_])
    assert kept is not None
    assert kept.headers == {"X-Key": "hunter2"}


def test_waiting_for_a_key_uses_up_no_retry_and_begins_anew_after_a_real_attempt() -> None:
    def made(kind: str, started: int) -> Attempt:
        return Attempt(started, 5, 0, kind, "", "", "w")

    key, hour = FailureKind.KEY, KEY_WAIT_MS
    before = [made("key", NOW - hour), made("worker_lost", NOW - 10), made("key", NOW - 5)]
    ended = retries.without_key(claimed(before), made(key, NOW))
    assert (ended.what, ended.attempt) == ("failed", Attempt(NOW - 5, 10, 0, "key", "", "", "w"))
    later = retries.without_key(claimed([before[0], made("connect", NOW - 9)]), made(key, NOW))
    assert (later.what, later.delay_ms <= 1000) == ("retry", True)
    prepared = delivery.prepare(claimed(max_retries=1).definition)
    refused_once = retries.judge(claimed(before), made("connect", NOW), prepared.policy, False)
    assert refused_once.what == "retry"


async def test_secrets_that_cant_be_opened_hold_back_their_own_workspace_until_they_can(
    make_shard: ShardFactory,
) -> None:
    """Also where a rotation gives them a key that the worker has had all along."""
    right = make_shard(real_time=True, encryption_keys=RIGHT)
    wrong = make_shard(real_time=True, encryption_keys=WRONG)
    async with Target().running() as target, client_of(wrong) as client:
        async with client_of(right) as other:
            await ok(other.put(f"{ACME}/secrets/a", json={"value": "hunter2"}), 201)
        for workspace in ("acme", "other"):
            await store_set(wrong, workspace, t=once(target))
        async with worker_running(wrong):
            made = await ok(client.post(f"{ACME}/triggers/t/run"), 202)
            path = f"{ACME}/executions/{made['execution_id']}"

            async def waits() -> bool:
                return bool((await ok(client.get(path)))["execution"]["attempts"])

            await eventually(waits)
            async with client_of(right) as other:  # told so that everybody can read it
                (attempt,) = (await ok(other.get(path)))["execution"]["attempts"]
                assert attempt["error"]["kind"] == "key"
                assert attempt["error"]["message"].startswith("the workspace's secrets can't be read")
            assert (await run_once(client, "other"))["state"] == "succeeded"
            both = make_shard(real_time=True, encryption_keys=f"{WRONG},{RIGHT}")
            assert (await rotate(Shards([both]), both.sealer)).complete

            async def sent() -> bool:
                return bool((await ok(client.get(path)))["execution"]["state"] == "succeeded")

            await eventually(sent)
    assert len(target.received) == 2


async def test_health_names_a_worker_that_lacks_a_key_and_what_to_do(make_shard: ShardFactory) -> None:
    right = make_shard(real_time=True, encryption_keys=RIGHT)
    wrong = make_shard(real_time=True, encryption_keys=WRONG, worker_name="w-wrong")
    await store_set(right, t=define("0 0 1 1 *"))
    async with client_of(right) as client, worker_running(wrong) as worker:
        await eventually(lambda: worker.duty.is_on)
        await ok(client.post(f"{ACME}/triggers/t/run"), 202)
        await eventually(lambda: worker.account.lacked_key)
        await worker.report_health()
        found = await ok(client.get("/health/detailed"))
        assert found["status"] == "degraded"
        (reason,) = found["reasons"]
        assert "w-wrong" in reason
        assert "CRONSPACE_ENCRYPTION_KEYS" in reason
        assert worker.account.figures.value(ATTEMPTS, "key") >= 1
