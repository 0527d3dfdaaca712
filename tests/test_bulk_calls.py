"""One action on many triggers, over ASGI and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from calls import client_of
from conftest import ShardFactory
from helpers import claim_all, define

from app.api.bulk import MOST
from app.store import Shard, triggers

pytestmark = pytest.mark.anyio

PATH = "/api/workspaces/acme/triggers"
BULK = f"{PATH}/bulk"


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    await store_five(shard)
    async with client_of(shard) as client:
        yield client


async def store_five(shard: Shard) -> None:
    """Five triggers: a and b are in the EU, c is in the US and disabled, d has both tags, e none."""
    tags: dict[str, tuple[str, ...]] = {"a": ("eu",), "b": ("eu",), "c": ("us",), "d": ("eu", "us"), "e": ()}
    await triggers.replace(shard, "acme", [(id_, define(tags=tags[id_], enabled=id_ != "c")) for id_ in tags])


async def states(client: httpx.AsyncClient) -> dict[str, str]:
    return {job["id"]: job["state"] for job in (await client.get(PATH)).json()["jobs"]}


def outcomes(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 200, response.text
    return {one["id"]: one["outcome"] for one in response.json()["results"]}


async def test_pause_and_resume_by_tags(client: httpx.AsyncClient) -> None:
    paused = await client.post(BULK, json={"action": "pause", "tags": ["eu"], "note": "move"})
    assert outcomes(paused) == {"a": "paused", "b": "paused", "d": "paused"}
    assert paused.json()["count"] == 3
    assert (await client.get(f"{PATH}/a")).json()["trigger"]["pause"]["note"] == "move"
    again = await client.post(BULK, json={"action": "pause", "tags": ["eu", "us"]})
    assert outcomes(again) == {"c": "paused"}
    resumed = await client.post(BULK, json={"action": "resume", "tags": ["us"]})
    assert outcomes(resumed) == {"c": "resumed", "d": "resumed"}
    assert await states(client) == {
        "a": "paused",
        "b": "paused",
        "c": "disabled",
        "d": "active",
        "e": "active",
    }
    assert (await client.get(PATH)).json()["revision"] == 1


async def test_ids_that_need_nothing_or_are_not_there_are_told(client: httpx.AsyncClient) -> None:
    await client.post(f"{PATH}/a/pause")
    told = await client.post(BULK, json={"action": "pause", "ids": ["a", "b", "none", "b"]})
    assert outcomes(told) == {"a": "unchanged", "b": "paused", "none": "not_found"}
    assert told.json()["count"] == 1


@pytest.mark.parametrize(
    ("action", "done", "after"),
    [
        ("enable", {"c": "enabled", "a": "unchanged"}, {"a": "active", "c": "active"}),
        ("disable", {"c": "unchanged", "a": "disabled"}, {"a": "disabled", "c": "disabled"}),
        ("delete", {"c": "deleted", "a": "deleted"}, {}),
    ],
)
async def test_what_belongs_to_the_definition_makes_one_revision(
    client: httpx.AsyncClient, action: str, done: dict[str, str], after: dict[str, str]
) -> None:
    asked = {"action": action, "ids": ["c", "a"]}
    would = await client.post(BULK, json={**asked, "dry_run": True})
    assert (outcomes(would), would.json()["dry_run"], would.json()["revision"]) == (done, True, 1)
    told = await client.post(BULK, json=asked)
    assert (outcomes(told), told.json()["revision"], told.headers["etag"]) == (done, 2, '"2"')
    assert {id_: state for id_, state in (await states(client)).items() if id_ in "ac"} == after


async def test_run_makes_an_execution_for_each(client: httpx.AsyncClient, shard: Shard) -> None:
    key = {"Idempotency-Key": "k"}
    asked = {"action": "run", "tags": ["us"]}
    would = await client.post(BULK, json={**asked, "dry_run": True}, headers=key)
    assert outcomes(would) == {"c": "started", "d": "started"}
    assert await claim_all(shard) == []
    made = await client.post(BULK, json=asked, headers=key)
    assert outcomes(made) == {"c": "started", "d": "started"}
    again = await client.post(BULK, json=asked, headers=key)
    assert again.json() == made.json()
    claimed = await claim_all(shard, number=2)
    assert {one.id for one in claimed} == {one["execution_id"] for one in made.json()["results"]}
    other = await client.post(BULK, json={**asked, "tags": ["eu"]}, headers=key)
    assert (other.status_code, other.json()["code"]) == (422, "idempotency_conflict")


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({"action": "pause"}, "ids"),
        ({"action": "pause", "ids": ["a"], "tags": ["eu"]}, "ids"),
        ({"action": "pause", "ids": []}, "ids"),
        ({"action": "pause", "ids": ["a"] * (MOST + 1)}, "ids"),
        ({"action": "pause", "ids": ["no id"]}, "ids[0]"),
        ({"action": "stop", "ids": ["a"]}, "action"),
        ({"ids": ["a"]}, "action"),
    ],
)
async def test_a_bad_call_is_refused(client: httpx.AsyncClient, body: dict[str, Any], path: str) -> None:
    response = await client.post(BULK, json=body)
    assert response.status_code == 400
    assert [fault["path"] for fault in response.json()["errors"]] == [path]


async def test_by_tags_a_call_handles_so_many_and_the_next_one_the_rest(make_shard: ShardFactory) -> None:
    shard = make_shard(keep_revisions=100)
    many = [(f"t{n}", define("0 9 * * *", tags=("all",))) for n in range(MOST + 200)]
    await triggers.replace(shard, "acme", many)
    async with client_of(shard) as client:
        for action in ("pause", "resume", "disable", "enable", "delete"):
            asked = {"action": action, "tags": ["all"]}
            first, second = [(await client.post(BULK, json=asked)).json() for _ in range(2)]
            assert [(one["count"], one["more"]) for one in (first, second)] == [(MOST, True), (200, False)]
        assert (await client.get(PATH)).json()["count"] == 0


async def test_a_bulk_run_is_bounded_as_a_backfill_is(make_shard: ShardFactory) -> None:
    shard = make_shard(max_backfill=2)
    await store_five(shard)
    async with client_of(shard) as client:
        for given, path in (({"tags": ["eu"]}, "tags"), ({"ids": ["a", "b", "c"]}, "ids")):
            refused = await client.post(BULK, json={"action": "run", **given})
            assert [fault["path"] for fault in refused.json()["errors"]] == [path]
        assert outcomes(await client.post(BULK, json={"action": "run", "tags": ["us"]})) == {
            "c": "started",
            "d": "started",
        }


async def test_deleting_much_is_to_be_confirmed(make_shard: ShardFactory) -> None:
    shard = make_shard(confirm_delete_share=0.5)
    await store_five(shard)
    async with client_of(shard) as client:
        asked = {"action": "delete", "tags": ["eu"]}
        refused = await client.post(BULK, json=asked)
        assert (refused.status_code, refused.json()["code"]) == (409, "confirmation_required")
        assert len(await states(client)) == 5
        done = await client.post(f"{BULK}?confirm=true", json=asked)
        assert done.json()["count"] == 3
