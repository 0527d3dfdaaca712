"""The calls on one trigger, over ASGI and a real Redis: each answer, each error, races."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from calls import client_of
from conftest import Clock
from helpers import claim_all, failed

from app.store import Shard, catalog, queue, ticking, workspaces
from app.store.workspaces import WorkspaceSettings

pytestmark = pytest.mark.anyio

PATH = "/api/workspaces/acme/triggers"
ONE = {"cron": "0 9 * * *", "url": "https://example.com/x", "method": "POST"}
PAST = {"at": "2020-01-01T00:00:00Z", "url": "https://example.com/x", "method": "POST"}
SECRET = {**ONE, "headers": {"Authorization": "Bearer s3cret", "X-Trace": "a"}}


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        yield client


def faults_of(response: httpx.Response) -> list[str]:
    assert response.status_code == 400, response.text
    return [fault["path"] for fault in response.json()["errors"]]


async def test_a_trigger_is_created_with_an_id_made_of_its_name(client: httpx.AsyncClient) -> None:
    made = await client.post(f"{PATH}/new", json={**ONE, "name": "Nightly Report (EU)"})
    assert made.status_code == 201
    body = made.json()
    trigger = body["trigger"]
    assert re.fullmatch(r"nightly-report-eu-[2-9a-z]{8}", trigger["id"])
    assert made.headers["location"] == f"{PATH}/{trigger['id']}"
    assert made.headers["etag"] == '"1"'
    assert (body["success"], body["revision"], trigger["state"]) == (True, 1, "active")
    assert trigger["jobId"] == f"acme:{trigger['id']}"
    assert trigger["next_run_at"] == "2026-09-22T09:00:00.000Z"
    again = await client.get(made.headers["location"])
    assert again.json() == body
    unnamed = (await client.post(f"{PATH}/new", json={**ONE, "name": "日本"})).json()["trigger"]
    assert unnamed["id"].startswith("trigger-")


async def test_a_trigger_can_be_created_once_under_its_id(client: httpx.AsyncClient) -> None:
    made = await client.post(f"{PATH}/new", json={**ONE, "id": "mine"})
    assert (made.status_code, made.json()["trigger"]["id"]) == (201, "mine")
    again = await client.post(f"{PATH}/new", json={**ONE, "id": "mine"})
    assert (again.status_code, again.json()["code"]) == (409, "trigger_exists")


async def test_creations_at_once_all_count(client: httpx.AsyncClient) -> None:
    made = await asyncio.gather(*(client.post(f"{PATH}/new", json=ONE) for _ in range(8)))
    assert {one.status_code for one in made} == {201}
    assert (await client.get(PATH)).json()["count"] == 8


async def test_put_creates_or_replaces_and_leaves_the_others_alone(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": "a"}, {**ONE, "id": "b"}]})
    before = (await client.get(f"{PATH}/a")).json()["trigger"]
    made = await client.put(f"{PATH}/c", json=ONE)
    assert (made.status_code, made.headers["etag"]) == (201, '"2"')
    put = await client.put(f"{PATH}/b", json={**ONE, "id": "b", "cron": "0 10 * * *"})
    assert (put.status_code, put.json()["revision"]) == (200, 3)
    same = await client.put(f"{PATH}/b", json={**ONE, "cron": "0 10 * * *"})
    assert (same.status_code, same.json()["revision"]) == (200, 3)
    listed = (await client.get(PATH)).json()
    assert [(job["id"], job["cron"]) for job in listed["jobs"]] == [
        ("a", "0 9 * * *"),
        ("b", "0 10 * * *"),
        ("c", "0 9 * * *"),
    ]
    assert (await client.get(f"{PATH}/a")).json()["trigger"] == before


async def test_the_body_of_a_put_can_t_name_another_id(client: httpx.AsyncClient) -> None:
    assert faults_of(await client.put(f"{PATH}/a", json={**ONE, "id": "b"})) == ["id"]
    assert (await client.get(PATH)).json()["count"] == 0


async def test_what_is_shown_is_accepted_back_and_changes_nothing(client: httpx.AsyncClient) -> None:
    full = {
        **SECRET,
        "name": "n",
        "description": "d",
        "tags": ["x", "y"],
        "timezone": "Europe/Berlin",
        "dst_policy": {"gap": "skip"},
        "starts_at": "2026-01-01T00:00:00Z",
        "max_runs": 5,
        "jitter_seconds": 7,
        "payload": {"a": [1, None]},
        "overlap_policy": "queue",
        "queue_limit": 3,
        "catch_up_missed": "latest",
        "retry_on": ["5xx"],
        "disable_on_gone": True,
    }
    shown = (await client.put(f"{PATH}/full", json=full)).json()["trigger"]
    assert {name: shown[name] for name in full if name not in ("headers", "dst_policy", "starts_at")} == {
        name: full[name] for name in full if name not in ("headers", "dst_policy", "starts_at")
    }
    beside = ("jobId", "jobName", "state", "pause", "next_run_at", "runs", "error", "last")
    again = await client.put(f"{PATH}/full", json={k: v for k, v in shown.items() if k not in beside})
    assert (again.status_code, again.json()["revision"]) == (200, 1)
    listed = (await client.get(PATH)).json()["jobs"][0]
    assert listed == {name: value for name, value in shown.items() if name != "last"}


async def test_a_mask_keeps_what_is_stored_and_stands_for_nothing_in_a_new_trigger(
    client: httpx.AsyncClient, shard: Shard
) -> None:
    masked = {**ONE, "headers": {"Authorization": "********"}}
    assert faults_of(await client.put(f"{PATH}/a", json=masked)) == ["headers['Authorization']"]
    assert faults_of(await client.post(f"{PATH}/new", json=masked)) == ["headers['Authorization']"]
    await client.put(f"{PATH}/a", json=SECRET)
    put = (await client.put(f"{PATH}/a", json=masked)).json()
    assert put["trigger"]["headers"] == {"Authorization": "********"}
    stored = await catalog.read_one(shard, "acme", "a")
    assert stored is not None
    assert stored.definition.headers == {"Authorization": "Bearer s3cret"}


async def test_patch_merges_and_null_unsets(client: httpx.AsyncClient, shard: Shard) -> None:
    await client.put(f"{PATH}/a", json={**SECRET, "name": "old", "payload": {"a": 1, "b": 2}})
    patch = {"name": None, "headers": {"X-Trace": None}, "payload": {"b": 3}, "interval": "5m"}
    patched = await client.patch(f"{PATH}/a", json=patch)
    assert (patched.status_code, patched.headers["etag"]) == (200, '"2"')
    trigger = patched.json()["trigger"]
    assert (trigger["cron"], trigger["interval"], trigger["name"]) == (None, 300, None)
    assert trigger["payload"] == {"a": 1, "b": 3}
    stored = await catalog.read_one(shard, "acme", "a")
    assert stored is not None
    assert stored.definition.headers == {"Authorization": "Bearer s3cret"}
    assert faults_of(await client.patch(f"{PATH}/a", json={"url": None})) == ["url"]
    assert faults_of(await client.patch(f"{PATH}/a", json={"id": "b"})) == ["id"]
    assert faults_of(await client.patch(f"{PATH}/a", json=[])) == [""]


async def test_an_edit_uses_the_workspace_s_defaults(client: httpx.AsyncClient, shard: Shard) -> None:
    own = WorkspaceSettings(timezone="Asia/Tokyo", timeout_seconds=7.0, max_retries=0)
    await workspaces.configure(shard, "acme", own)
    made = (await client.post(f"{PATH}/new", json=ONE)).json()["trigger"]
    put = (await client.put(f"{PATH}/a", json=ONE)).json()["trigger"]
    await client.post(PATH, json={"triggers": [ONE]})
    replaced = (await client.get(PATH)).json()["jobs"][0]
    for shown in (made, put, replaced):
        assert (shown["timezone"], shown["timeout_seconds"], shown["max_retries"]) == ("Asia/Tokyo", 7.0, 0)


async def test_delete_takes_one_trigger_out(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": "a"}, {**ONE, "id": "b"}]})
    gone = await client.delete(f"{PATH}/a")
    assert gone.json() == {"success": True, "workspace_id": "acme", "trigger_id": "a", "revision": 2}
    assert gone.headers["etag"] == '"2"'
    assert [job["id"] for job in (await client.get(PATH)).json()["jobs"]] == ["b"]


@pytest.mark.parametrize(
    ("method", "below", "body"),
    [
        ("GET", "", None),
        ("PATCH", "", {"name": "x"}),
        ("DELETE", "", None),
        ("POST", "/pause", {"note": "x"}),
        ("POST", "/resume", None),
        ("POST", "/run", None),
        ("POST", "/backfill", {"from": "2026-09-01T00:00:00Z", "to": "2026-09-02T00:00:00Z"}),
        ("GET", "/next-runs", None),
    ],
)
async def test_what_is_not_there_is_not_found(
    client: httpx.AsyncClient, method: str, below: str, body: Any
) -> None:
    response = await client.request(method, f"{PATH}/none{below}", json=body)
    assert (response.status_code, response.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "", {"triggers": []}),
        ("PUT", "", {"triggers": []}),
        ("DELETE", "", None),
        ("POST", "/new", ONE),
        ("PUT", "/a", ONE),
        ("PATCH", "/a", {"name": "x"}),
        ("DELETE", "/a", None),
        ("POST", "/bulk", {"action": "delete", "ids": ["a"]}),
    ],
)
async def test_a_change_can_depend_on_the_revision(
    client: httpx.AsyncClient, method: str, path: str, body: Any
) -> None:
    await client.post(PATH, json={"triggers": [{**ONE, "id": "a"}]})
    for value in ('"7"', "7", '"0"'):
        refused = await client.request(method, PATH + path, json=body, headers={"If-Match": value})
        assert (refused.status_code, refused.json()["code"]) == (412, "revision_conflict")
    odd = await client.request(method, PATH + path, json=body, headers={"If-Match": "W/'x'"})
    assert faults_of(odd) == ["if-match"]
    assert (await client.get(PATH)).json()["revision"] == 1
    good = await client.request(method, PATH + path, json=body, headers={"If-Match": '"1"'})
    assert good.status_code in (200, 201)
    any_ = await client.request(method, PATH + path, json=body, headers={"If-Match": "*"})
    assert any_.status_code in (200, 201, 404)


async def test_of_writers_with_the_same_revision_one_wins(client: httpx.AsyncClient) -> None:
    await client.put(f"{PATH}/a", json=ONE)
    condition = {"If-Match": '"1"'}
    calls = [
        client.put(f"{PATH}/a", json={**ONE, "name": f"n{number}"}, headers=condition) for number in range(6)
    ]
    calls += [client.post(PATH, json={"triggers": [ONE]}, headers=condition)]
    answers = await asyncio.gather(*calls)
    assert sorted(one.status_code for one in answers) == [200] + [412] * 6
    assert (await client.get(PATH)).json()["revision"] == 2


async def test_edits_beside_a_replace_all_count_or_are_refused(client: httpx.AsyncClient) -> None:
    ids = [f"t{number}" for number in range(300)]
    await client.post(PATH, json={"triggers": [{**ONE, "id": id_} for id_ in ids]})
    whole = {"triggers": [{**ONE, "id": id_, "name": "replaced"} for id_ in ids]}
    answers = await asyncio.gather(
        client.post(PATH, json=whole), *(client.put(f"{PATH}/extra{n}", json=ONE) for n in range(5))
    )
    done = [one for one in answers if one.status_code in (200, 201)]
    assert {one.status_code for one in answers} <= {200, 201, 409}
    listed = (await client.get(PATH)).json()
    assert listed["revision"] == 1 + len(done)
    assert {job["name"] for job in listed["jobs"] if not job["id"].startswith("extra")} == {"replaced"}


async def test_a_patch_applies_to_what_is_there_when_it_is_stored(client: httpx.AsyncClient) -> None:
    await client.put(f"{PATH}/a", json={**ONE, "payload": {}})
    patches = [client.patch(f"{PATH}/a", json={"payload": {f"k{n}": n}}) for n in range(5)]
    answers = await asyncio.gather(*patches)
    assert {one.status_code for one in answers} <= {200, 409}
    stored = (await client.get(f"{PATH}/a")).json()["trigger"]["payload"]
    assert len(stored) == sum(one.status_code == 200 for one in answers)


async def test_a_pause_has_a_note_and_outlasts_a_replace(client: httpx.AsyncClient) -> None:
    body = {"triggers": [{**ONE, "id": "a"}]}
    await client.post(PATH, json=body)
    paused = await client.post(f"{PATH}/a/pause", json={"note": "until the move"})
    trigger = paused.json()["trigger"]
    assert (paused.status_code, trigger["state"], trigger["next_run_at"]) == (200, "paused", None)
    assert trigger["pause"] == {"since": "2026-09-21T14:13:20.000Z", "note": "until the move"}
    assert paused.json()["revision"] == 1
    body["triggers"][0]["name"] = "changed"
    await client.post(PATH, json=body)
    assert (await client.get(f"{PATH}/a")).json()["trigger"]["state"] == "paused"
    resumed = (await client.post(f"{PATH}/a/resume")).json()["trigger"]
    assert (resumed["state"], resumed["pause"]) == ("active", None)
    assert (await client.post(f"{PATH}/a/resume")).status_code == 200
    assert (await client.post(f"{PATH}/a/pause")).json()["trigger"]["pause"]["note"] == ""
    assert faults_of(await client.post(f"{PATH}/a/pause", json={"note": "x" * 501})) == ["note"]


async def test_a_trigger_may_be_called_as_a_call_is(client: httpx.AsyncClient) -> None:
    for word in ("new", "bulk"):
        assert (await client.put(f"{PATH}/{word}", json=ONE)).status_code == 201
        assert (await client.get(f"{PATH}/{word}")).json()["trigger"]["id"] == word
        assert (await client.delete(f"{PATH}/{word}")).status_code == 200
        assert (await client.options(f"{PATH}/{word}")).headers["allow"] == "OPTIONS, POST"


async def test_the_last_slot_is_shown(client: httpx.AsyncClient, shard: Shard, clock: Clock) -> None:
    await client.put(f"{PATH}/a", json={**ONE, "cron": "* * * * *"})
    clock.advance(41)
    await ticking.fire_due(shard)
    (execution,) = await claim_all(shard)
    await queue.finish(shard, [failed(execution, clock.now)])
    assert (await client.get(f"{PATH}/a")).json()["trigger"]["last"] == {
        "scheduled_at": "2026-09-21T14:14:00.000Z",
        "state": "failed",
        "status": 500,
        "lateness_ms": 1000,
        "duration_ms": 5,
    }


async def test_a_one_off_in_the_past_is_told_with_its_place(client: httpx.AsyncClient) -> None:
    one = await client.put(f"{PATH}/once", json=PAST)
    whole = await client.put(PATH, json={"triggers": [PAST]})
    paths = [[fault["path"] for fault in refused.json()["errors"]] for refused in (one, whole)]
    assert paths == [["at"], ["triggers[0].at"]]


async def test_triggers_created_at_once_wait_for_one_another(client: httpx.AsyncClient) -> None:
    made = await asyncio.gather(*(client.post(f"{PATH}/new", json=ONE) for _ in range(40)))
    assert {response.status_code for response in made} == {201}
    assert len({response.json()["revision"] for response in made}) == 40
    assert (await client.get(PATH)).json()["count"] == 40
