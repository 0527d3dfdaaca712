"""What earlier versions stored goes on working: ``data/format-N.rdb`` is what a version of format N left.

``data/format-1.zip`` are the workers of a version of that format, which run beside ours.

The file of format 1 has two workspaces after six minutes and an outage of an hour. In `acme`: a trigger with
a running execution and a run by hand, a line, an interval that is retrying, a one-off, a paused, a disabled,
a finished one, dead letters, a removed trigger, settings of its own, two revisions, an audit; an API key.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from calls import ACME, client_of, fire, ok
from conftest import LOOPBACK, Clock, ShardFactory, eventually
from helpers import Target, accounts_balance, bytes_balance, claim_all, define, open_ids, succeeded

from app.clock import day_of
from app.config import Settings
from app.store import Shard, Shards, connect, executions, fleet, queue, triggers, upkeep
from lab.redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.anyio

DATA = Path(__file__).parent / "data"
LEFT_AT = 1_790_003_960_000  # the clock when the file was written


@pytest.fixture(params=sorted(redis_binaries()))
def old_server(request: pytest.FixtureRequest) -> Iterator[RedisServer]:
    """A server with what format 1 left."""
    server = RedisServer(redis_binaries()[request.param])
    server.process.kill()
    shutil.copy(DATA / "format-1.rdb", Path(server.folder, "dump.rdb"))
    server.start()
    yield server
    server.close()


@pytest.fixture
async def old(old_server: RedisServer) -> AsyncIterator[tuple[Shard, Clock]]:
    """A shard on that, at the moment when it was left."""
    clock = Clock(LEFT_AT)
    settings = Settings(redis_url=old_server.url(), max_concurrency=3)
    shard = Shard(connect(settings), settings, now=clock)
    await Shards([shard]).verify()
    yield shard, clock
    await shard.redis.aclose()


async def test_what_was_stored_is_shown_as_it_was(old: tuple[Shard, Clock]) -> None:
    shard, _ = old
    async with client_of(shard) as client:
        shown = await ok(client.get("/api/workspaces"))
        assert [one["id"] for one in shown["workspaces"]] == ["acme", "other"]
        acme = (await ok(client.get(ACME)))["workspace"]
        assert (acme["settings"]["timezone"], acme["settings"]["keep_failed"]) == ("Europe/Berlin", 50)
        listed = (await ok(client.get(f"{ACME}/triggers")))["jobs"]
        states = {one["id"]: one["state"] for one in listed}
        assert states == {
            "plain": "active",
            "queued": "active",
            "every": "active",
            "once": "active",
            "paused": "paused",
            "off": "disabled",
            "bounded": "finished",
            "fails": "active",
        }
        plain = (await ok(client.get(f"{ACME}/triggers/plain")))["trigger"]
        assert (plain["payload"], plain["url"]) == ({"n": 1}, "https://hooks.example.com/in")
        letters = await ok(client.get(f"{ACME}/executions", params={"state": "failed"}))
        assert {one["trigger_id"] for one in letters["executions"]} >= {"fails"}
        assert (await ok(client.get(f"{ACME}/audit")))["count"] >= 4
        assert (await ok(client.get("/api/keys")))["keys"][0]["name"] == "ci"


async def test_what_was_under_way_goes_on_and_the_accounts_balance(old: tuple[Shard, Clock]) -> None:
    shard, clock = old
    sent = set()
    for number in range(900, 960):
        await fire(shard)
        await queue.renew(shard, {})
        claimed = await claim_all(shard, number=number)
        sent |= {(one.workspace, one.trigger) for one in claimed}
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
        clock.advance(10)
        for workspace in ("acme", "other"):
            today = day_of(clock.now)
            await accounts_balance(shard, workspace, today - 1, today)
    assert {("acme", "plain"), ("acme", "queued"), ("acme", "every"), ("other", "plain")} <= sent
    assert ("acme", "paused") not in sent
    await upkeep.clear_removed(shard)
    assert len(await open_ids(shard, "acme")) <= 3


async def test_what_was_stored_can_be_changed_retried_and_rolled_back(old: tuple[Shard, Clock]) -> None:
    shard, _ = old
    async with client_of(shard) as client:
        letters = await ok(client.get(f"{ACME}/executions", params={"state": "failed", "trigger": "fails"}))
        letter = letters["executions"][0]["id"]
        await ok(client.post(f"{ACME}/executions/{letter}/retry"), 202)
        await ok(client.post(f"{ACME}/triggers/paused/resume"))
        revisions = (await ok(client.get(f"{ACME}/revisions")))["revisions"]
        first = min(one["revision"] for one in revisions)
        await ok(client.post(f"{ACME}/revisions/{first}/rollback"))
        assert "leaves" in {one["id"] for one in (await ok(client.get(f"{ACME}/triggers")))["jobs"]}
        await bytes_balance(shard, "acme")  # of which that version knew nothing
        await ok(client.delete(ACME, params={"confirm": "acme"}))
        left = await shard.redis.keys("cs:*w:acme:*")
        assert [key for key in left if b":idempotency:" not in key] == []  # those go by their time


async def test_old_and_new_workers_run_side_by_side(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    await Shards([shard]).verify()
    names = [f"ws-{number}" for number in range(6)]

    async def start(name: str, code: Path) -> asyncio.subprocess.Process:
        given = {
            **os.environ,
            "PYTHONPATH": str(code),
            "REDIS_URL": shard.settings.redis_url,
            "CRONSPACE_EGRESS_ALLOW": LOOPBACK,
            "CRONSPACE_WORKER_NAME": name,
            "CRONSPACE_MAX_JOBS": "2",  # neither has places for all
        }
        quiet = asyncio.subprocess.DEVNULL
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "worker", env=given, cwd=DATA, stdout=quiet, stderr=quiet
        )

    async def sent_by() -> Counter[str]:
        found: Counter[str] = Counter()
        for name in names:
            page = await executions.list_newest(shard, name, limit=100)
            found.update(made.worker for one in page.executions for made in one.attempts)
        return found

    async with Target().running() as target:
        for name in names:
            set_ = [("t", define("* * * * * *", url=f"{target.url}/{name}"))]
            await triggers.replace(shard, name, set_)
        workers = [await start("old", DATA / "format-1.zip"), await start("new", DATA.parents[1])]
        try:

            async def both_have_sent() -> bool:
                sent = await sent_by()
                return sent["old"] > 3 and sent["new"] > 3

            await eventually(both_have_sent, 30)
            seen = (await fleet.read(Shards([shard]))).workers
            assert [one.facts.name for one in seen] == ["new", "old"]
            for name in names:
                await triggers.replace(shard, name, [])
        finally:
            for worker in workers:
                worker.terminate()
            ended = [await worker.wait() for worker in workers]
        assert ended == [0, 0]
        ids = [one.headers["webhook-id"] for one in target.received]
        assert len(ids) == len(set(ids))
    today = day_of(await shard.now_ms())
    for name in names:
        totals = await accounts_balance(shard, name, today - 1, today)
        assert totals["missed:deadline"] == 0
