"""The audit: who changed what, and that nothing else is in it."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from calls import ACME, client_of, minutes, ok, store_set
from conftest import Clock, ShardFactory
from examples import ADMIN_KEY, BODIES, ONE, OPERATIONS, PLACES, path_of

from app.store import Shard, audit
from app.store.audit import Change
from app.store.shard import pack

pytestmark = pytest.mark.anyio

KEY = {"authorization": f"Bearer {ADMIN_KEY}"}
SECRETS = {"Authorization": "Bearer hunter2", "X-Api-Key": "hunter3", "Accept": "seen"}
WRITES = [name for name, (method, _, _) in OPERATIONS.items() if method != "GET"]


@pytest.fixture
def guarded(make_shard: ShardFactory) -> Shard:
    """A shard whose API wants a key."""
    return make_shard(auth="tokens", admin_key=ADMIN_KEY)


async def entries(client: httpx.AsyncClient, path: str = f"{ACME}/audit") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await ok(client.get(path, headers=KEY)))["entries"]
    return found


async def test_a_change_tells_who_from_where_what_before_and_after_and_no_secret(guarded: Shard) -> None:
    async with client_of(guarded) as client:
        body = {"name": "ann", "scope": "write", "workspaces": ["acme"]}
        ann = await ok(client.post("/api/keys", json=body, headers=KEY), 201)
        client.headers["authorization"] = f"Bearer {ann['key']}"
        path = f"{ACME}/triggers/nightly-report"
        await ok(client.put(path, json={**ONE, "headers": SECRETS}), 201)
        await ok(client.patch(path, json={"cron": "0 * * * *", "headers": {"X-Api-Key": "hunter4"}}))
        await ok(client.delete(path))
        deleted, patched, created = await entries(client)
    who = {"kind": "key", "id": ann["id"], "name": "ann", "address": "127.0.0.1"}
    assert [one["who"] for one in (created, patched, deleted)] == [who] * 3
    assert [one["action"] for one in (created, patched, deleted)] == [
        "put_trigger",
        "patch_trigger",
        "delete_trigger",
    ]
    assert {(one["workspace_id"], one["target"]) for one in (created, patched, deleted)} == {
        ("acme", "nightly-report")
    }
    assert created["before"] is None
    assert created["after"]["cron"] == "* * * * *"
    assert created["after"]["headers['Accept']"] == "seen"
    masked = "********"
    assert patched["before"] == {"cron": "* * * * *", "headers['X-Api-Key']": masked}
    assert patched["after"] == {"cron": "0 * * * *", "headers['X-Api-Key']": masked}
    assert deleted["before"]["url"] == ONE["url"]
    assert deleted["after"] is None
    stored = await guarded.redis.xrange(guarded.keys.of("acme", "audit"))
    assert "hunter" not in str([created, patched, deleted, stored])


@pytest.mark.parametrize("name", WRITES)
async def test_each_change_is_noted_once_and_what_is_refused_is_not(
    guarded: Shard, clock: Clock, name: str
) -> None:
    """What an operation needs to succeed is made beforehand, so that it changes something."""
    async with client_of(guarded) as client:
        await store_set(guarded, **{"nightly-report": "* * * * *", "more": "* * * * *"})
        await store_set(guarded, **{"nightly-report": "* * * * *"})
        method, url = path_of(name)
        general = name in ("erase_workspace", "create_key", "delete_key", "resume_system")
        url, body = await scene(guarded, client, clock, name, url)
        refused = await client.request(method, url, json=body)
        assert refused.status_code == 401
        path = "/api/audit" if general else f"{ACME}/audit"
        before = await entries(client, path)
        response = await client.request(method, url, json=body, headers=KEY)
        assert response.is_success, response.text
        noted = (await entries(client, path))[: -len(before) or None]
    assert [one["action"] for one in noted] == [name]
    assert noted[0]["who"]["kind"] == "admin_key"
    assert noted[0]["after"] or noted[0]["before"] or name == "erase_workspace"


async def scene(
    shard: Shard, client: httpx.AsyncClient, clock: Clock, name: str, url: str
) -> tuple[str, Any]:
    """The URL and body of a call that changes something, after making what it needs."""
    body = BODIES.get(name)
    if name in ("retry_execution", "retry_dead_letters", "delete_dead_letter", "delete_dead_letters"):
        for _ in range(4):  # until the retries are used up
            (letter, *_) = await minutes(shard, clock, what="failed")
        return url.replace("acme:none:1", letter.id), body
    if name == "cancel_execution":
        run = f"{ACME}/triggers/nightly-report/run"
        made = await ok(client.post(run, headers=KEY), 202)
        return url.replace("acme:none:1", made["execution_id"]), body
    if name == "delete_key":
        made = await ok(client.post("/api/keys", json=BODIES["create_key"], headers=KEY), 201)
        return url.replace("abcdefghijklmnop", made["id"]), body
    if name == "delete_signing_secret":
        made = await ok(client.post(f"{ACME}/signing-secrets", headers=KEY), 201)
        return url.replace(PLACES["signing_secret_id"], made["signing_secret"]["id"]), body
    if name in ("delete_secret", "delete_egress"):
        given = BODIES[name.replace("delete", "put")]
        await ok(client.put(url, json=given, headers=KEY), 201 if name == "delete_secret" else 200)
    if name == "resume_system":
        await shard.redis.hset(shard.keys.root, "held_by_loss", pack([1, "somebody", 0, 1]))
    elif name.startswith("resume"):
        await ok(client.post(url.replace("/resume", "/pause"), json={}, headers=KEY))
    if name == "create_trigger":
        body = {**ONE, "id": "new"}
    if name in ("put_workspace", "patch_workspace"):
        body = {"max_concurrency": 3}
    if name == "backfill_trigger":
        clock.advance(3600)
        first = "2026-09-21T14:00:00Z"
        body = {"from": first, "to": "2026-09-21T14:10:00Z"}
    if name == "erase_workspace":
        url += "&confirm=acme"
    return url, body


async def test_what_changes_nothing_is_not_noted(guarded: Shard) -> None:
    async with client_of(guarded) as client:
        client.headers.update(KEY)
        await store_set(guarded, **{"nightly-report": "* * * * *"})
        path = f"{ACME}/triggers"
        await ok(client.post(f"{path}?dry_run=true", json={"triggers": []}))
        await ok(client.post(f"{path}/bulk", json={"action": "delete", "ids": ["x"]}))
        await ok(client.post(f"{path}/bulk", json={"action": "run", "tags": ["x"], "dry_run": True}))
        await ok(client.post(f"{path}/nightly-report/resume"))
        await ok(client.post(f"{ACME}/resume"))
        await ok(client.patch(f"{path}/nightly-report", json={"cron": "* * * * *"}))
        await ok(client.put(ACME, json={}))
        await ok(client.patch(ACME, json={"max_retries": None}))
        await ok(client.delete(f"{ACME}/executions?state=failed"))
        await client.patch(f"{path}/none", json={"name": "x"})
        once = {"Idempotency-Key": "k"}
        for _ in range(3):
            await ok(client.post(f"{path}/nightly-report/run", headers=once), 202)
        assert [one["action"] for one in await entries(client)] == ["run_trigger"]


async def test_of_many_triggers_the_first_are_told_and_how_many_there_were(guarded: Shard) -> None:
    """A thousand long ids an entry would make a capped stream as large as one likes."""
    await store_set(guarded, **{f"t{number:02}": "* * * * *" for number in range(30)})
    async with client_of(guarded) as client:
        body = {"action": "pause", "ids": [f"t{number:02}" for number in range(30)]}
        await ok(client.post(f"{ACME}/triggers/bulk", json=body, headers=KEY))
        (entry,) = await entries(client)
    assert entry["after"]["count"] == 30
    assert entry["after"]["ids"] == [*body["ids"][:20], "and 10 more"]


async def test_erasing_a_workspace_removes_its_audit_and_is_told_in_the_general_one(guarded: Shard) -> None:
    async with client_of(guarded) as client:
        client.headers.update(KEY)
        await ok(client.put(ACME, json={"description": "x"}), 201)
        assert await entries(client)
        await ok(client.delete(f"{ACME}?confirm=acme"))
        assert not await guarded.redis.exists(guarded.keys.of("acme", "audit"))
        (erased,) = await entries(client, "/api/audit")
        assert (erased["action"], erased["workspace_id"]) == ("erase_workspace", "acme")
        await audit.note(guarded, Change(kind="key", caller="k", action="late", workspace="acme"))
        assert not await guarded.redis.exists(guarded.keys.of("acme", "audit"))


async def test_an_audit_is_read_in_pages_and_filtered(guarded: Shard) -> None:
    await store_set(guarded, one="* * * * *")
    for number in range(25):
        for action in ("a", "b"):
            change = Change(
                kind="key", caller=f"k{number % 5}", action=action, workspace="acme", target=str(number)
            )
            await audit.note(guarded, change)
    async with client_of(guarded) as client:
        client.headers.update(KEY)
        seen: list[str] = []
        cursor = ""
        while True:
            page = await ok(client.get(f"{ACME}/audit?action=a&limit=10{cursor}"))
            seen += [one["target"] for one in page["entries"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen == [str(number) for number in range(24, -1, -1)]
        assert len(await entries(client, f"{ACME}/audit?caller=k2")) == 10
        assert len(await entries(client, f"{ACME}/audit?target=7")) == 2
        assert await entries(client, f"{ACME}/audit?to=1969-01-01T00:00:00Z") == []
        assert await entries(client, f"{ACME}/audit?from=2100-01-01T00:00:00Z") == []
        whole = await entries(client, f"{ACME}/audit?from=1969-01-01T00:00:00Z&to=2100-01-01T00:00:00Z")
        assert len(whole) == 50
        for bad in ("x", "MDowOnk", "LTE6eHk"):
            assert (await client.get(f"{ACME}/audit?cursor={bad}")).status_code == 400


async def test_an_audit_is_bounded(make_shard: ShardFactory) -> None:
    shard = make_shard(keep_audit=100)
    await store_set(shard, one="* * * * *")
    for number in range(500):
        await audit.note(shard, Change(kind="key", caller=str(number), action="a", workspace="acme"))
    kept = await shard.redis.xlen(shard.keys.of("acme", "audit"))
    assert 100 <= kept <= 250  # whole nodes of the stream go


async def test_an_entry_whose_reply_was_lost_is_there_once(guarded: Shard) -> None:
    await store_set(guarded, one="* * * * *")
    stream = guarded.keys.of("acme", "audit")
    for token in ("t1", "t2", "t1"):
        await guarded.run("note_change", "acme", token, b"\x80", 100, keys=(stream,))
    assert await guarded.redis.xlen(stream) == 2


async def test_a_change_that_could_not_be_noted_stays_done_and_is_in_the_log(
    guarded: Shard, caplog: pytest.LogCaptureFixture
) -> None:
    stream = guarded.keys.of("acme", "audit")
    await guarded.redis.set(stream, "in the way")
    async with client_of(guarded) as client:
        await ok(client.put(ACME, json={"description": "x"}, headers=KEY), 201)
    assert "the audit could not be written" in caplog.text
    assert '"action":"put_workspace"' in caplog.text
