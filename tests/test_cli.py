"""The client commands: real processes that speak to a real API."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import pytest
import uvicorn
from conftest import ShardFactory, eventually
from helpers import define

from app.__main__ import main
from app.main import create_app
from app.store import Shard, Shards, triggers, witness, workspaces

pytestmark = pytest.mark.anyio

ADMIN = "an-admin-key-of-the-tests-0123456789"


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Done]]


@asynccontextmanager
async def serving(shard: Shard) -> AsyncIterator[Command]:
    """Commands against an API on a shard: ``await command("keys", "list", key=…, stdin=…)``."""
    server = uvicorn.Server(
        uvicorn.Config(create_app(shard.settings, Shards([shard])), port=0, log_config=None)
    )
    task = asyncio.create_task(server.serve())

    async def command(
        *argv: str, key: str = ADMIN, stdin: str = "", stdout: int = asyncio.subprocess.PIPE
    ) -> Done:
        port = server.servers[0].sockets[0].getsockname()[1]
        environ = {**os.environ, "CRONSPACE_URL": f"http://127.0.0.1:{port}", "CRONSPACE_KEY": key}
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app",
            *argv,
            env=environ,
            stdin=asyncio.subprocess.PIPE,
            stdout=stdout,
            stderr=asyncio.subprocess.PIPE,
        )
        out, err = await process.communicate(stdin.encode())
        assert process.returncode is not None
        return Done(process.returncode, (out or b"").decode(), err.decode())

    try:
        await eventually(lambda: server.started)
        yield command
    finally:
        server.should_exit = True
        await task


@pytest.fixture
async def command(make_shard: ShardFactory) -> AsyncIterator[Command]:
    async with serving(make_shard(auth="tokens", admin_key=ADMIN, key_cache_seconds=0)) as one:
        yield one


async def test_a_key_is_made_used_listed_and_deleted(command: Command) -> None:
    made = await command("keys", "create", "ci", "--scope", "read", "--workspace", "a", "--workspace", "b")
    assert made.code == 0
    key = made.out.strip()
    assert "the only time" in made.err
    refused = await command("keys", "list", key=key)
    assert (refused.code, refused.err.startswith("cronspace keys: ")) == (1, True)
    listed = await command("keys", "list")
    assert "ci" in listed.out
    assert "a,b" in listed.out
    assert key not in listed.out
    (one,) = json.loads((await command("keys", "list", "-o", "json")).out)["keys"]
    asked = await command("keys", "delete", one["id"])
    assert (asked.code, "--yes" in asked.err) == (1, True)
    assert (await command("keys", "delete", one["id"], "--yes")).code == 0
    assert json.loads((await command("keys", "list", "-o", "json")).out)["keys"] == []


async def test_what_the_api_refuses_is_told_with_each_fault(command: Command) -> None:
    past = ("--expires-at", "2001-01-01T00:00:00Z")
    done = await command("keys", "create", "x", "--scope", "read", "--workspace", "a", *past)
    assert done.code == 1
    assert "expires_at: it is past" in done.err
    assert (await command("keys", "list", key="wrong")).code == 1
    assert (await command("keys", "create", "x", "--scope", "everything", "--workspace", "a")).code == 2


async def test_a_workspace_comes_back_from_its_file(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN)
    headers = {"Authorization": "Bearer of-the-target"}
    entries = [("one", define(headers=headers)), ("two", define("0 3 * * *", timezone="Europe/Berlin"))]
    await triggers.replace(shard, "acme", entries)
    await workspaces.change(shard, "acme", {"max_retries": 7})
    async with serving(shard) as command:
        masked = await command("export", "--workspace", "acme")
        assert "of-the-target" not in masked.out
        assert "--reveal" in masked.err
        whole = await command("export", "--workspace", "acme", "--reveal")
        assert "of-the-target" in whole.out
        assert whole.err == ""
        done = await command("import", "-", "--workspace", "other", "--yes", stdin=whole.out)
        assert (done.code, "2 created" in done.out) == (0, True), done
        copied = await command("export", "--workspace", "other", "--reveal")
        first, second = json.loads(whole.out), json.loads(copied.out)
        assert (first["triggers"], first["settings"]) == (second["triggers"], second["settings"])
        again = await command("import", "-", "--yes", stdin=whole.out)
        assert "2 unchanged" in again.out
        refused = await command("import", "-", "--workspace", "third", "--yes", stdin=masked.out)
        assert (refused.code, "triggers[0].headers" in refused.err) == (1, True), refused
        assert await workspaces.get(shard, "third") is None


async def test_a_file_that_is_none_is_refused(command: Command) -> None:
    for text in ("", "[]", '{"format": 1}', '{"format": 9}'):
        done = await command("import", "-", "--yes", stdin=text)
        assert done.code == 1, text
        assert done.err.startswith("cronspace import: - "), done.err
    assert "can't be read" in (await command("import", "/nowhere", "--yes")).err


async def test_what_is_held_is_shown_and_goes_on(make_shard: ShardFactory) -> None:
    shard = make_shard(auth="tokens", admin_key=ADMIN, real_time=True)
    await triggers.replace(shard, "acme", [("t", define())])
    await witness.watch(shard)
    async with serving(shard) as command:
        assert "Due slots are fired." in (await command("system")).out
        await shard.redis.flushdb()
        await witness.watch(shard)
        held = await command("system")
        assert "Nothing is fired since " in held.out
        assert "- Redis was emptied" in held.out
        assert "Lost" not in held.out
        assert (await command("system", "resume")).code == 1
        resumed = await command("system", "resume", "--yes")
        assert "Due slots are fired." in resumed.out
        assert "Lost in the past, and accepted:\n- " in resumed.out
        assert " emptied, shard 0: what was from the beginning to " in resumed.out
        assert resumed.out.endswith("; firing was held, and resumed\n")


async def test_without_an_api_there_is_one_line() -> None:
    environ = {**os.environ, "CRONSPACE_URL": "http://127.0.0.1:9"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "app", "system", env=environ, stderr=asyncio.subprocess.PIPE
    )
    _, told = await process.communicate()
    assert process.returncode == 1
    assert told.decode().startswith("cronspace system: http://127.0.0.1:9 can't be reached")
    assert told.count(b"\n") == 1


@pytest.mark.parametrize("name", ["api", "worker", "probe", "rotate-keys", "reshard"])
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_is_told_and_nothing_is_started(
    name: str, flag: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["cronspace", name, flag])
    main()
    assert capsys.readouterr().out.startswith(f"usage: cronspace {name}")


@pytest.mark.parametrize("name", ["api", "worker", "probe"])
def test_what_a_process_is_given_beside_its_settings_is_refused(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["cronspace", name, "--port", "8080"])
    with pytest.raises(SystemExit, match=f"^cronspace {name}: takes no arguments, and '--port' is one"):
        main()


async def test_without_a_key_the_setting_for_one_is_named(command: Command) -> None:
    done = await command("keys", "list", key="")
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        "cronspace keys: This needs the header `Authorization: Bearer …`. Set CRONSPACE_KEY to an API key.\n"
    )
    assert "CRONSPACE_KEY" not in (await command("keys", "list", key="cs_wrong")).err


async def test_an_output_that_can_not_be_written_is_one_line(command: Command) -> None:
    """An export onto a full disk must not look like one that is there."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = await command("keys", "list", stdout=full)
    finally:
        os.close(full)
    assert (done.code, done.err) == (1, "cronspace keys: No space left on device\n")


async def test_a_reader_that_has_seen_enough_is_no_error_to_tell_of(command: Command) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = await command("keys", "list", stdout=writing)
    finally:
        os.close(writing)
    assert (done.code, done.err) == (1, "")
