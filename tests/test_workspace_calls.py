"""The calls on workspaces: their settings, pausing, erasing, listing and counting them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from calls import ACME, client_of, fire, minutes, ok, refused, store_set
from conftest import START, Clock, ShardFactory, eventually
from helpers import Target, claim_all, define, failed, numbered, worker_running

from app.clock import rfc3339
from app.store import Shard, catalog, executions, holds, orders, queue, triggers, upkeep, workspaces

pytestmark = pytest.mark.anyio

UNSET_ALL = {
    "max_concurrency": None,
    "max_rate": None,
    "keep_succeeded_seconds": None,
    "keep_succeeded": None,
    "keep_failed": None,
    "timezone": None,
    "timeout_seconds": None,
    "max_retries": None,
    "description": None,
}
USUAL = {
    "max_concurrency": 10,
    "max_rate": 0.0,
    "keep_succeeded_seconds": 86_400,
    "keep_succeeded": 100,
    "keep_failed": 1000,
    "timezone": "UTC",
    "timeout_seconds": 30.0,
    "max_retries": 3,
}


async def test_a_workspace_is_there_from_its_settings_or_its_first_set_on(shard: Shard) -> None:
    async with client_of(shard) as client:
        await refused(client.get(ACME), 404, "not_found")
        made = await ok(client.put(ACME, json={"max_concurrency": 3, "timezone": "Europe/Berlin"}), 201)
        shown = made["workspace"]
        assert shown["settings"] == UNSET_ALL | {"max_concurrency": 3, "timezone": "Europe/Berlin"}
        assert shown["effective"] == USUAL | {"max_concurrency": 3, "timezone": "Europe/Berlin"}
        assert (shown["created_at"], shown["revision"], shown["pause"]) == (rfc3339(START), 0, None)
        assert await ok(client.get(ACME)) == made
        again = await ok(client.put(ACME, json={"description": "nightly"}))
        assert again["workspace"]["settings"] == UNSET_ALL | {"description": "nightly"}
        await store_set(shard, "other", a="* * * * *")
        other = (await ok(client.get("/api/workspaces/other")))["workspace"]
        assert (other["revision"], other["triggers"]["total"], other["settings"]) == (1, 1, UNSET_ALL)


async def test_a_patch_changes_what_it_names_and_null_unsets(shard: Shard) -> None:
    async with client_of(shard) as client:
        await refused(client.patch(ACME, json={}), 404, "not_found")
        await ok(client.put(ACME, json={"max_concurrency": 3, "keep_failed": 7, "timeout_seconds": 2.5}), 201)
        changed = await ok(client.patch(ACME, json={"keep_failed": None, "max_retries": 0}))
        wanted = {"max_concurrency": 3, "timeout_seconds": 2.5, "max_retries": 0}
        assert changed["workspace"]["settings"] == UNSET_ALL | wanted


async def test_patches_of_different_fields_at_once_all_stay(shard: Shard) -> None:
    async with client_of(shard) as client:
        await ok(client.put(ACME, json={}), 201)
        some = {"max_concurrency": 1, "keep_failed": 2, "keep_succeeded": 3, "max_retries": 4}
        await asyncio.gather(*(ok(client.patch(ACME, json={name: some[name]})) for name in some))
        assert (await ok(client.get(ACME)))["workspace"]["settings"] == UNSET_ALL | some


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"max_concurrency": -1}, "max_concurrency"),
        ({"max_rate": -0.5}, "max_rate"),
        ({"keep_succeeded_seconds": 0}, "keep_succeeded_seconds"),
        ({"timezone": "Europe/Berlinn"}, "timezone"),
        ({"timeout_seconds": 0}, "timeout_seconds"),
        ({"max_retries": 101}, "max_retries"),
        ({"max_concurency": 1}, "max_concurency"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH"])
async def test_bad_settings_are_refused(shard: Shard, method: str, body: dict[str, Any], path: str) -> None:
    async with client_of(shard) as client:
        problem = await refused(client.request(method, ACME, json=body), 400, "invalid_request")
        assert [fault["path"] for fault in problem["errors"]] == [path]
        await refused(client.get(ACME), 404, "not_found")


async def test_more_places_let_those_that_wait_in_at_once(shard: Shard, clock: Clock) -> None:
    async with client_of(shard) as client:
        await ok(client.put(ACME, json={"max_concurrency": 1}), 201)
        await triggers.replace(shard, "acme", numbered(5))
        clock.advance(60)
        await fire(shard)
        assert len(await claim_all(shard)) == 1
        await ok(client.patch(ACME, json={"max_concurrency": 4}))
        assert len(await claim_all(shard, number=2)) == 3


async def test_keeping_less_removes_what_is_too_many(shard: Shard, clock: Clock) -> None:
    async with client_of(shard) as client:
        await triggers.replace(shard, "acme", numbered(8))
        await minutes(shard, clock, 1, "failed")
        await ok(client.patch(ACME, json={"keep_failed": 2}))
        while await upkeep.trim_finished(shard):
            pass
        assert (await ok(client.get(f"{ACME}/stats")))["executions"]["failed"] == 2


async def test_pause_and_resume_say_whether_they_changed_anything(shard: Shard, clock: Clock) -> None:
    async with client_of(shard) as client:
        await refused(client.post(f"{ACME}/pause", json={}), 404, "not_found")
        await refused(client.post(f"{ACME}/resume"), 404, "not_found")
        await store_set(shard, a="* * * * *")
        paused = await ok(client.post(f"{ACME}/pause", json={"note": "moving house"}))
        pause = {"since": rfc3339(START), "note": "moving house"}
        assert (paused["changed"], paused["pause"]) == (True, pause)
        assert not (await ok(client.post(f"{ACME}/pause", json={"note": "still"})))["changed"]
        clock.advance(3600)
        await fire(shard)
        assert await claim_all(shard) == []
        resumed = await ok(client.post(f"{ACME}/resume"))
        assert (resumed["changed"], resumed["pause"]) == (True, None)
        assert not (await ok(client.post(f"{ACME}/resume")))["changed"]
        shown = (await ok(client.get(ACME)))["workspace"]
        former = {"since": rfc3339(START), "until": rfc3339(clock.now), "note": "still"}
        assert (shown["pause"], shown["former_pauses"]) == (None, [former])
        assert len(await minutes(shard, clock)) == 1


async def test_a_pause_needs_no_note(shard: Shard) -> None:
    async with client_of(shard) as client:
        await store_set(shard, a="* * * * *")
        paused = await ok(client.post(f"{ACME}/pause"))
        assert paused["pause"] == {"since": rfc3339(START), "note": ""}


async def test_erasing_needs_the_id_once_more(shard: Shard) -> None:
    async with client_of(shard) as client:
        await store_set(shard, a="* * * * *")
        for confirm in ("", "?confirm=true", "?confirm=acm"):
            problem = await refused(client.delete(f"{ACME}{confirm}"), 409, "confirmation_required")
            assert "?confirm=acme" in problem["detail"]
        assert (await ok(client.get(ACME)))["workspace"]["triggers"]["total"] == 1
        await ok(client.delete(f"{ACME}?confirm=acme"))
        await refused(client.delete(f"{ACME}?confirm=acme"), 404, "not_found")


async def test_nothing_is_left_of_an_erased_workspace_but_what_goes_by_itself(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(keep_succeeded=1000, max_concurrency=3)
    await store_set(
        shard,
        a="* * * * *",
        line=define(overlap_policy="queue", queue_limit=5),
        rare="0 0 1 1 *",
        off=define(enabled=False),
        held="* * * * *",
        once=define(cron="", at=START + 90_000),
        late=define(catch_up_missed="all"),
    )
    await holds.pause_triggers(shard, "acme", ["held"], "why not")
    await workspaces.change(shard, "acme", {"max_concurrency": 2})
    await store_set(shard, "other", a="* * * * *")
    await minutes(shard, clock, 3)
    await minutes(shard, clock, 2, "failed")
    (letter, *_) = await orders.letters(shard, "acme")
    await orders.make(
        shard, "acme", "retry", [orders.retry_of(letter, define())], idempotency_key="k", asked=b"x"
    )
    clock.advance(600)
    await fire(shard)  # missed ones, caught-up ones, a line, a backlog
    running = await claim_all(shard, number=9_000)
    assert running
    await holds.pause_workspace(shard, "acme", "soon gone")
    async with client_of(shard) as client:
        await ok(client.delete(f"{ACME}?confirm=acme"))
        await refused(client.get(ACME), 404, "not_found")
        await ok(client.get("/api/workspaces/other"))
    assert set(
        await queue.finish(shard, [failed(one, clock.now) for one in running if one.workspace == "acme"])
    ) == {None}
    await fire(shard)
    await upkeep.clear_removed(shard)
    await upkeep.trim_finished(shard)
    await traces_of_acme_expire(shard)


async def traces_of_acme_expire(shard: Shard) -> None:
    """Assert that neither a key nor a member of one knows of the workspace, but for those that expire.

    The general audit tells that it was erased.
    """
    redis = shard.redis
    read = {
        b"zset": lambda key: redis.zrange(key, 0, -1),
        b"set": redis.smembers,
        b"hash": redis.hgetall,
        b"list": lambda key: redis.lrange(key, 0, -1),
        b"string": redis.get,
        b"none": redis.get,  # gone since it was listed
    }
    async for key in redis.scan_iter():
        if await redis.ttl(key) > 0 or key.decode() == shard.keys.audit:
            continue
        assert b"acme" not in key
        assert "acme" not in str(await read[await redis.type(key)](key)), key


async def test_a_claim_in_the_middle_of_erasing_leaves_nothing(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(900))
    clock.advance(60)
    await fire(shard)
    assert await shard.run("erase_workspace", "acme", clock.now - 60_000, 200, 90) == 0
    assert await claim_all(shard) == []
    await orders_are_refused(shard)
    assert await upkeep.erase(shard, "acme")
    await traces_of_acme_expire(shard)


@pytest.mark.parametrize("slower", [upkeep.erase, lambda shard, _: upkeep.finish_erasing(shard)])
async def test_who_is_late_with_erasing_spares_a_workspace_that_was_made_since(
    shard: Shard, clock: Clock, slower: Callable[[Shard, str], Awaitable[object]]
) -> None:
    await triggers.replace(shard, "acme", numbered(900))
    clock.advance(60)
    await fire(shard)
    assert await shard.run("erase_workspace", "acme", clock.now - 60_000, 200, 90) == 0
    run, calls = shard.run, 0

    async def overtaken(name: str, *args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += name == "erase_workspace"
        if name == "erase_workspace" and calls == 2:
            shard.run = run  # type: ignore[method-assign]
            assert await upkeep.erase(shard, "acme")
            clock.advance(1)
            await triggers.replace(shard, "acme", numbered(3))
        return await run(name, *args, **more)

    shard.run = overtaken  # type: ignore[method-assign]
    await slower(shard, "acme")
    assert calls == 2
    assert len((await catalog.read(shard, "acme")).triggers) == 3
    assert await upkeep.finish_erasing(shard) == 0


async def test_a_very_large_workspace_is_erased_in_bounded_steps(shard: Shard) -> None:
    await store_set(shard, a="* * * * *")
    ids = [f"t{number}" for number in range(30_000)]
    await shard.redis.hset(shard.keys.of("acme", "definitions"), mapping=dict.fromkeys(ids, "x" * 100))
    await shard.redis.zadd(shard.keys.refills, {f"acme:{id_}": START for id_ in ids})
    async with client_of(shard) as client:
        await ok(client.delete(f"{ACME}?confirm=acme"))
    await traces_of_acme_expire(shard)


async def orders_are_refused(shard: Shard) -> None:
    """While it is being erased a workspace takes nothing."""
    async with client_of(shard) as client:
        for method in ("PUT", "PATCH"):
            await refused(client.request(method, ACME, json={}), 409, "workspace_erasing")
        await refused(client.get(ACME), 404, "not_found")
        await refused(client.post(f"{ACME}/executions/retry", json={}), 404, "not_found")


async def test_erasing_cuts_off_what_is_being_sent(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with (
        Target().running() as target,
        worker_running(make_shard(real_time=True)),
        worker_running(make_shard(real_time=True)),
        client_of(shard) as client,
    ):
        target.hold.clear()
        await triggers.replace(shard, "acme", numbered(6, "* * * * * *", url=target.url))
        await eventually(lambda: len(target.received) >= 6)
        await ok(client.delete(f"{ACME}?confirm=acme"))
        erased = time.time()
        await eventually(lambda: target.hung_up() >= 6)
        assert time.time() - erased < 5
        target.hold.set()
        seen = len(target.received)
        await store_set(shard, "other", a=define("* * * * * *", url=f"{target.url}/other"))
        await eventually(lambda: any(one.path == "/other" for one in target.received))
        assert {one.path for one in target.received[seen:]} == {"/other"}
        await traces_of_acme_expire(shard)


async def test_workspaces_are_listed_page_by_page(shard: Shard) -> None:
    ids = [f"w{number}" for number in range(7)]
    for id_ in ids:
        await store_set(shard, id_, a="* * * * *")
    await holds.pause_workspace(shard, "w3", "x")
    async with client_of(shard) as client:
        seen, cursor = [], ""
        while cursor is not None:
            page = await ok(client.get(f"/api/workspaces?limit=3{cursor and f'&cursor={cursor}'}"))
            seen += page["workspaces"]
            cursor = page["next_cursor"]
    assert [one["id"] for one in seen] == ids
    assert [one["id"] for one in seen if one["pause"]] == ["w3"]
    assert all(one["triggers"]["active"] == 1 for one in seen)


async def test_statistics_are_what_counting_one_by_one_gives(make_shard: ShardFactory, clock: Clock) -> None:
    shard = make_shard(keep_succeeded=1000, max_concurrency=4)
    await store_set(
        shard,
        a="* * * * *",
        b="* * * * *",
        c=define(overlap_policy="skip"),
        off=define(enabled=False),
        held="* * * * *",
        held_and_off=define(enabled=False),
        once=define(cron="", at=START + 30_000),
        late=define(catch_up_missed="all"),
    )
    await holds.pause_triggers(shard, "acme", ["held", "held_and_off"])
    await store_set(shard, "other", x="* * * * *")
    await minutes(shard, clock, 2)
    await minutes(shard, clock, 1, "failed")
    clock.advance(60)
    await fire(shard)
    retried = await claim_all(shard, number=8_000)
    await queue.finish(shard, [failed(one, clock.now, "retry", 600_000) for one in retried[:2]])
    clock.now = (clock.now // 60_000 + 1) * 60_000  # in time: a late one waits behind what is open
    await fire(shard)
    clock.advance(400)
    await fire(shard)
    await claim_all(shard, number=8_001, at_most=1)
    async with client_of(shard) as client:
        total: Counter[str] = Counter()
        for workspace in ("acme", "other"):
            stats = await ok(client.get(f"/api/workspaces/{workspace}/stats"))
            found = (await executions.list_newest(shard, workspace, limit=500)).executions
            counted = Counter(str(one.state) for one in found)
            assert {name: number for name, number in stats["executions"].items() if number} == counted
            standings = Counter(str(one.standing) for one in (await catalog.read(shard, workspace)).triggers)
            shown = dict(stats["triggers"])
            assert shown.pop("total") == standings.total()
            assert {name: number for name, number in shown.items() if number} == standings
            total.update(counted)
        every = await ok(client.get("/api/stats"))
        assert (every["workspaces"], every["paused_workspaces"]) == (2, 0)
        assert {name: number for name, number in every["executions"].items() if number} == total
        assert every["triggers"]["total"] == 9
        await refused(client.get("/api/workspaces/nobody/stats"), 404, "not_found")
    assert {"queued", "running", "retrying", "succeeded", "failed", "missed", "skipped"} <= set(total)
