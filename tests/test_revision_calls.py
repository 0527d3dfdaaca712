"""The calls on revisions, over ASGI and a real Redis."""

from __future__ import annotations

import threading
import zlib
from collections.abc import AsyncIterator

import httpx
import pytest
from calls import client_of
from conftest import START, Clock, ShardFactory
from helpers import note_threads

from app.clock import rfc3339
from app.store import Shard, catalog

pytestmark = pytest.mark.anyio

TRIGGERS = "/api/workspaces/acme/triggers"
PATH = "/api/workspaces/acme/revisions"
ONE = {"cron": "0 9 * * *", "url": "https://example.com/x", "method": "POST"}


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        yield client


async def three_revisions(client: httpx.AsyncClient) -> None:
    """A set of two; one of them changed; a third one instead of the second."""
    secret = {**ONE, "headers": {"Authorization": "first"}}
    await client.post(TRIGGERS, json={"triggers": [{**secret, "id": "a"}, {**ONE, "id": "b"}]})
    await client.patch(f"{TRIGGERS}/a", json={"headers": {"Authorization": "second"}, "name": "A"})
    keep = {**ONE, "id": "a", "name": "A", "headers": {"Authorization": "********"}}
    await client.post(TRIGGERS, json={"triggers": [keep, {**ONE, "id": "c"}]})


async def test_revisions_are_listed_newest_first(client: httpx.AsyncClient) -> None:
    assert (await client.get(PATH)).json()["revisions"] == []
    await three_revisions(client)
    listed = (await client.get(PATH)).json()
    assert (listed["count"], [one["revision"] for one in listed["revisions"]]) == (3, [3, 2, 1])
    assert [one["live"] for one in listed["revisions"]] == [True, False, False]
    assert listed["revisions"][0] == {
        "revision": 3,
        "created_at": rfc3339(START),
        "action": "replace",
        "count": 2,
        "created": 1,
        "updated": 0,
        "deleted": 1,
        "moved": 0,
        "live": True,
    }
    assert listed["revisions"][1]["action"] == "edit"


async def test_a_former_set_is_shown_masked(client: httpx.AsyncClient) -> None:
    await three_revisions(client)
    got = await client.get(f"{PATH}/1")
    body = got.json()
    assert (body["revision"]["revision"], body["revision"]["live"]) == (1, False)
    assert [one["id"] for one in body["triggers"]] == ["a", "b"]
    assert body["triggers"][0]["headers"] == {"Authorization": "********"}
    assert body["triggers"][0]["name"] is None
    assert "first" not in got.text


async def test_two_revisions_are_compared_field_by_field(client: httpx.AsyncClient) -> None:
    await three_revisions(client)
    response = await client.get(f"{PATH}/1/diff")
    assert response.json() == {
        "success": True,
        "workspace_id": "acme",
        "revision": 1,
        "to": 3,
        "changes": {"created": 1, "updated": 1, "unchanged": 0, "deleted": 1},
        "triggers": [
            {"id": "b", "change": "deleted", "fields": []},
            {
                "id": "a",
                "change": "updated",
                "fields": [
                    {"field": "name", "old": None, "new": "A", "masked": False},
                    {
                        "field": "headers['Authorization']",
                        "old": "********",
                        "new": "********",
                        "masked": True,
                    },
                ],
            },
            {"id": "c", "change": "created", "fields": []},
        ],
    }
    assert "first" not in response.text
    back = (await client.get(f"{PATH}/2/diff?to=1")).json()
    assert (back["to"], [one["id"] for one in back["triggers"]]) == (1, ["a"])
    same = (await client.get(f"{PATH}/3/diff")).json()
    assert (same["to"], same["triggers"]) == (3, [])


async def test_a_rollback_brings_a_set_back_as_a_new_revision(
    client: httpx.AsyncClient, shard: Shard
) -> None:
    await three_revisions(client)
    done = await client.post(f"{PATH}/1/rollback", headers={"If-Match": '"3"'})
    assert (done.status_code, done.headers["etag"]) == (200, '"4"')
    assert done.json() == {
        "success": True,
        "workspace_id": "acme",
        "revision": 4,
        "rolled_back_to": 1,
        "removed": 2,
        "added": 2,
        "changes": {"created": 1, "updated": 1, "unchanged": 0, "deleted": 1},
    }
    stored = await catalog.read_one(shard, "acme", "a")
    assert stored is not None
    assert stored.definition.headers == {"Authorization": "first"}
    assert (await client.get(f"{PATH}/1/diff?to=4")).json()["triggers"] == []
    assert (await client.get(PATH)).json()["revisions"][0]["action"] == "rollback"


async def test_a_rollback_can_be_planned(client: httpx.AsyncClient) -> None:
    await three_revisions(client)
    plan = (await client.post(f"{PATH}/1/rollback?dry_run=true")).json()
    assert (plan["dry_run"], plan["revision"]) == (True, 3)
    assert [(one["id"], one["change"]) for one in plan["triggers"]] == [
        ("c", "deleted"),
        ("a", "updated"),
        ("b", "created"),
    ]
    assert (await client.get(PATH)).json()["count"] == 3


async def test_one_offs_that_are_past_come_back_and_are_not_sent(
    client: httpx.AsyncClient, clock: Clock
) -> None:
    once = {"id": "once", "at": rfc3339(START + 60_000), "url": ONE["url"], "method": "POST"}
    await client.post(TRIGGERS, json={"triggers": [once]})
    await client.delete(TRIGGERS)
    clock.advance(3600)
    refused = await client.post(TRIGGERS, json={"triggers": [once]})
    assert refused.status_code == 400
    plan = (await client.post(f"{PATH}/1/rollback?dry_run=true")).json()
    assert (plan["changes"]["created"], plan["runs"]["added"]) == (1, 0)
    assert (await client.post(f"{PATH}/1/rollback")).json()["added"] == 1
    shown = (await client.get(f"{TRIGGERS}/once")).json()["trigger"]
    assert (shown["state"], shown["next_run_at"]) == ("finished", None)


async def test_a_rollback_that_deletes_much_is_to_be_confirmed(make_shard: ShardFactory) -> None:
    async with client_of(make_shard(confirm_delete_share=0.4)) as client:
        await client.post(TRIGGERS, json={"triggers": [{**ONE, "id": "a"}]})
        await client.put(f"{TRIGGERS}/b", json=ONE)
        refused = await client.post(f"{PATH}/1/rollback")
        assert (refused.status_code, refused.json()["code"]) == (409, "confirmation_required")
        assert (await client.post(f"{PATH}/1/rollback?confirm=true")).status_code == 200


@pytest.mark.parametrize("call", ["GET /9", "GET /9/diff", "GET /1/diff?to=9", "POST /9/rollback"])
async def test_a_revision_that_is_not_there_is_not_found(client: httpx.AsyncClient, call: str) -> None:
    await client.put(f"{TRIGGERS}/a", json=ONE)
    method, _, path = call.partition(" ")
    response = await client.request(method, PATH + path)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


async def test_a_rollback_depends_on_the_revision_where_it_says_so(client: httpx.AsyncClient) -> None:
    await three_revisions(client)
    for path in ("/1/rollback", "/1/rollback?dry_run=true"):
        refused = await client.post(PATH + path, headers={"If-Match": '"2"'})
        assert (refused.status_code, refused.json()["code"]) == (412, "revision_conflict")


async def test_only_the_last_revisions_are_kept(make_shard: ShardFactory) -> None:
    async with client_of(make_shard(keep_revisions=2)) as client:
        await three_revisions(client)
        assert [one["revision"] for one in (await client.get(PATH)).json()["revisions"]] == [3, 2]
        assert (await client.get(f"{PATH}/1")).status_code == 404
        assert (await client.get(f"{PATH}/2")).status_code == 200


async def test_what_undoes_a_revision_is_packed_and_unpacked_beside_the_loop(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A large one takes seconds, in which nobody else would be answered."""
    await client.put(f"{TRIGGERS}/one", json=ONE)
    threads = note_threads(monkeypatch, (zlib, "compress"), (zlib, "decompress"))
    await client.post(f"{TRIGGERS}/bulk", json={"action": "disable", "ids": ["one"]})
    assert (await client.get(f"{PATH}/1/diff")).json()["changes"]["updated"] == 1
    assert len(threads) >= 2
    assert threading.get_ident() not in threads
