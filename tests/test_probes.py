"""A worker's own port: probes and metrics of a real process, beside the requests that it sends."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from calls import store_key
from conftest import ShardFactory, StartProcess, eventually
from examples import ADMIN_KEY
from helpers import Target, define, numbered, worker_running
from samples import Samples, at, samples

from app.auth.keys import new_key
from app.config import Settings
from app.store import Shard, Shards, open_shards, triggers, workers
from lab.processes import free_port
from lab.redis_servers import RedisServer
from workers import probes
from workers.account import Account
from workers.places import Places

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def client_of_worker(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    """A worker in this process, and a client of its port."""
    async with worker_running(shard) as worker:
        transport = httpx.ASGITransport(
            probes.make_app([worker], Shards([shard]), worker.account, worker._places)
        )
        async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
            yield client


async def scraped(client: httpx.AsyncClient, **options: Any) -> Samples:
    response = await client.get("/metrics", **options)
    assert response.status_code == 200
    return samples(response.text)


async def test_a_worker_reports_what_it_did_itself(make_shard: ShardFactory) -> None:
    async with Target().running() as target, client_of_worker(make_shard(real_time=True)) as client:
        shard = make_shard(real_time=True)
        failing = define("* * * * * *", url="http://127.0.0.1:1/", max_retries=0)
        good = numbered(2, "* * * * * *", url=target.url)
        await triggers.replace(shard, "acme", [*good, ("failing", failing)])

        async def has_done() -> Any:
            found = await scraped(client)
            connect = at(found, "attempts_total", outcome="connect") or 0
            return found if connect and (at(found, "attempts_total", outcome="succeeded") or 0) > 3 else None

        found = await eventually(has_done)
        sent = at(found, "attempts_total", outcome="succeeded") + at(
            found, "attempts_total", outcome="connect"
        )
        assert at(found, "lateness_seconds_count") == at(found, "attempt_duration_seconds_count") == sent
        assert at(found, "lateness_seconds_bucket", le="5.0") == sent
        assert at(found, "claimed_executions_total") >= sent
        assert at(found, "fired_slots_total") >= sent
        assert at(found, "tick_duration_seconds_count") > 0
        assert at(found, "worker_places") == 100
        assert at(found, "leases_lost_total") == 0
        assert at(found, "queue_depth") is None, "the fleet's figures are the API's to tell"


async def test_a_worker_beats_and_leaves_when_it_stops(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with worker_running(make_shard(real_time=True, max_jobs=7, worker_name="one")):
        (seen,) = await eventually(lambda: workers.all_seen(shard))
        assert (seen.facts.name, seen.facts.capacity, seen.facts.running) == ("one", 7, 0)
        now = await shard.now_ms()
        assert abs(now - seen.at) < 10_000
        assert abs(now - seen.facts.started) < 10_000
    assert await workers.all_seen(shard) == []


async def test_ready_says_why_not(shard_at: ShardFactory, own_redis: RedisServer) -> None:
    async with client_of_worker(shard_at(own_redis.url(), real_time=True)) as client:
        await eventually(lambda: is_ready(client))
        own_redis.process.kill()
        response = await client.get("/ready")
        assert response.status_code == 503
        assert "Redis" in response.json()["reason"] or "failing" in response.json()["reason"]
        assert (await client.get("/live")).status_code == 200

        async def has_counted() -> bool:
            return (at(await scraped(client), "redis_errors_total", kind="connection") or 0) > 0

        await eventually(has_counted)
        own_redis.start()
        await eventually(lambda: is_ready(client))


async def is_ready(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ready")).status_code == 200


@pytest.mark.parametrize(
    ("metrics", "statuses"),
    [("public", [200, 200, 200, 200]), ("authenticated", [401, 401, 200, 200]), ("off", [404] * 4)],
)
async def test_metrics_of_a_worker_have_the_same_switch(
    make_shard: ShardFactory, metrics: str, statuses: list[int]
) -> None:
    shard = make_shard(real_time=True, metrics=metrics, auth="tokens", admin_key=ADMIN_KEY)
    keys = ["", await store_key(shard), await store_key(shard, workspace="*"), ADMIN_KEY]
    async with client_of_worker(shard) as client:
        answers = [await client.get("/metrics", headers={"authorization": f"Bearer {key}"}) for key in keys]
        assert [one.status_code for one in answers] == statuses
        assert (await client.get("/live")).status_code == 200


async def test_guarded_metrics_of_a_worker_that_is_told_nothing_of_keys_are_not_open(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(metrics="authenticated")
    app = probes.make_app([], Shards([shard]), Account(), Places(1))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://worker") as client:
        key = await store_key(shard, workspace="*")
        assert (await client.get("/metrics")).status_code == 401
        answer = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 200


async def test_guarded_metrics_of_a_worker_wait_for_redis_but_for_the_admin_key() -> None:
    settings = Settings(
        redis_url="unix:///nowhere", metrics="authenticated", auth="tokens", admin_key=ADMIN_KEY
    )
    shards = open_shards(settings)
    transport = httpx.ASGITransport(probes.make_app([], shards, Account(), Places(1)))
    async with httpx.AsyncClient(transport=transport, base_url="http://worker") as client:
        for key, status in ((new_key()[1], 503), ("nonsense", 401), (ADMIN_KEY, 200)):
            response = await client.get("/metrics", headers={"authorization": f"Bearer {key}"})
            assert response.status_code == status
    await shards.aclose()


async def test_a_worker_process_serves_its_port_and_stops_on_a_signal(start_process: StartProcess) -> None:
    port = free_port()
    process = await start_process(
        "worker",
        stdout=asyncio.subprocess.PIPE,
        CRONSPACE_WORKER_PORT=str(port),
        CRONSPACE_SHARDS="3",
        CRONSPACE_WORKER_SHARDS="0,2",
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:

        async def answers() -> bool:
            try:
                return await is_ready(client)
            except httpx.TransportError:
                return False

        await eventually(answers)
        assert (await client.get("/live")).json() == {"status": "ok"}
        assert at(await scraped(client), "worker_places") == 100
        # Whoever reaches the port can't fill the worker's memory.
        assert (await client.get("/live", headers={"x": "x" * 100_000})).status_code == 431
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        said, _ = await asyncio.wait_for(process.communicate(), 10)
        assert process.returncode == 0
        assert time.monotonic() - began < 5
    for line in (b" works; places: 100; shards: 2 of 3; Redis at ", b'"stopping, 0 requests', b'"stopped"'):
        assert said.count(line) == 1  # of the process, not of each shard
    assert b'"worker":"' in said


async def test_a_port_that_is_taken_is_one_clear_line(start_process: StartProcess) -> None:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    process = await start_process(
        "worker",
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
        CRONSPACE_WORKER_PORT=str(port),
    )
    _, said = await asyncio.wait_for(process.communicate(), 20)
    server.close()
    assert process.returncode == 1
    assert said.decode().splitlines()[-1].startswith(f"cronspace worker: can't listen on 127.0.0.1:{port}")


async def test_now_and_then_a_worker_says_what_it_did(
    make_shard: ShardFactory, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    shard = make_shard(real_time=True)
    busy = b"HTTP/1.1 404 X\r\ncontent-length: 0\r\n\r\n"
    async with (
        Target().running() as target,
        Target(busy).running() as other,
        worker_running(make_shard(real_time=True)) as worker,
    ):
        good = define("* * * * * *", url=target.url, max_runs=1)
        again = {"max_retries": 1, "retry_on": ("404",), "retry_delay_seconds": 0.01}
        bad = define("* * * * * *", url=other.url, max_runs=1, **again)
        await triggers.replace(shard, "acme", [("good", good), ("bad", bad)])
        await eventually(lambda: worker.account.executions == 2)
        worker.account.report()
    (line,) = [one for one in caplog.records if one.getMessage().startswith("HEALTHCHECK ")]
    assert (line.levelname, line.executions, line.attempts, line.failures) == ("INFO", 2, 3, 2)  # type: ignore[attr-defined]
    assert " executions=2 attempts=3 failures=2 last_check=20" in line.getMessage()
    assert line.checks > 0  # type: ignore[attr-defined]
    about = [one for one in caplog.records if hasattr(one, "trigger")]
    tried = [(one.levelname, one.attempt) for one in about if one.trigger == "bad"]  # type: ignore[attr-defined]
    assert tried == [("INFO", 1), ("WARNING", 2)], "a line for each attempt that failed"
    told = {one.trigger: one for one in about}
    assert (told["good"].levelname, told["bad"].levelname) == ("DEBUG", "WARNING")
    failed = told["bad"]
    assert (failed.workspace, failed.attempt) == ("acme", 2)  # type: ignore[attr-defined]
    assert failed.getMessage() == "failed: the target answered 404"
