"""Who may do what: every operation, with every scope, in their own workspace and in a foreign one."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from calls import ACME, bearer, client_of, key_for, minutes, ok, refused, store_set
from conftest import Clock, ShardFactory
from examples import ADMIN_KEY, BODIES, OPERATIONS, path_of
from helpers import define

from app.auth.callers import SCOPES
from app.store import Shard, api_keys, catalog, workspaces

pytestmark = pytest.mark.anyio

# Written by hand: the least scope that each operation is allowed with. A new operation needs its row.
ALLOWED_FROM: dict[str, str] = {
    "health": "nobody in particular",
    "live": "nobody in particular",
    "ready": "nobody in particular",
    "detailed_health": "read for all workspaces",
    "list_workspaces": "read",
    "get_workspace": "read",
    "get_workspace_stats": "read",
    "get_stats": "read",
    "list_triggers": "read",
    "get_trigger": "read",
    "get_next_runs": "read",
    "get_trigger_metrics": "read",
    "explain_trigger": "read",
    "list_revisions": "read",
    "get_revision": "read",
    "diff_revisions": "read",
    "list_executions": "read",
    "list_all_executions": "read",
    "list_trigger_executions": "read",
    "get_execution": "read",
    "get_execution_stats": "read",
    "get_history": "read",
    "get_history_stats": "read",
    "get_trigger_history": "read",
    "get_ledger": "read",
    "validate_cron": "read",
    "list_presets": "read",
    "list_timezones": "read",
    "list_signing_secrets": "read",
    "list_secrets": "read",
    "get_egress": "read",
    "pause_workspace": "operate",
    "resume_workspace": "operate",
    "pause_trigger": "operate",
    "resume_trigger": "operate",
    "run_trigger": "operate",
    "backfill_trigger": "operate",
    "change_triggers": "operate",  # deleting, enabling and disabling: write, see below
    "cancel_execution": "operate",
    "retry_execution": "operate",
    "retry_dead_letters": "operate",
    "delete_dead_letter": "operate",
    "delete_dead_letters": "operate",
    "put_workspace": "write",
    "patch_workspace": "write",
    "replace_triggers": "write",
    "put_triggers": "write",
    "delete_triggers": "write",
    "create_trigger": "write",
    "put_trigger": "write",
    "patch_trigger": "write",
    "delete_trigger": "write",
    "roll_back": "write",
    "get_signing_secret": "write",
    "add_signing_secret": "write",
    "delete_signing_secret": "write",
    "put_secret": "write",
    "delete_secret": "write",
    "erase_workspace": "admin",
    "create_key": "admin",
    "list_keys": "admin",
    "delete_key": "admin",
    "get_audit": "admin",
    "get_general_audit": "admin for all workspaces",
    "put_egress": "admin for all workspaces",
    "delete_egress": "admin for all workspaces",
    "get_system": "read",
    "resume_system": "admin for all workspaces",
}
ORDER = [
    "nobody in particular",
    "read",
    "operate",
    "write",
    "admin",
    "read for all workspaces",
    "admin for all workspaces",
]


def guarded(make_shard: ShardFactory, **settings: Any) -> Shard:
    return make_shard(auth="tokens", admin_key=ADMIN_KEY, **settings)


def test_each_operation_has_its_row() -> None:
    assert set(ALLOWED_FROM) == set(OPERATIONS)
    told = {name: one.get("x-scope", "nobody in particular") for name, (_, _, one) in OPERATIONS.items()}
    assert told == {name: scope.partition(" for")[0] for name, scope in ALLOWED_FROM.items()}


@pytest.mark.parametrize("name", ALLOWED_FROM)
async def test_an_operation_is_allowed_and_refused_as_the_table_says(
    make_shard: ShardFactory, name: str
) -> None:
    shard = guarded(make_shard)
    await store_set(shard, "other", **{"nightly-report": "* * * * *"})
    method, own = path_of(name)
    foreign = own.replace("/acme", "/other").replace("acme:", "other:")
    body = BODIES.get(name)
    least = ORDER.index(ALLOWED_FROM[name])
    async with client_of(shard) as client:

        async def call(url: str, **headers: str) -> httpx.Response:
            await store_set(shard, "acme", **{"nightly-report": "* * * * *"})
            return await client.request(method, url, json=body, headers=headers)

        for headers in ({}, bearer("nonsense"), {"authorization": f"Basic {ADMIN_KEY}"}):
            response = await call(own, **headers)
            assert (response.status_code == 401) == (least > 0), response.text
            assert ("www-authenticate" in response.headers) == (least > 0)
        for scope in SCOPES:
            key = await key_for(client, scope, "acme", "new")
            response = await call(own, **bearer(key))
            if ORDER.index(scope) >= least:
                assert response.status_code not in (401, 403), response.text
                assert "There is no workspace 'acme'." not in response.text
                assert response.status_code < 500
            else:
                assert (response.status_code, response.json()["code"]) == (403, "forbidden")
                needed = ALLOWED_FROM[name].partition(" for")[0]
                assert f'scope="{needed}"' in response.headers["www-authenticate"]
            if foreign != own:
                for url in (foreign, foreign.replace("/other", "/nowhere")):  # nothing tells them apart
                    problem = await refused(call(url, **bearer(key)), 404, "not_found")
                    workspace = "other" if url == foreign else "nowhere"
                    assert problem["detail"] == f"There is no workspace {workspace!r}."
        response = await call(own, **bearer(await key_for(client, "admin", "*")))
        assert response.status_code not in (401, 403), response.text
    assert [one.id for one in (await catalog.read(shard, "other")).triggers] == ["nightly-report"]
    untouched = await workspaces.get(shard, "other")
    assert untouched is not None
    assert (untouched.revision, untouched.pause) == (1, None)


@pytest.mark.parametrize("action", ["delete", "enable", "disable", "run", "pause", "resume"])
async def test_a_bulk_action_needs_what_the_single_one_does(make_shard: ShardFactory, action: str) -> None:
    shard = guarded(make_shard)
    await store_set(shard, one="* * * * *")
    body = {"action": action, "ids": ["one"]}
    changes = action in ("delete", "enable", "disable")
    async with client_of(shard) as client:
        operator, writer = await key_for(client, "operate", "acme"), await key_for(client, "write", "acme")
        response = await client.post(f"{ACME}/triggers/bulk", json=body, headers=bearer(operator))
        assert response.status_code == (403 if changes else 200)
        await ok(client.post(f"{ACME}/triggers/bulk", json=body, headers=bearer(writer)))


@pytest.mark.parametrize(
    ("name", "within", "beyond"),
    [
        ("max_concurrency", 10, [11, 0]),
        ("max_rate", 5.0, [5.1, 0]),
        ("keep_succeeded_seconds", 86_400, [86_401]),
        ("keep_succeeded", 0, [101]),
        ("keep_failed", 1000, [1001]),
    ],
)
async def test_only_an_admin_of_all_workspaces_gives_more_than_the_deployment(
    make_shard: ShardFactory, name: str, within: float, beyond: list[float]
) -> None:
    shard = guarded(make_shard, max_rate=5)
    async with client_of(shard) as client:
        own = bearer(await key_for(client, "admin", "acme"))

        def put(value: float) -> Any:
            return client.put(ACME, json={name: value}, headers=own)

        def patch(value: float | None) -> Any:
            return client.patch(ACME, json={name: value}, headers=own)

        for value in beyond:  # a workspace that there is not yet, too
            await refused(put(value), 403, "forbidden")
        assert await workspaces.get(shard, "acme") is None
        await ok(put(within), 201)
        for value in beyond:
            await refused(put(value), 403, "forbidden")
            await refused(patch(value), 403, "forbidden")
            await ok(client.patch(ACME, json={name: value}, headers=bearer(ADMIN_KEY)))
            await ok(put(value))  # what was given may be repeated
            await ok(patch(within))
        await ok(patch(None))


async def test_who_may_run_a_trigger_only_sends_no_secret_that_it_does_not_use(
    make_shard: ShardFactory,
) -> None:
    shard = guarded(make_shard)
    async with client_of(shard) as client:
        operator, writer = await key_for(client, "operate", "acme"), await key_for(client, "write", "acme")
        for name in ("own", "other"):
            url = f"{ACME}/secrets/{name}"
            await ok(client.put(url, json={"value": "hunter2"}, headers=bearer(writer)), 201)
        await store_set(shard, one=define(headers={"authorization": "{{secret.own}}"}))

        async def run(payload: str, key: str) -> httpx.Response:
            body = {"payload": {"x": payload}}
            return await client.post(f"{ACME}/triggers/one/run", json=body, headers=bearer(key))

        await ok(run("{{secret.own}} {{execution.id}}", operator), 202)
        for name in ("other", "missing"):  # nor does the answer tell which there are
            await refused(run(f"{{{{ secret.{name} }}}}", operator), 403, "forbidden")
        await ok(run("{{secret.other}}", writer), 202)


@pytest.mark.parametrize(
    ("method", "path"), [("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("DELETE", "")]
)
async def test_the_id_of_a_foreign_execution_opens_nothing(
    make_shard: ShardFactory, clock: Clock, method: str, path: str
) -> None:
    """The path names one's own workspace, the execution's id another one."""
    shard = guarded(make_shard)
    await store_set(shard, "acme", one="* * * * *")
    await store_set(shard, "other", one="* * * * *")
    failed = [one.id for _ in range(4) for one in await minutes(shard, clock, what="failed")]
    foreign = next(id_ for id_ in failed if id_.startswith("other:"))
    async with client_of(shard) as client:
        await ok(client.get(f"/api/workspaces/other/executions/{foreign}", headers=bearer(ADMIN_KEY)))
        headers = bearer(await key_for(client, "admin", "acme"))
        url = f"{ACME}/executions/{foreign}{path}"
        await refused(client.request(method, url, headers=headers), 404, "not_found")


async def test_lists_over_all_workspaces_have_those_that_the_caller_may_see(
    make_shard: ShardFactory,
) -> None:
    shard = guarded(make_shard)
    for workspace in ("acme", "beta", "other"):
        await store_set(shard, workspace, one="* * * * *")
    async with client_of(shard) as client:
        headers = bearer(await key_for(client, "read", "beta", "acme", "not-yet"))

        async def get(path: str) -> Any:
            return await ok(client.get(path, headers=headers))

        for workspace in ("acme", "other"):
            run = f"/api/workspaces/{workspace}/triggers/one/run"
            await ok(client.post(run, headers=bearer(ADMIN_KEY)), 202)
        assert [one["id"] for one in (await get("/api/workspaces"))["workspaces"]] == ["acme", "beta"]
        first = await get("/api/workspaces?limit=1")
        assert [one["id"] for one in first["workspaces"]] == ["acme"]
        second = await get(f"/api/workspaces?limit=1&cursor={first['next_cursor']}")
        assert [one["id"] for one in second["workspaces"]] == ["beta"]
        assert (await get("/api/stats"))["workspaces"] == 2
        executions = (await get("/api/executions"))["executions"]
        assert [one["workspace_id"] for one in executions] == ["acme"]
        assert (await get("/api/executions?workspace=other"))["executions"] == []


async def test_an_admin_of_some_workspaces_gives_sees_and_deletes_keys_of_those_only(
    make_shard: ShardFactory,
) -> None:
    shard = guarded(make_shard)
    async with client_of(shard) as client:
        everywhere = await key_for(client, "read", "*")
        foreign = await key_for(client, "read", "acme", "other")
        client.headers.update(bearer(await key_for(client, "admin", "acme", "beta")))
        for reach in (["*"], ["other"], ["acme", "other"]):
            body = {"name": "more", "scope": "admin", "workspaces": reach}
            await refused(client.post("/api/keys", json=body), 403, "forbidden")
        given = await ok(
            client.post("/api/keys", json={"name": "x", "scope": "admin", "workspaces": ["beta"]}), 201
        )
        listed = (await ok(client.get("/api/keys")))["keys"]
        assert sorted(one["workspaces"] for one in listed) == [["acme", "beta"], ["beta"]]
        for key in (everywhere, foreign):
            await refused(client.delete(f"/api/keys/{key.split('_')[1]}"), 404, "not_found")
        await ok(client.delete(f"/api/keys/{given['id']}"))
        await refused(client.get("/api/audit"), 403, "forbidden")
    assert len(await api_keys.all_keys(shard)) == 3


@pytest.mark.parametrize(("docs", "without", "with_key"), [("public", 200, 200), ("authenticated", 401, 200)])
@pytest.mark.parametrize("path", ["/docs", "/openapi.json"])
async def test_the_documentation_has_a_switch(
    make_shard: ShardFactory, path: str, docs: str, without: int, with_key: int
) -> None:
    async with client_of(guarded(make_shard, docs=docs)) as client:
        page = await client.get("/docs", headers=bearer(ADMIN_KEY))
        assert "Authorization: Bearer $CRONSPACE_KEY" in page.text.replace("&quot;", '"')
        assert (await client.get(path)).status_code == without
        assert (await client.get(path, headers=bearer(ADMIN_KEY))).status_code == with_key
        assert (await client.get("/health")).status_code == 200
    async with client_of(guarded(make_shard, docs="off")) as client:
        assert (await client.get(path, headers=bearer(ADMIN_KEY))).status_code == 404


async def test_who_is_refused_is_in_the_log_without_what_they_tried(
    make_shard: ShardFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async with client_of(guarded(make_shard)) as client:
        key = await key_for(client, "read", "acme")
        await refused(client.put(ACME, json={}, headers=bearer(key)), 403, "forbidden")
        assert f"PUT {ACME}: refused key '{key.split('_')[1]}' from 127.0.0.1" in caplog.text
        await refused(client.get("/api/stats", headers=bearer(f"{key}x")), 401, "unauthorized")
        assert "GET /api/stats: refused somebody from 127.0.0.1" in caplog.text
        assert key not in caplog.text
        assert key.split("_", 2)[2] not in caplog.text


async def test_without_authentication_everybody_may_do_everything(make_shard: ShardFactory) -> None:
    for auth in ("none", ""):
        async with client_of(make_shard(auth=auth, admin_key=ADMIN_KEY)) as client:
            await ok(client.get("/api/keys"))
            document = await ok(client.get("/openapi.json"))
        assert "securitySchemes" not in document["components"]
        assert not any(
            "401" in one["responses"] for item in document["paths"].values() for one in item.values()
        )
