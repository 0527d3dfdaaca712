"""The pages are true: their calls run, their answers are real, and what they name exists."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, get_args

import pytest
import redis
import uvicorn
from calls import client_of
from conftest import ShardFactory, eventually
from documents import PAGES, ROOT, anchors_of, blocks_of, prose_of, tables_of
from helpers import define
from starlette.types import ASGIApp, Receive, Scope, Send

from app.api.openapi import document_of
from app.clock import from_ms, parse_moment
from app.config import HELP, RESERVED, env_of
from app.declared.inputs import TriggerInput
from app.main import NOUNS, create_app
from app.schedule import schedule_of
from app.schedule.zones import load_zone
from app.store import Shard, Shards
from app.wording import Code
from lab.redis_servers import redis_binaries
from workers.transport import Transport
from workers.worker import Worker

pytestmark = pytest.mark.anyio
one_redis = pytest.mark.parametrize("redis_server", sorted(redis_binaries())[:1], indirect=True)

DOCUMENT = document_of(NOUNS)
OPERATIONS = {
    (method.upper(), path): operation["operationId"]
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
API, GUARANTEES, SCHEDULES, TROUBLE = (
    ROOT / f"docs/{name}.md" for name in ("api", "guarantees", "schedules", "troubleshooting")
)
RUNNING = [page for page in PAGES if any(block.runs for block in blocks_of(page))]

# In the place of curl: the same call, with its status noted.
PRELUDE = """
set -euo pipefail
curl() {
  local body="$FOLDER/body.$BASHPID"
  command curl -o "$body" -w '%{http_code}\\n' "$@" > "$body.status"
  sed "s/^/$BLOCK /" "$body.status" >> "$FOLDER/calls"
  cat "$body"
}
"""


def name_of(page: Path) -> str:
    return page.name


Calls = list[tuple[str, str]]


@asynccontextmanager
async def everything(shard: Shard, calls: Calls) -> AsyncIterator[int]:
    """API, worker and echo as `cronspace dev` has them; gives the port, and notes the calls of the API."""
    app = create_app(shard.settings, Shards([shard]))

    async def noting(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            calls.append((scope["method"], scope["path"]))
        await app(scope, receive, send)

    api: ASGIApp = noting
    server = uvicorn.Server(uvicorn.Config(api, port=0, log_config=None))
    settings = shard.settings
    worker = Worker(shard, Transport(settings.snippet_bytes, settings.max_response_bytes, settings.max_jobs))
    tasks = [asyncio.create_task(server.serve()), asyncio.create_task(worker.main())]
    try:
        await eventually(lambda: server.started)
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        worker.stop()
        await asyncio.gather(*tasks)
        await worker.close()


@one_redis
@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
@pytest.mark.parametrize("page", RUNNING, ids=name_of)
async def test_a_pages_calls_run_from_top_to_bottom(
    page: Path, make_shard: ShardFactory, tmp_path: Path
) -> None:
    blocks = blocks_of(page)
    script = [PRELUDE]
    for number, block in enumerate(blocks):
        if block.runs:
            script += [f"BLOCK={number}; exec > {tmp_path}/{number}", block.text]
    calls: Calls = []
    async with everything(make_shard(real_time=True, echo=True), calls) as port:
        text = "\n".join(script).replace("localhost:3000", f"127.0.0.1:{port}")
        process = await asyncio.create_subprocess_exec(
            "bash", "-c", text, env={"PATH": "/usr/local/bin:/usr/bin:/bin", "FOLDER": str(tmp_path)}
        )
        try:
            code = await asyncio.wait_for(process.wait(), 60)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    printed = ""
    for number, block in enumerate(blocks):
        where = f"{page.name}:{block.line}"
        if block.runs:
            assert (tmp_path / str(number)).exists(), f"nothing ran from {where} on: exit code {code}"
            printed = (tmp_path / str(number)).read_text()
        elif block.language == "output":
            assert printed.strip() == block.text.strip().replace("localhost:3000", f"127.0.0.1:{port}"), where
        elif block.language == "jsonc":
            missing = {name for name in block.members if f'"{name}":' not in printed}
            assert not missing, (where, printed)
    for line in (tmp_path / "calls").read_text().splitlines():
        number, status = line.split()
        block = blocks[int(number)]
        printed = (tmp_path / number).read_text()
        assert status == block.status or (block.status is None and status[0] == "2"), (
            f"{page.name}:{block.line} answered {status}: {printed}"
        )
    assert code == 0
    if page == API:
        made = {OPERATIONS.get((method, template_of(path))) for method, path in calls}
        assert set(OPERATIONS.values()) - made == set(), "operations without a call"


def template_of(path: str) -> str:
    """The path of the document that a call's path is an instance of; words go before parameters."""
    fitting = [
        template for template in DOCUMENT["paths"] if re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path)
    ]
    return min(fitting, key=lambda template: template.count("{"), default="")


def test_every_operation_has_its_heading_in_the_order_of_the_document() -> None:
    headings = re.findall(r"^### `(\w+)`$", prose_of(API), re.M)
    assert headings == list(OPERATIONS.values())


@one_redis
@pytest.mark.parametrize("page", PAGES, ids=name_of)
async def test_triggers_on_a_page_are_accepted(page: Path, shard: Shard) -> None:
    for block in blocks_of(page):
        if block.language == "json":
            body = block.text if '"triggers":' in block.text else f'{{"triggers": [{block.text}]}}'
            async with client_of(shard) as client:
                answer = await client.post("/api/workspaces/docs/triggers?dry_run=true", content=body)
            assert answer.status_code == 200, f"{page.name}:{block.line}: {answer.text}"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose_of(page)):
        if not link.startswith(("http://", "https://")):
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not anchor or anchor in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_test_that_a_page_names_exists(page: Path) -> None:
    for file, name in re.findall(r"`(test_\w+\.py)(?:::(test_\w+))?`", prose_of(page)):
        source = (ROOT / "tests" / file).read_text()
        assert f"def {name}(" in source, f"{file}::{name}"


def test_each_promise_names_its_tests() -> None:
    promises = [row for row in tables_of(GUARANTEES) if row != ["promise", "tests"]]
    assert len(promises) > 30
    for promise, tests in promises:
        assert re.search(r"`test_\w+\.py::test_\w+`", tests), promise


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_calls_that_a_page_names_exist(page: Path) -> None:
    """A call is written as `GET …/triggers/{id}`, where … stands for /api/workspaces/{id}."""
    known = {(method, re.sub(r"{\w+}", "{}", path)) for method, path in OPERATIONS}
    text = prose_of(page)
    if page.name == "from-other-schedulers.md":
        text = "\n".join(row[-1] for row in tables_of(page))  # what is ours
    for method, path in re.findall(r"`(GET|POST|PUT|PATCH|DELETE) ([^`?\s]+)", text):
        found = re.sub(r"{\w+}", "{}", path.replace("…", "/api/workspaces/{}"))
        assert (method, found) in known, f"{method} {path}"


def test_every_field_and_setting_of_a_page_is_there_and_every_field_is_on_a_page() -> None:
    text = "".join(prose_of(page) for page in PAGES)
    missing = {name for name in TriggerInput.__struct_fields__ if f"`{name}`" not in text}
    assert not missing
    settings = {env_of(name) for name in HELP} | RESERVED
    assert set(re.findall(r"\bCRONSPACE_[A-Z_]+\b", text)) <= settings


def test_what_explain_finds_is_told_by_the_page_for_trouble_as_it_is_called() -> None:
    section = prose_of(TROUBLE).partition("## A trigger does not fire")[2].partition("\n## ")[0]
    told = {
        code for row in re.findall(r"^\|([^|]+)\|", section, re.M) for code in re.findall(r"`(\w+)`", row)
    }
    assert len(told) > 10
    assert told - {"explain"} <= set(get_args(Code))


def test_the_nights_in_which_clocks_change_are_as_told() -> None:
    berlin = load_zone("Europe/Berlin")
    tables = re.split(r"\*\*A day in (?:spring|autumn)\*\*", SCHEDULES.read_text())[1:]
    for night, table in zip(("2026-03-29", "2026-10-25"), tables, strict=True):
        begin, end = (parse_moment(f"{night}T{time}", berlin) for time in ("00:00:00", "23:59:59"))
        rows = re.findall(r"^\| `([^`]+)` \| (?:`(.*)`)? ?\| (.+) \|$", table.split("\n\n")[1], re.M)
        assert len(rows) == 6
        for cron, policy, told in rows:
            chosen = json.loads(policy or "{}")
            definition = define(
                cron,
                timezone="Europe/Berlin",
                dst_gap=chosen.get("gap", ""),
                dst_repeat=chosen.get("repeat", ""),
            )
            slots = schedule_of(definition, "acme", "0", 0).slots(begin - 1, 0, end)
            shown = [from_ms(slot, berlin).isoformat(timespec="minutes") for slot in slots]
            local = " ".join(text.partition("T")[2] for text in shown)
            listed = " ".join(re.findall(r"\d\d:\d\d[+]\d\d:\d\d", told))
            assert listed in local if "…" in told else listed == local, (night, cron, local)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_python_on_a_page_compiles(page: Path) -> None:
    for block in blocks_of(page):
        if block.language == "python":
            compile(block.text, f"{page.name}:{block.line}", "exec")


def receiver(which: str) -> dict[str, Any]:
    """What the receiver on the page of the guarantees defines."""
    texts = [block.text for block in blocks_of(GUARANTEES) if block.language == "python"]
    (text,) = [text for text in texts if which in text]
    names: dict[str, Any] = {}
    exec(compile(text, GUARANTEES.name, "exec"), names)
    return names


def test_a_receiver_that_deduplicates_does_the_work_once(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "database")
    names = receiver("import sqlite3")
    names["prepare"](database)
    for id_ in ("a:b:1", "a:b:1", "a:b:2"):
        assert names["receive"](database, id_, {"amount": 5}) == 200
    with pytest.raises(KeyError):  # the work fails, so its id is not noted
        names["receive"](database, "a:b:3", {})
    assert names["receive"](database, "a:b:3", {"amount": 7}) == 200
    assert database.execute("SELECT amount FROM bookings").fetchall() == [(5,), (5,), (7,)]
    database.close()


@one_redis
def test_a_receiver_with_redis_does_the_work_once(redis_url: str) -> None:
    receive = receiver("import redis")["receive"]
    done: list[str] = []
    with redis.Redis.from_url(redis_url) as client:

        def work(body: str) -> None:
            assert receive(client, "a:b:1", body, work) == 503  # the same request comes meanwhile
            done.append(body)

        assert [receive(client, "a:b:1", "body", work) for _ in range(2)] == [200, 200]
        with pytest.raises(ZeroDivisionError):  # the work fails, so it is done by the next attempt
            receive(client, "a:b:2", "body", lambda body: 1 / 0)
        assert receive(client, "a:b:2", "other", done.append) == 200
    assert done == ["body", "other"]
