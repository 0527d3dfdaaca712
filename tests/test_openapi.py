"""The API's document: valid, complete, and held against the running API by hand and by schemathesis."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import jsonschema_rs
import msgspec
import pytest
import schemathesis
import uvicorn
from calls import client_of, store_key
from conftest import START, Clock, ShardFactory, eventually
from examples import ADMIN_KEY, BODIES, DOCUMENT, GUARDED, ONE, OPERATIONS, PLACES, path_of
from helpers import claim_all, define, failed, succeeded

from app.api.openapi import document_of
from app.auth.keys import new_key
from app.formats import FORMATS
from app.main import NOUNS, create_app
from app.outgoing import NamedSecret, Outgoing, SigningSecret
from app.store import Shard, Shards, connect, orders, outgoing, queue, ticking, triggers, workers
from app.store.shard import reply
from lab.redis_servers import redis_binaries

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent


def parts_of(value: Any) -> Iterator[dict[str, Any]]:
    """Every object in a document."""
    if isinstance(value, dict):
        yield value
        for one in value.values():
            yield from parts_of(one)
    elif isinstance(value, list):
        for one in value:
            yield from parts_of(one)


def test_the_document_is_valid_openapi() -> None:
    schemathesis.openapi.from_dict(DOCUMENT).validate()
    with pytest.raises(jsonschema_rs.ValidationError):
        schemathesis.openapi.from_dict({**DOCUMENT, "info": {}}).validate()


def test_every_reference_leads_somewhere() -> None:
    for part in parts_of(DOCUMENT):
        if "$ref" in part:
            _, kind, name = part["$ref"].removeprefix("#/").split("/")
            assert name in DOCUMENT["components"][kind]


def test_every_operation_says_what_it_does_and_its_name_is_its_own() -> None:
    declared = [operation for noun in NOUNS for operation in noun.operations]
    assert len(OPERATIONS) == len(declared)
    for _, _, operation in OPERATIONS.values():
        assert operation["summary"]
        assert all(one["description"] for one in operation.get("parameters", ()))


def test_answers_are_closed_and_none_is_empty() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    waiting = [
        one["schema"]
        for _, _, operation in OPERATIONS.values()
        for status, response in operation["responses"].items()
        if status < "400"
        for one in response["content"].values()
    ]
    waiting.append(schemas["Problem"])
    seen: list[Any] = []
    while waiting:
        schema = waiting.pop()
        if schema in seen:
            continue
        seen.append(schema)
        assert set(schema) - {"description"}, schema
        if "$ref" in schema:
            waiting.append(schemas[schema["$ref"].rpartition("/")[2]])
        if "properties" in schema:
            assert schema["additionalProperties"] is False
            assert schema["required"]
        waiting += [*schema.get("properties", {}).values(), *schema.get("anyOf", ())]
        waiting += [schema["items"]] if "items" in schema else []


def test_formats_of_our_own_are_explained() -> None:
    used = {part["format"] for part in parts_of(DOCUMENT) if isinstance(part.get("format"), str)}
    assert used - {"date", "date-time"} <= set(FORMATS)
    assert all(f"`{name}`" in DOCUMENT["info"]["description"] for name in FORMATS)


async def test_every_path_answers_options_head_and_405_with_the_methods_it_has(shard: Shard) -> None:
    async with client_of(shard) as client:
        for path, item in DOCUMENT["paths"].items():
            url = path.format(**PLACES)
            offered = await client.options(url)
            assert offered.status_code == 204
            methods = set(offered.headers["allow"].split(", "))
            assert methods - {"HEAD", "OPTIONS"} == {method.upper() for method in item}
            assert ("HEAD" in methods) == ("get" in item)
            refused = await client.request("TRACE", url)
            assert (refused.status_code, refused.json()["code"]) == (405, "method_not_allowed")
            assert refused.headers["allow"] == offered.headers["allow"]


async def test_head_has_the_length_of_get_and_no_body(shard: Shard) -> None:
    async with client_of(shard) as client:
        url = "/api/workspaces/acme/triggers"
        got, head = await client.get(url), await client.head(url)
    assert head.status_code == 200
    assert head.content == b""
    assert head.headers["content-length"] == str(len(got.content))


FIRST = START // 60_000 * 60_000 + 60_000  # the first slot of ONE


class Way(NamedTuple):
    """How an error is met."""

    headers: Mapping[str, str] = MappingProxyType({})
    body: Any = None  # instead of the usual one
    before: Any = None  # the body of the same call made before
    there: bool = False  # the trigger is there
    contended: bool = False  # somebody else changes the set whenever we are about to
    scene: str = ""  # what provoke() makes
    query: str = ""


AS_IT_IS, CONTENDED = Way(), Way(there=True, contended=True)
OTHER_REVISION, SAME_KEY = Way({"If-Match": '"7"'}), {"Idempotency-Key": "k"}
ENDED, ERASING, KEY_USED = Way(scene="ended"), Way(scene="erasing"), Way(SAME_KEY, scene="key used")
FULL_OF_RUNS = Way(scene="full of runs")

# What every operation can answer follows from what it takes; the rest is provoked here, one by one.
PROVOKED = {
    ("get_workspace", 404): AS_IT_IS,
    ("get_workspace_stats", 404): AS_IT_IS,
    ("put_workspace", 409): ERASING,
    ("patch_workspace", 404): AS_IT_IS,
    ("patch_workspace", 409): ERASING,
    ("erase_workspace", 404): Way(query="&confirm=acme"),
    ("erase_workspace", 409): AS_IT_IS,
    ("erase_workspace", 503): Way(query="&confirm=acme"),
    ("pause_workspace", 404): AS_IT_IS,
    ("resume_workspace", 404): AS_IT_IS,
    ("get_execution", 404): AS_IT_IS,
    ("list_trigger_executions", 404): AS_IT_IS,
    ("cancel_execution", 404): AS_IT_IS,
    ("cancel_execution", 409): ENDED,
    ("retry_execution", 404): AS_IT_IS,
    ("retry_execution", 409): ENDED,
    ("retry_execution", 422): KEY_USED,
    ("retry_dead_letters", 404): AS_IT_IS,
    ("retry_dead_letters", 409): FULL_OF_RUNS,
    ("retry_dead_letters", 422): KEY_USED,
    ("delete_dead_letter", 404): AS_IT_IS,
    ("delete_dead_letter", 409): ENDED,
    ("get_trigger_history", 404): AS_IT_IS,
    ("get_trigger_metrics", 404): AS_IT_IS,
    ("explain_trigger", 404): AS_IT_IS,
    ("replace_triggers", 409): CONTENDED,
    ("replace_triggers", 412): OTHER_REVISION,
    ("put_triggers", 409): CONTENDED,
    ("put_triggers", 412): OTHER_REVISION,
    ("delete_triggers", 409): CONTENDED,
    ("delete_triggers", 412): OTHER_REVISION,
    ("create_trigger", 409): Way(there=True),
    ("create_trigger", 412): OTHER_REVISION,
    ("get_trigger", 404): AS_IT_IS,
    ("put_trigger", 409): CONTENDED,
    ("put_trigger", 412): OTHER_REVISION,
    ("patch_trigger", 404): AS_IT_IS,
    ("patch_trigger", 409): CONTENDED,
    ("patch_trigger", 412): OTHER_REVISION,
    ("delete_trigger", 404): AS_IT_IS,
    ("delete_trigger", 409): CONTENDED,
    ("delete_trigger", 412): OTHER_REVISION,
    ("pause_trigger", 404): AS_IT_IS,
    ("resume_trigger", 404): AS_IT_IS,
    ("run_trigger", 404): AS_IT_IS,
    ("run_trigger", 409): FULL_OF_RUNS,
    ("run_trigger", 422): Way(SAME_KEY, before={"payload": 2}, there=True),
    ("backfill_trigger", 404): AS_IT_IS,
    ("backfill_trigger", 422): Way(
        SAME_KEY, before={**BODIES["backfill_trigger"], "overlap_policy": "allow"}, there=True
    ),
    ("get_next_runs", 404): AS_IT_IS,
    ("change_triggers", 409): Way(
        body={"action": "delete", "ids": ["nightly-report"]}, there=True, contended=True
    ),
    ("change_triggers", 412): OTHER_REVISION,
    ("change_triggers", 422): Way(SAME_KEY, before={**BODIES["change_triggers"], "note": "x"}, there=True),
    ("get_revision", 404): AS_IT_IS,
    ("diff_revisions", 404): AS_IT_IS,
    ("add_signing_secret", 409): Way(scene="signed twice"),
    ("get_signing_secret", 404): AS_IT_IS,
    ("delete_signing_secret", 404): AS_IT_IS,
    ("delete_signing_secret", 409): Way(scene="signed twice", contended=True),
    ("put_secret", 409): Way(contended=True),
    ("delete_secret", 404): AS_IT_IS,
    ("delete_secret", 409): Way(scene="secret used"),
    ("put_egress", 409): Way(contended=True),
    ("delete_egress", 409): ERASING,
    ("create_key", 409): Way(scene="full"),
    ("delete_key", 404): AS_IT_IS,
    ("roll_back", 404): AS_IT_IS,
    ("roll_back", 409): CONTENDED,
    ("roll_back", 412): Way({"If-Match": '"7"'}, there=True),
}


class Contended(Shard):
    """A shard on which somebody else changes the set whenever we are about to."""

    contended = False

    async def run(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if self.contended and name in ("swap_triggers", "edit_triggers"):
            workspace = args[0] if name == "swap_triggers" else args[1]
            meta = self.keys.of(str(workspace), "meta")
            await reply(self.redis.hset(meta, "serial", f"not {args}"))
        if self.contended and name == "change_outgoing":
            await self.redis.zadd(self.keys.outgoing, {"acme": int(args[1]) + 1})
        return await super().run(name, *args, **kwargs)


async def provoke(shard: Shard, scene: str) -> None:
    """Make what an error needs: the execution of ONE's first slot, or a workspace that is going."""
    if scene == "erasing":
        await reply(shard.redis.hset(shard.keys.of("acme", "meta"), "erasing", "1"))
    elif scene in ("ended", "key used", "full of runs"):
        await triggers.replace(shard, "acme", [("nightly-report", define())])
        await ticking.fire_due(clocked(shard, FIRST))
        (execution,) = await claim_all(clocked(shard, FIRST))
        end = succeeded if scene == "ended" else failed
        await queue.finish(shard, [end(execution, FIRST)])
    if scene == "signed twice":
        secrets = tuple(
            SigningSecret(id_, b"s" * 24, START) for id_ in (PLACES["signing_secret_id"], "other")
        )
        await outgoing.change(shard, "acme", lambda _: Outgoing(signing=secrets))
    if scene == "secret used":
        secret = NamedSecret("hunter2", START, START)
        await outgoing.change(shard, "acme", lambda _: Outgoing(secrets={PLACES["secret_name"]: secret}))
        using = define(url=f"http://127.0.0.1:9/{{{{secret.{PLACES['secret_name']}}}}}")
        await triggers.replace(shard, "acme", [("t", using)])
    if scene == "full":
        for _ in range(shard.settings.max_api_keys):
            await store_key(shard)
    if scene == "full of runs":
        most = str(shard.settings.max_kept_bytes)
        await reply(shard.redis.hset(shard.keys.of("acme", "meta"), "open_bytes", most))
    if scene == "key used":
        order = orders.Order("nightly-report", FIRST)
        await orders.make(shard, "acme", "run", [order], idempotency_key="k", asked=b"another call")


async def credentials(shard: Shard, name: str, status: int) -> str:
    """What to authenticate with for an answer of that status."""
    if status == 403:
        return await store_key(shard)
    if status == 404 and (name, status) not in PROVOKED:
        return await store_key(shard, "admin", "elsewhere")
    return new_key()[1] if status == 503 else "" if status == 401 else ADMIN_KEY


def clocked(shard: Shard, now: int) -> Shard:
    """The same shard at another time."""
    return Shard(shard.redis, shard.settings, now=lambda: now)


def documented(document: Mapping[str, Any] = DOCUMENT) -> list[tuple[str, int]]:
    return [
        (operation["operationId"], int(status))
        for item in document["paths"].values()
        for operation in item.values()
        for status in operation["responses"]
        if status >= "400"
    ]


async def never_complete() -> AsyncIterator[bytes]:
    yield b"{"
    await asyncio.Event().wait()


def test_each_documented_error_has_its_request_here() -> None:
    """What authentication and rate limits add is provoked in the same way for every operation."""
    own = documented(document_of(NOUNS))
    assert {one for one in own if one[1] not in (400, 403, 408, 413, 503)} == {
        one for one in PROVOKED if one[1] != 503
    }


@pytest.mark.parametrize(("name", "status"), documented())
async def test_every_documented_error_can_be_met(redis_url: str, name: str, status: int) -> None:
    method, url = path_of(name)
    settings = msgspec.structs.replace(
        GUARDED,
        redis_url="unix:///nowhere" if status == 503 else redis_url,
        max_body_bytes=500,
        max_api_keys=2,
        rate_limit_key=1 if status == 429 else 100,
        receive_seconds=0.01 if status == 408 else 30,
    )
    shard = Contended(connect(settings), settings, now=lambda: START)
    way = PROVOKED.get((name, status), AS_IT_IS)
    body: str | AsyncIterator[bytes] | None = None
    if "requestBody" in OPERATIONS[name][2]:
        body = json.dumps(way.body or BODIES[name]) if status != 413 else " " * 501
        if status == 408:
            body = never_complete()
    url += "&nonsense=1" if status == 400 else way.query
    if status == 403 and any(one["name"] == "reveal" for one in OPERATIONS[name][2].get("parameters", ())):
        url += "&reveal=true"
    if way.scene in ("ended", "key used"):
        url = url.replace(PLACES["execution_id"], f"acme:nightly-report:{FIRST}")
    try:
        await provoke(shard, way.scene)
        async with client_of(shard) as client:
            client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
            if status == 429:
                await client.get("/api/timezones")
            if way.there:
                assert (
                    await client.put("/api/workspaces/acme/triggers", json={"triggers": [ONE]})
                ).is_success
            if way.before is not None:
                assert (await client.request(method, url, json=way.before, headers=way.headers)).is_success
            shard.contended = way.contended
            client.headers["authorization"] = f"Bearer {await credentials(shard, name, status)}"
            response = await client.request(method, url, content=body, headers=way.headers)
    finally:
        await shard.redis.aclose()
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    described = OPERATIONS[name][2]["responses"][str(status)]
    if "$ref" in described:
        described = DOCUMENT["components"]["responses"][described["$ref"].rpartition("/")[2]]
    schema = described["content"]["application/problem+json"]["schema"]
    jsonschema_rs.validate({**schema, "components": DOCUMENT["components"]}, response.json())


METHODS = sorted({method for method, _, _ in OPERATIONS.values()})


@pytest.mark.parametrize("redis_server", sorted(redis_binaries())[-1:], indirect=True)  # it takes its time
@pytest.mark.parametrize(
    ("phases", "methods"),
    [
        ("examples,fuzzing,stateful", METHODS),
        ("coverage", ["GET"]),
        ("coverage", ["POST"]),
        ("coverage", [method for method in METHODS if method not in ("GET", "POST")]),
    ],
    ids=["examples-and-fuzzing", "coverage-of-get", "coverage-of-post", "coverage-of-the-others"],
)
async def test_schemathesis_finds_nothing(
    make_shard: ShardFactory, clock: Clock, tmp_path: Path, phases: str, methods: list[str]
) -> None:
    """A real server and Redis, every check, also that there is nothing without the key; the document's
    examples meet an execution that is there. In parts that can run side by side.
    """
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, max_api_keys=100_000)
    async with client_of(shard) as client:
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        await client.post("/api/workspaces/acme/triggers", json={"triggers": [ONE]})
    clock.advance(60)
    await ticking.fire_due(shard)
    (execution,) = await claim_all(shard)
    assert execution.id == f"acme:nightly-report:{START + 40_000}"
    await queue.finish(shard, [failed(execution, clock.now)])
    await workers.note(shard, "w", workers.Facts(name="w", version="1", started=START, capacity=1, running=0))
    config = uvicorn.Config(create_app(shard.settings, Shards([shard])), port=0, log_config=None)
    server = uvicorn.Server(config)
    serving = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started)
        port = server.servers[0].sockets[0].getsockname()[1]
        told = await run_schemathesis(
            f"http://127.0.0.1:{port}/openapi.json",
            tmp_path,
            ["--phases", phases, *(f"--include-method={method}" for method in methods)],
        )
    finally:
        server.should_exit = True
        await serving
    assert f"Tested: {sum(method in methods for method, _, _ in OPERATIONS.values())}\n" in told


async def run_schemathesis(url: str, folder: Path, options: list[str]) -> str:
    """Its report; fail with that unless it is content. ``folder`` is for what it keeps."""
    always = ["--checks", "all", "--max-examples", "10", "--generation-deterministic", "--no-color"]
    (folder / "schemathesis.toml").write_text(f'[auth.openapi.bearer]\nbearer = "{ADMIN_KEY}"\n')
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "schemathesis_hooks",
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
    }
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "schemathesis"),
        "run",
        url,
        *always,
        *options,
        env=environment,
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        told, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, told.decode()
    return told.decode()


async def test_the_page_is_one_file_whose_links_lead_somewhere(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY, rate_limit_key=1_000_000)
    async with client_of(shard) as client:
        response = await client.get("/docs")
        served = (await client.get("/openapi.json")).json()
    assert served == DOCUMENT
    assert response.headers["content-type"] == "text/html; charset=utf-8"
    page = response.text
    assert not re.search(r"<(script|link|img|iframe)|@import|url\(", page)
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]+)"', page)) <= set(ids)
    assert set(OPERATIONS) <= set(ids)
    assert {f"type-{name}" for name in DOCUMENT["components"]["schemas"]} <= set(ids)
