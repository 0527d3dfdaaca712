"""The API over ASGI, on a real Redis: the shapes that other programs rely on, and every kind of bad input."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from calls import client_of, refused
from conftest import Clock, ShardFactory
from helpers import claim_all, failed, succeeded

from app.config import Settings
from app.store import Shard, connect, queue, ticking
from lab.redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.anyio

TWO = {
    "triggers": [
        {
            "cron": "0 */2 * * *",
            "url": "https://api.example.com/webhook",
            "method": "POST",
            "payload": {"event": "scheduled_task", "data": {}},
            "headers": {"Authorization": "Bearer YOUR_TOKEN", "Content-Type": "application/json"},
        },
        {
            "cron": "0 9 * * 1-5",
            "url": "https://api.example.com/report",
            "method": "GET",
            "headers": {"X-API-Key": "YOUR_API_KEY"},
        },
    ]
}
PATH = "/api/workspaces/workspace-123/triggers"


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(shard) as client:
        yield client


async def test_replace_answers_in_the_agreed_shape(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json=TWO)
    response = await client.post(PATH, json=TWO)
    assert response.status_code == 200
    body = response.json()
    assert {key: body[key] for key in ("success", "workspace_id", "removed", "added")} == {
        "success": True,
        "workspace_id": "workspace-123",
        "removed": 2,
        "added": 2,
    }
    first = body["jobs"][0]
    assert {key: first[key] for key in ("jobId", "jobName", "cron", "url", "method")} == {
        "jobId": "workspace-123:0",
        "jobName": "workspace-123-trigger-0",
        "cron": "0 */2 * * *",
        "url": "https://api.example.com/webhook",
        "method": "POST",
    }
    assert first["next_run_at"] == "2026-09-21T16:00:00.000Z"
    assert body["revision"] == 1
    assert body["changes"] == {"created": 0, "updated": 0, "unchanged": 2, "deleted": 0}


async def test_list_delete_and_put(client: httpx.AsyncClient) -> None:
    await client.put(PATH, json=TWO)
    listed = (await client.get(PATH)).json()
    assert (listed["success"], listed["workspace_id"], listed["count"]) == (True, "workspace-123", 2)
    assert [job["jobId"] for job in listed["jobs"]] == ["workspace-123:0", "workspace-123:1"]
    assert listed["jobs"][0]["payload"] == TWO["triggers"][0]["payload"]
    deleted = (await client.delete(PATH)).json()
    assert {key: deleted[key] for key in ("success", "workspace_id", "removed")} == {
        "success": True,
        "workspace_id": "workspace-123",
        "removed": 2,
    }
    assert (await client.get(PATH)).json()["count"] == 0


async def test_health_has_a_status_and_a_timestamp(client: httpx.AsyncClient) -> None:
    body = (await client.get("/health")).json()
    assert body["status"] == "ok"
    assert body["timestamp"].endswith("Z")


async def test_credentials_are_masked_and_a_mask_keeps_what_is_stored(client: httpx.AsyncClient) -> None:
    await client.post(PATH, json=TWO)
    jobs = (await client.get(PATH)).json()["jobs"]
    assert jobs[0]["headers"] == {"Authorization": "********", "Content-Type": "application/json"}
    assert jobs[1]["headers"] == {"X-API-Key": "********"}
    again = json.loads(json.dumps(TWO))
    again["triggers"][0]["headers"]["Authorization"] = "********"
    assert (await client.post(PATH, json=again)).json()["changes"]["unchanged"] == 2
    again["triggers"][0]["id"] = "new"
    refused = await client.post(PATH, json=again)
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["path"] == "triggers[0].headers['Authorization']"


GOOD = {"cron": "* * * * *", "url": "http://127.0.0.1/x", "method": "POST"}


@pytest.mark.parametrize(
    ("change", "path", "message"),
    [
        ({"cron": "0 0 31 2 *"}, ".cron", "never"),
        ({"cron": "nonsense"}, ".cron", "5 fields"),
        ({"cron": 5}, ".cron", "expected 'str'"),
        ({"cron": None}, ".cron", "expected 'str'"),
        ({"timezone": "Mars/Phobos"}, ".timezone", "IANA"),
        ({"method": "BREW"}, ".method", "not one of"),
        ({"method": "post"}, ".method", "did you mean 'POST'"),
        ({"url": "ftp://x/"}, ".url", "http://"),
        ({"url": "http://"}, ".url", "no host"),
        ({"url": "http://user:secret@x/"}, ".url", "Authorization"),
        ({"url": "http://x/a b"}, ".url", "%20"),
        ({"url": "http://x:99999/"}, ".url", "port"),
        ({"url": "http://x:0/"}, ".url", "port"),
        ({"url": "http://[::1/"}, ".url", "not a valid URL"),
        ({"url": "http://*/"}, ".url", "name of a host"),
        ({"url": "http://xn--/"}, ".url", "name of a host"),
        ({"url": "http://a%2fb/"}, ".url", "host"),
        ({"url": "http://a..b/"}, ".url", "name of a host"),
        ({"url": "http://x/" + "a" * 9000}, ".url", "longer"),
        ({"headers": {"A b": "1"}}, ".headers['A b']", "header name"),
        ({"headers": {"A": "1\r\nB: 2"}}, ".headers['A']", "header value"),
        ({"headers": {"A": " x"}}, ".headers['A']", "space"),
        ({"headers": {"A": 1}}, ".headers['A']", "expected a string"),
        ({"headers": {"Content-Length": "3"}}, ".headers['Content-Length']", "connection"),
        ({"headers": {"Webhook-Id": "3"}}, ".headers['Webhook-Id']", "Cronspace itself"),
        ({"headers": []}, ".headers", "expected"),
        ({"id": "a b"}, ".id", "letters"),
        ({"id": ""}, ".id", "letters"),
        ({"id": "x\n"}, ".id", "letters"),
        ({"id": 5}, ".id", "expected a string"),
        ({"timeout_seconds": 0}, ".timeout_seconds", "> 0"),
        ({"timeout_seconds": 3601}, ".timeout_seconds", "<= 3600"),
        ({"max_retries": -1}, ".max_retries", ">= 0"),
        ({"max_retries": 1.5}, ".max_retries", "expected 'int'"),
        ({"enabled": "yes"}, ".enabled", "expected 'bool'"),
        ({"corn": "* * * * *"}, ".corn", "did you mean 'cron'"),
        ({"timeout": 5}, ".timeout", "did you mean 'timeout_seconds'"),
    ],
)
async def test_a_fault_is_refused_with_its_path_and_nothing_is_stored(
    client: httpx.AsyncClient, shard: Shard, change: dict[str, Any], path: str, message: str
) -> None:
    response = await client.post(PATH, json={"triggers": [GOOD, {**GOOD, **change}]})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["code"] == "invalid_request"
    (fault,) = body["errors"]
    assert fault["path"] == "triggers[1]" + path
    assert message in fault["message"]
    assert await shard.redis.keys("cs:*w:*") == []
    assert not await shard.redis.exists(shard.keys.workspaces)


async def test_every_fault_of_a_body_is_listed_at_once(client: httpx.AsyncClient) -> None:
    body = {
        "triggers": [
            {"cron": "61 * * * *", "url": "nowhere", "method": 7},
            "text",
            {**GOOD, "id": "0"},
            {"url": "http://x/", "methd": "GET"},
        ],
        "extra": 1,
    }
    faults = (await client.post(PATH, json=body)).json()["errors"]
    assert {fault["path"] for fault in faults} == {
        "extra",
        "triggers[0].cron",
        "triggers[0].method",
        "triggers[0].url",
        "triggers[1]",
        "triggers[2].id",
        "triggers[3].cron",
        "triggers[3].methd",
        "triggers[3].method",
    }


async def test_semantic_faults_of_several_triggers_are_listed_at_once(client: httpx.AsyncClient) -> None:
    body = {"triggers": [{**GOOD, "id": "a", "cron": "x"}, {**GOOD, "id": "a", "url": "http://u:p@h/"}]}
    faults = (await client.post(PATH, json=body)).json()["errors"]
    assert sorted(f["path"] for f in faults) == ["triggers[0].cron", "triggers[1].id", "triggers[1].url"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"triggers": {}}',
        b'{"triggers": [',
        b"\xff\xfe",
        b'{"triggers": 1}',
        b"{}",
    ],
)
async def test_a_malformed_body_is_refused(client: httpx.AsyncClient, body: bytes) -> None:
    response = await client.post(PATH, content=body)
    assert response.status_code == 400
    assert response.json()["errors"]


async def test_an_empty_body_is_called_so(client: httpx.AsyncClient) -> None:
    (fault,) = (await client.post(PATH)).json()["errors"]
    assert fault["message"] == "the body is empty: expected JSON"


async def test_deep_nesting_is_refused(client: httpx.AsyncClient) -> None:
    deep = b'{"triggers":[{"payload":' + b"[" * 200_000 + b"]" * 200_000 + b"}]}"
    assert (await client.post(PATH, content=deep)).status_code == 400


async def test_limits_of_size_and_number_are_settings(make_shard: ShardFactory) -> None:
    async with client_of(make_shard(max_triggers=2, max_body_bytes=1000)) as client:
        assert (await client.post(PATH, json={"triggers": [GOOD] * 2})).status_code == 200
        many = await client.post(PATH, json={"triggers": [GOOD] * 3})
        assert "at most 2" in many.json()["errors"][0]["message"]
        large = await client.post(PATH, json={"triggers": [GOOD], "pad": "x" * 1000})
        assert (large.status_code, large.json()["code"]) == (413, "body_too_large")

        async def endless() -> AsyncIterator[bytes]:
            while True:
                yield b" " * 100

        assert (await client.post(PATH, content=endless())).status_code == 413


@pytest.mark.parametrize("workspace", ["a b", ".a", "a:b", "x" * 129, "ä", "a%0a"])
async def test_a_workspace_id_outside_the_pattern_is_400(client: httpx.AsyncClient, workspace: str) -> None:
    for method, path in (("GET", "triggers"), ("POST", "triggers"), ("GET", "executions")):
        response = await client.request(method, f"/api/workspaces/{workspace}/{path}", json=TWO)
        assert response.status_code == 400
        assert response.json()["errors"][0]["path"] == "workspace_id"


async def test_unknown_paths_and_methods_are_problems_too(client: httpx.AsyncClient) -> None:
    missing = await client.get("/api/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = await client.patch(PATH)
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "POST" in wrong.headers["allow"]


async def test_executions_are_listed_newest_first_by_pages(
    client: httpx.AsyncClient, shard: Shard, clock: Clock
) -> None:
    await client.post(PATH, json={"triggers": [{**GOOD, "id": f"t{i}"} for i in range(7)]})
    for number in range(5):
        clock.advance(60)
        await ticking.fire_due(shard)
        claimed = await claim_all(shard, number=number)
        ends = [
            failed(one, clock.now) if one.trigger == "t3" else succeeded(one, clock.now) for one in claimed
        ]
        await queue.finish(shard, ends)
        await ticking.refill(shard)
        clock.advance(1)
    path = "/api/workspaces/workspace-123/executions"
    seen: list[str] = []
    cursor = None
    while True:
        page = (await client.get(path, params={"limit": 4, **({"cursor": cursor} if cursor else {})})).json()
        assert page["count"] == len(page["executions"]) <= 4
        seen += [e["id"] for e in page["executions"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert len(seen) == len(set(seen)) == 35
    times = [int(id_.rsplit(":", 1)[1]) for id_ in seen]
    assert times == sorted(times, reverse=True)
    bad = (await client.get(path, params={"state": "failed"})).json()["executions"]
    assert {e["trigger_id"] for e in bad} == {"t3"}
    assert len(bad) == 5
    both = (await client.get(path, params={"trigger": "t2", "state": "succeeded"})).json()
    assert both["count"] == 5
    one = (await client.get(f"{path}/{bad[0]['id']}")).json()["execution"]
    assert one["state"] == "failed"
    assert one["attempts"][0]["status"] == 500
    assert one["attempts"][0]["error"]["kind"] == "status"
    for name in ("scheduled_at", "queued_at", "started_at", "finished_at"):
        assert one[name].endswith("Z")


async def test_open_executions_are_listed_with_their_state(
    client: httpx.AsyncClient, make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(max_concurrency=3)
    await client.post(PATH, json={"triggers": [{**GOOD, "id": f"t{i}"} for i in range(6)]})
    clock.advance(60)
    await ticking.fire_due(shard)
    running, retried = (await queue.claim(shard, "w", 1, 2)).executions
    await queue.finish(shard, [failed(retried, clock.now, "retry", 9000)])
    path = "/api/workspaces/workspace-123/executions"
    counts = {
        state: (await client.get(path, params={"state": state})).json()["count"]
        for state in ("queued", "running", "retrying")
    }
    assert counts == {"queued": 4, "running": 1, "retrying": 1}
    shown = (await client.get(f"{path}/{running.id}")).json()["execution"]
    assert (shown["state"], shown["worker"]) == ("running", "w")
    shown = (await client.get(f"{path}/{retried.id}")).json()["execution"]
    assert shown["next_attempt_at"] is not None
    assert len(shown["attempts"]) == 1


@pytest.mark.parametrize(
    "query",
    [
        "state=done",
        "limit=0",
        "limit=x",
        "limit=501",
        "limit=0000000019999",
        "cursor=%%%",
        "cursor=abc",
        "sort=x",
        "trigger=a b",
    ],
)
async def test_a_bad_query_is_refused(client: httpx.AsyncClient, query: str) -> None:
    response = await client.get(f"/api/workspaces/acme/executions?{query}")
    assert response.status_code == 400
    assert response.json()["errors"][0]["path"] in query


async def test_an_execution_of_another_workspace_is_not_found(
    client: httpx.AsyncClient, shard: Shard, clock: Clock
) -> None:
    await client.post(PATH, json=TWO)
    clock.advance(7200)
    await ticking.fire_due(shard)
    await ticking.refill(shard)
    (mine,) = (await client.get("/api/workspaces/workspace-123/executions?trigger=0")).json()["executions"]
    for path in (f"other/executions/{mine['id']}", "workspace-123/executions/nonsense"):
        assert (await client.get(f"/api/workspaces/{path}")).status_code == 404


@pytest.mark.parametrize("path", [f"{PATH}/", "/health/", "/docs/", "//evil.example/docs/"])
async def test_nobody_is_sent_to_where_the_host_says(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"http://evil.example{path}")
    assert response.status_code == 404
    assert "location" not in response.headers


@pytest.mark.parametrize("docs", ["public", "off"])
async def test_what_is_not_there_says_where_to_look(make_shard: ShardFactory, docs: str) -> None:
    async with client_of(make_shard(docs=docs)) as client:
        detail = (await refused(client.get("/"), 404, "not_found"))["detail"]
    assert ("/docs" in detail, "/openapi.json" in detail) == ((docs == "public"),) * 2


async def test_without_redis_the_api_answers_503_and_recovers() -> None:
    server = RedisServer(next(iter(redis_binaries().values())), "--appendonly", "yes")
    settings = Settings(redis_url=server.url())
    shard = Shard(connect(settings), settings)
    try:
        async with client_of(shard) as client:
            await client.post(PATH, json=TWO)
            server.process.kill()
            away = await client.get(PATH)
            assert (away.status_code, away.json()["code"]) == (503, "store_unavailable")
            assert away.headers["retry-after"] == "1"
            server.start()
            assert (await client.get(PATH)).json()["count"] == 2
    finally:
        await shard.redis.aclose()
        server.close()
