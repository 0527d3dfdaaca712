"""The calls on single executions and dead letters: showing, cancelling, retrying, deleting."""

from __future__ import annotations

import asyncio
import itertools
import time
from functools import partial
from typing import Any

import pytest
from calls import ACME, client_of, finish_all, fire, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory, eventually
from helpers import (
    Target,
    accounts_balance,
    claim_all,
    define,
    failed,
    in_seconds,
    numbered,
    succeeded,
    worker_running,
)

from app.clock import day_of, rfc3339
from app.store import Shard, orders, queue, triggers

pytestmark = pytest.mark.anyio

FIRST = START // 60_000 * 60_000 + 60_000  # the first slot of a trigger of every minute


async def test_an_execution_is_shown_with_its_attempts_and_a_dead_letter_with_its_request(
    shard: Shard, clock: Clock
) -> None:
    await store_set(shard, a=define(headers={"Authorization": "Bearer x", "X-A": "1"}, payload=b'{"n":1}'))
    await minutes(shard, clock, 1, "failed")
    id_ = f"acme:a:{FIRST}"
    async with client_of(shard) as client:
        shown = (await ok(client.get(f"{ACME}/executions/{id_}")))["execution"]
        assert (shown["kind"], shown["state"], shown["retried_as"]) == ("scheduled", "failed", None)
        assert shown["request"] == {
            "method": "POST",
            "url": "http://127.0.0.1:9/hook",
            "headers": {"Authorization": "********", "X-A": "1"},
            "payload": {"n": 1},
            "timeout_seconds": 30.0,
        }
        assert [one["error"]["kind"] for one in shown["attempts"]] == ["status"]
        await minutes(shard, clock, 1)
        good = (await ok(client.get(f"{ACME}/executions/acme:a:{FIRST + 60_000}")))["execution"]
        assert (good["state"], good["request"], good["lateness_ms"]) == (
            "succeeded",
            None,
            20_000,
        )
        for wrong in ("nonsense", "acme:a:1", f"other:a:{FIRST}"):
            await refused(client.get(f"{ACME}/executions/{wrong}"), 404, "not_found")


async def test_what_waits_is_cancelled_and_what_has_ended_is_not(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=1)
    await store_set(shard, a="* * * * *", b="* * * * *", line=define(overlap_policy="queue"))
    clock.now = FIRST
    await fire(shard)
    (first,) = await claim_all(shard)
    await queue.finish(shard, [failed(first, clock.now, "retry", 60_000)])
    async with client_of(shard) as client:
        for name in ("a", "b", "line"):
            path = f"{ACME}/executions/acme:{name}:{FIRST}"
            cancelled = (await ok(client.post(f"{path}/cancel")))["execution"]
            assert (cancelled["state"], cancelled["reason"]) == ("cancelled", "requested")
            await refused(client.post(f"{path}/cancel"), 409, "execution_finished")
        await refused(client.post(f"{ACME}/executions/acme:a:1/cancel"), 404, "not_found")
        await refused(client.post(f"{ACME}/executions/other:a:1/cancel"), 404, "not_found")
    assert await claim_all(shard, number=2) == []
    assert (await accounts_balance(shard, "acme", day_of(FIRST)))["cancelled:requested"] == 3


def hung_up(target: Target, number: int) -> bool:
    """Whether so many connections to a target were cut."""
    return target.hung_up() == number


async def test_cancelling_aborts_the_request_on_whichever_worker_it_runs(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with (
        Target().running() as target,
        worker_running(make_shard(real_time=True, worker_name="one", max_jobs=2)),
        worker_running(make_shard(real_time=True, worker_name="two", max_jobs=2)),
        client_of(shard) as client,
    ):
        target.hold.clear()
        cron = in_seconds(time.time() + 2)
        await triggers.replace(shard, "acme", numbered(4, cron, url=target.url))
        await eventually(lambda: len(target.received) == 4)
        running = (await ok(client.get(f"{ACME}/executions?state=running")))["executions"]
        assert {one["worker"] for one in running} == {"one", "two"}
        for number, one in enumerate(running, 1):
            path = f"{ACME}/executions/{one['id']}"
            cancelled = (await ok(client.post(f"{path}/cancel")))["execution"]
            assert (cancelled["state"], cancelled["error"]["kind"]) == ("cancelled", "cancelled")
            workers = {cancelled["worker"], *(attempt["worker"] for attempt in cancelled["attempts"])}
            assert workers == {one["worker"]}
            await eventually(partial(hung_up, target, number))
            await refused(client.post(f"{path}/cancel"), 409, "execution_finished")
        target.hold.set()
        assert len(target.received) == 4


async def dead_letters(shard: Shard, clock: Clock, number: int = 1, **definitions: Any) -> list[str]:
    await store_set(shard, **(definitions or {"a": "* * * * *"}))
    await minutes(shard, clock, number, "failed")
    return await orders.letters(shard, "acme")


async def test_a_dead_letter_is_retried_once_with_an_id_of_its_own(shard: Shard, clock: Clock) -> None:
    (letter,) = await dead_letters(shard, clock)
    async with client_of(shard) as client:
        path = f"{ACME}/executions/{letter}"
        retried = await ok(client.post(f"{path}/retry"), 202)
        assert (retried["retried"], retried["repeated"]) == (letter, False)
        retry = retried["execution_id"]
        assert retry.startswith(f"{letter}.retry-")
        assert (await ok(client.get(path)))["execution"]["retried_as"] == retry
        shown = (await ok(client.get(f"{ACME}/executions/{retry}")))["execution"]
        assert (shown["kind"], shown["state"], shown["scheduled_at"]) == ("retry", "queued", rfc3339(FIRST))
        response = await client.post(f"{path}/retry")
        assert (response.status_code, response.json()["code"]) == (409, "already_retried")
        assert retry in response.json()["detail"]
        assert (await ok(client.get(response.headers["location"])))["execution"]["id"] == retry
        await refused(client.post(f"{ACME}/executions/{retry}/retry"), 409, "not_a_dead_letter")
        await refused(client.post(f"{ACME}/executions/acme:a:1/retry"), 404, "not_found")
        (claimed,) = await finish_all(shard, clock)
        assert (claimed.id, claimed.slot) == (retry, FIRST)
        shown = (await ok(client.get(f"{ACME}/executions/{retry}")))["execution"]
        assert (shown["state"], shown["lateness_ms"]) == ("succeeded", None)
    await accounts_balance(shard, "acme", day_of(FIRST))


async def test_an_idempotency_key_makes_a_retry_safe_to_repeat(shard: Shard, clock: Clock) -> None:
    first, second = await dead_letters(shard, clock, 2)
    async with client_of(shard) as client:
        key = {"Idempotency-Key": "k-1"}
        retried = await ok(client.post(f"{ACME}/executions/{first}/retry", headers=key), 202)
        again = await ok(client.post(f"{ACME}/executions/{first}/retry", headers=key), 202)
        assert again == retried | {"repeated": True}
        await refused(
            client.post(f"{ACME}/executions/{second}/retry", headers=key), 422, "idempotency_conflict"
        )
        late = {"Idempotency-Key": "k-2"}  # a key whose call did nothing is not kept
        await refused(client.post(f"{ACME}/executions/{first}/retry", headers=late), 409, "already_retried")
        await ok(client.post(f"{ACME}/executions/{second}/retry", headers=late), 202)
        long = {"Idempotency-Key": "k" * 256}
        await refused(client.post(f"{ACME}/executions/{first}/retry", headers=long), 400, "invalid_request")
    assert len(await finish_all(shard, clock)) == 2


async def test_a_letter_is_retried_with_its_request_after_its_trigger_has_gone(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True)
    busy = b"HTTP/1.1 404 X\r\ncontent-length: 2\r\n\r\nno"
    async with (
        Target(busy).running() as target,
        worker_running(make_shard(real_time=True)),
        client_of(shard) as client,
    ):
        request = define(
            "* * * * * *", url=f"{target.url}/a", payload=b'{"n":7}', headers={"x-key": "s3cret"}
        )
        await triggers.replace(shard, "acme", [("a", request)])
        (letter, *_) = await eventually(lambda: orders.letters(shard, "acme"))
        await triggers.replace(shard, "acme", [])
        target.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        retry = (await ok(client.post(f"{ACME}/executions/{letter}/retry"), 202))["execution_id"]

        async def ended() -> Any:
            shown = (await ok(client.get(f"{ACME}/executions/{retry}")))["execution"]
            return shown if shown["finished_at"] else None

        assert (await eventually(ended))["state"] == "succeeded"
        sent = next(one for one in target.received if one.headers["webhook-id"] == retry)
        assert (sent.path, sent.body, sent.headers["x-key"]) == ("/a", b'{"n":7}', "s3cret")


async def test_bulk_retries_take_the_oldest_and_say_what_remains(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_backfill=5, max_concurrency=0)
    letters = await dead_letters(shard, clock, 6, a="* * * * *", b="* * * * *")
    assert len(letters) == 12
    async with client_of(shard) as client:
        url = f"{ACME}/executions/retry"
        await ok(client.post(f"{ACME}/executions/{letters[0]}/retry"), 202)
        done = await ok(client.post(url, json={}), 202)
        assert (done["count"], done["remaining"]) == (5, 6)
        assert [one.partition(".")[0] for one in done["execution_ids"]] == letters[1:6]
        own = await ok(client.post(url, json={"trigger": "b", "limit": 1}), 202)
        assert own["count"] == 1
        assert own["execution_ids"][0].startswith("acme:b:")
        since = rfc3339(START + 6 * 60_000)
        newest = await ok(client.post(url, json={"from": since}), 202)
        assert {one.partition(".")[0] for one in newest["execution_ids"]} == set(letters[10:]) - {
            own["execution_ids"][0].partition(".")[0]
        }
        while (await ok(client.post(url, json={}), 202))["remaining"]:
            pass
        nothing = await ok(client.post(url, json={}), 202)
        assert (nothing["count"], nothing["remaining"]) == (0, 0)
    retried = [one.id for one in await finish_all(shard, clock)]
    assert len(retried) == 12  # each once, the bulk ones after the one that did not wait
    assert sorted(id_.partition(".")[0] for id_ in retried) == sorted(letters)
    assert retried[0].partition(".")[0] == letters[0]


async def test_a_bulk_retry_with_the_same_key_retries_nothing_twice(shard: Shard, clock: Clock) -> None:
    letters = await dead_letters(shard, clock, 3)
    async with client_of(shard) as client:
        key = {"Idempotency-Key": "night"}
        url = f"{ACME}/executions/retry"
        first = await ok(client.post(url, json={"limit": 2}, headers=key), 202)
        again = await ok(client.post(url, json={"limit": 2}, headers=key), 202)
        assert again == first | {"repeated": True}
        await refused(client.post(url, json={"limit": 3}, headers=key), 422, "idempotency_conflict")
        await refused(client.post("/api/workspaces/nobody/executions/retry", json={}), 404, "not_found")
        await refused(client.post(url, json={"limit": 0}), 400, "invalid_request")
    assert len(await finish_all(shard, clock)) == 2
    assert len(letters) == 3


async def test_bulk_retries_at_the_same_time_retry_nothing_twice(shard: Shard, clock: Clock) -> None:
    letters = await dead_letters(shard, clock, 4, a="* * * * *", b="* * * * *")
    async with client_of(shard) as client:
        calls = [ok(client.post(f"{ACME}/executions/retry", json={}), 202) for _ in range(5)]
        calls += [ok(client.post(f"{ACME}/executions/retry", json={"trigger": "a"}), 202)]
        done = await asyncio.gather(*calls)
    made = [id_ for one in done for id_ in one["execution_ids"]]
    assert sorted(id_.partition(".")[0] for id_ in made) == sorted(letters)
    assert {one.id for one in await finish_all(shard, clock)} == set(made)


async def test_retries_wait_for_live_executions_when_there_are_many(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=1)
    await dead_letters(shard, clock, 2)
    async with client_of(shard) as client:
        await ok(client.post(f"{ACME}/executions/retry", json={}), 202)
    clock.advance(60)
    await fire(shard)
    kinds = []
    for number in itertools.count(1):
        claimed = await claim_all(shard, number=number)
        if not claimed:
            break
        kinds += [".retry-" in one.id for one in claimed]
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    assert kinds == [False, True, True]


async def test_dead_letters_are_deleted_and_nothing_else(shard: Shard, clock: Clock) -> None:
    letters = await dead_letters(shard, clock, 4, a="* * * * *", b="* * * * *")
    (good, *_) = await minutes(shard, clock)
    async with client_of(shard) as client:
        url = f"{ACME}/executions"
        await refused(client.delete(f"{url}/{good.id}"), 409, "not_a_dead_letter")
        await refused(client.delete(f"{url}/acme:a:1"), 404, "not_found")
        assert (await ok(client.delete(f"{url}/{letters[0]}")))["deleted"] == 1
        await refused(client.get(f"{url}/{letters[0]}"), 404, "not_found")
        await refused(client.delete(url), 400, "invalid_request")
        await refused(client.delete(f"{url}?state=succeeded"), 400, "invalid_request")
        until = rfc3339(START + 120_000 + 1)
        early = await ok(client.delete(f"{url}?state=failed&to={until}"))
        assert early["deleted"] == 3
        left = await orders.letters(shard, "acme", trigger="a")
        assert (await ok(client.delete(f"{url}?state=failed&trigger=a")))["deleted"] == len(left) == 2
        assert (await ok(client.delete(f"{url}?state=failed")))["deleted"] == 2
        assert (await ok(client.delete(f"{url}?state=failed")))["deleted"] == 0
    assert await shard.redis.hlen(shard.keys.of("acme", "requests")) == 0
    assert (await accounts_balance(shard, "acme", day_of(FIRST)))["failed"] == 8
