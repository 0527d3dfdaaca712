"""Workers as they run: real processes or the real class, a real Redis, real targets, real time."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections import Counter
from typing import Any

import msgspec
import pytest
from arq.connections import ArqRedis, RedisSettings
from arq.jobs import Job, JobStatus
from arq.worker import async_check_health
from conftest import LOOPBACK, Clock, ShardFactory, StartProcess, eventually
from helpers import (
    OK,
    Received,
    Target,
    accounts_balance,
    define,
    failed,
    in_seconds,
    numbered,
    open_ids,
    succeeded,
    today,
    worker_running,
)
from proxies import Proxy

from app.config import Settings
from app.models import State
from app.store import Shard, connect, executions, queue, ticking, triggers
from app.store import workers as registry
from lab.redis_servers import RedisServer, redis_binaries
from workers.transport import Transport
from workers.worker import Worker

pytestmark = pytest.mark.anyio


async def test_requests_leave_on_time_and_never_before_their_slot(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, worker_running(make_shard(real_time=True)):
        await triggers.replace(shard, "acme", numbered(5, "* * * * * *", url=target.url))
        await eventually(lambda: len(target.received) >= 15)
        for request in target.received:
            slot = int(request.headers["webhook-id"].rsplit(":", 1)[1]) / 1000
            assert slot <= request.at < slot + 1
        ids = [request.headers["webhook-id"] for request in target.received]
        assert len(ids) == len(set(ids))


async def test_a_failing_target_is_tried_again_after_1_and_2_seconds(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with (
        Target(b"HTTP/1.1 503 X\r\ncontent-length: 4\r\n\r\nbusy").running() as target,
        worker_running(make_shard(real_time=True)),
    ):
        cron = in_seconds(time.time() + 2)
        await triggers.replace(shard, "acme", [("t", define(cron, url=target.url, max_retries=2))])

        async def dead_letters() -> Any:
            return (await executions.list_newest(shard, "acme", state=State.FAILED)).executions

        (letter,) = await eventually(dead_letters)
        gaps = [
            after.at - before.at for before, after in zip(target.received, target.received[1:], strict=False)
        ]
        assert len(gaps) == 2
        assert 1 <= gaps[0] < 2 <= gaps[1] < 3
        assert [attempt.snippet for attempt in letter.attempts] == ["busy"] * 3
        assert len({request.headers["webhook-id"] for request in target.received}) == 1


async def test_a_worker_sends_to_public_addresses_only_unless_told_otherwise(
    start_process: StartProcess, make_shard: ShardFactory
) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target:
        await start_process("worker", CRONSPACE_EGRESS_ALLOW="")
        one = define(in_seconds(time.time() + 2), url=target.url, max_retries=9)
        await triggers.replace(shard, "acme", [("t", one)])

        async def dead_letters() -> Any:
            return (await executions.list_newest(shard, "acme", state=State.FAILED)).executions

        (letter,) = await eventually(dead_letters)
        assert [attempt.kind for attempt in letter.attempts] == ["blocked"]
        assert target.connections == 0


async def test_a_killed_worker_loses_nothing(start_process: StartProcess, make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    settings = {"CRONSPACE_LEASE_SECONDS": "2", "CRONSPACE_MAX_CONCURRENCY": "0"}
    async with Target().running() as target:
        target.hold.clear()  # requests are under way when the worker dies
        doomed = await start_process("worker", **settings)
        cron = in_seconds(time.time() + 3)
        await triggers.replace(shard, "acme", numbered(40, cron, url=target.url))
        await eventually(lambda: len(target.received) >= 40)
        doomed.kill()
        await doomed.wait()
        killed = time.time()
        target.hold.set()
        heir = await start_process("worker", **settings)

        async def all_ended() -> bool:
            return await shard.redis.zcard(shard.keys.of("acme", "succeeded")) == 40

        await eventually(all_ended, 20)
        counts = Counter(request.headers["webhook-id"] for request in target.received)
        assert len(counts) == 40
        assert set(counts.values()) == {2}  # each was in flight at the kill, and carries the same id
        assert min(r.at for r in target.received[40:]) >= killed
        heir.terminate()
        assert await heir.wait() == 0
        totals = await accounts_balance(shard, "acme", *await today(shard))
        assert totals == {"due": 40, "succeeded": 40, "open": 0}


async def test_a_stopping_worker_finishes_what_runs_and_hands_the_rest_back(
    start_process: StartProcess, make_shard: ShardFactory
) -> None:
    shard = make_shard(real_time=True)
    slow = asyncio.Event()

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        if request.path == "/slow" and not slow.is_set():
            await slow.wait()
        await asyncio.sleep(0.3)  # so that all are still running when the signal comes
        writer.write(OK)

    async with Target(answer).running() as target:
        first = await start_process("worker", CRONSPACE_GRACE_SECONDS="1")
        cron = in_seconds(time.time() + 3)
        quick = [(f"q{i}", define(cron, url=f"{target.url}/quick")) for i in range(4)]
        await triggers.replace(shard, "acme", [*quick, ("s", define(cron, url=f"{target.url}/slow"))])
        await eventually(lambda: len(target.received) == 5)
        first.send_signal(signal.SIGTERM)
        begun = time.monotonic()
        assert await first.wait() == 0
        assert time.monotonic() - begun < 5
        assert await shard.redis.zcard(shard.keys.of("acme", "succeeded")) == 4
        slow.set()
        second = await start_process("worker")

        async def all_ended() -> bool:
            return await shard.redis.zcard(shard.keys.of("acme", "succeeded")) == 5

        await eventually(all_ended)
        second.terminate()
        await second.wait()
        (one,) = (await executions.list_newest(shard, "acme", trigger="s")).executions
        assert [attempt.kind for attempt in one.attempts] == ["worker_lost", ""]
        assert Counter(request.path for request in target.received) == {"/quick": 4, "/slow": 2}


async def test_one_tenant_with_ten_thousand_due_slots_holds_up_nobody(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)  # default settings
    async with Target().running() as hanging, Target().running() as target:
        hanging.hold.clear()
        slot = int(time.time()) + 6
        await triggers.replace(shard, "greedy", numbered(10_000, in_seconds(slot), url=hanging.url))
        for index in range(30):
            await triggers.replace(shard, f"small-{index}", [("t", define("*/2 * * * * *", url=target.url))])
        async with worker_running(make_shard(real_time=True, grace_seconds=0.1)):
            await eventually(lambda: time.time() > slot + 6, 30)
            late = [
                request.at - int(request.headers["webhook-id"].rsplit(":", 1)[1]) / 1000
                for request in target.received
                if request.at > slot
            ]
            assert len(late) >= 60
            assert sorted(late)[int(len(late) * 0.99) - 1] < 1.0
            assert len(hanging.received) == 10  # max_concurrency
        await accounts_balance(shard, "greedy", *await today(shard))


REPLACE_LARGE_SETS = """
import asyncio, sys
from app.config import Settings
from app.models import Definition
from app.store import Shard, connect, triggers

async def main():
    settings = Settings(redis_url=sys.argv[1])
    shard = Shard(connect(settings), settings)
    for day in range(1, 5):
        one = Definition(cron=f"0 0 {day} 1 *", url="http://127.0.0.1:9/", method="POST")
        await triggers.replace(shard, "big", [(str(index), one) for index in range(10_000)])
    await shard.redis.aclose()

asyncio.run(main())
"""


async def test_large_replaces_leave_other_workspaces_on_time(
    redis_url: str, make_shard: ShardFactory
) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, worker_running(make_shard(real_time=True)):
        for index in range(10):
            one = define("* * * * * *", url=target.url)
            await triggers.replace(shard, f"small-{index}", [("t", one)])
        await eventually(lambda: len(target.received) >= 10)
        begun = time.time()
        replacing = await asyncio.create_subprocess_exec(sys.executable, "-c", REPLACE_LARGE_SETS, redis_url)
        assert await replacing.wait() == 0
        await eventually(lambda: time.time() > begun + 2.5)
        late = [
            request.at - int(request.headers["webhook-id"].rsplit(":", 1)[1]) / 1000
            for request in target.received
            if request.at > begun
        ]
        assert len(late) >= 20
        assert sorted(late)[int(len(late) * 0.9)] < 0.5


async def test_a_reply_lost_after_the_script_ran_repeats_nothing(
    redis_server: RedisServer, redis_url: str, make_shard: ShardFactory
) -> None:
    shard = make_shard(real_time=True)
    proxy = Proxy(redis_server.socket)
    async with proxy.running() as address, Target().running() as target:
        through = f"{address}/{redis_url.rpartition('=')[2]}"
        async with worker_running(make_shard(real_time=True, redis_url=through, max_concurrency=3)):
            await triggers.replace(shard, "acme", numbered(8, "* * * * * *", url=target.url))
            for wanted in range(20, 80, 10):
                await eventually(lambda wanted=wanted: len(target.received) >= wanted, 20)
                proxy.lose_next = 3
            await triggers.replace(shard, "acme", [])
            replacing = make_shard(real_time=True, redis_url=through)
            proxy.lose_next = 2
            done = await triggers.replace(replacing, "other", numbered(3, "0 0 1 1 *"))
            assert (done.revision, done.changes.created) == (1, 3)
        assert proxy.lost >= 10
        counts = Counter(request.headers["webhook-id"] for request in target.received)
        assert set(counts.values()) == {1}
        totals = await accounts_balance(shard, "acme", *await today(shard))
        assert totals["succeeded"] == len(counts)


async def test_a_redis_that_goes_away_and_comes_back_ends_no_worker() -> None:
    server = RedisServer(next(iter(redis_binaries().values())), "--appendonly", "yes")
    settings = Settings(redis_url=server.url(), lease_seconds=2, egress_allow=LOOPBACK)
    shard = Shard(connect(settings), settings)
    try:
        async with Target().running() as target, worker_running(Shard(connect(settings), settings)) as worker:
            await triggers.replace(shard, "acme", [("t", define("* * * * * *", url=target.url))])
            await eventually(lambda: len(target.received) >= 2)
            server.process.kill()
            await eventually(lambda: worker.ticker.failures >= 1 and worker.claimer.failures >= 1)
            server.start()
            back = time.time()
            await eventually(lambda: any(request.at > back for request in target.received))
            assert time.time() - back < 6
            await eventually(lambda: worker.finisher.failures == worker.renewer.failures == 0)
    finally:
        await shard.redis.aclose()
        server.close()


async def test_no_exception_ends_a_loop(make_shard: ShardFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = make_shard(real_time=True)
    broken = {"fire_due": 3, "claim_ready": 3, "finish_executions": 3, "take_chores": 3}
    working = make_shard(real_time=True)
    run = working.run

    async def sometimes(name: str, *args: Any, **more: Any) -> Any:
        if broken.get(name, 0) > 0:
            broken[name] -= 1
            raise RuntimeError("a fault of ours")
        return await run(name, *args, **more)

    monkeypatch.setattr(working, "run", sometimes)
    async with Target().running() as target, worker_running(working):
        await triggers.replace(shard, "acme", [("t", define("* * * * * *", url=target.url))])

        async def recorded() -> bool:
            return await shard.redis.zcard(shard.keys.of("acme", "succeeded")) >= 2

        await eventually(recorded)
    assert not any(broken.values())


async def test_an_execution_whose_lease_lapsed_is_not_sent(make_shard: ShardFactory) -> None:
    """Judged by the worker's own monotonic clock: it may have been stopped for longer than its lease."""
    shard = make_shard(real_time=True, lease_seconds=1)
    async with Target().running() as target:
        await triggers.replace(shard, "acme", [("t", define("* * * * * *", url=target.url))])

        async def fired() -> int:
            return (await ticking.fire_due(shard)).made

        await eventually(fired)
        worker = Worker(shard, Transport(4096, 1 << 20, 10))
        claim = await queue.claim(shard, "w", 1, 1)
        worker.sender.start(claim.executions[0], time.monotonic() - 0.001, worker._outgoing.usual)
        await asyncio.gather(*worker.tasks.values())
        assert target.received == []
        assert worker.sender.ended == []
        await worker._transport.aclose()


async def test_arqs_own_api_reads_a_job_deferred_queued_running_and_complete(
    redis_url: str, shard: Shard, clock: Clock
) -> None:
    """arq's public calls with a msgpack deserializer, and nothing of ours."""
    arq_redis = ArqRedis.from_url(redis_url)
    clock.now = int(time.time() * 1000) - 60_000  # arq compares with its own clock

    def job_of(id_: str) -> Job:
        decode = msgspec.msgpack.decode
        return Job(f"{{0}}:{id_}", arq_redis, _queue_name="cs:{0}:queue", _deserializer=decode)

    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    (open_one,) = await open_ids(shard, "acme")
    job = job_of(open_one)
    assert await job.status() is JobStatus.queued
    info = await job.info()
    assert info is not None
    assert (info.function, list(info.args[:2]), info.kwargs) == ("send", ["acme", "0"], {})
    (claimed,) = (await queue.claim(shard, "w", 1, 1)).executions
    assert await job.status() is JobStatus.in_progress
    await queue.finish(shard, [failed(claimed, clock.now, "retry", 60_000)])
    assert await job.status() is JobStatus.deferred
    info = await job.info()
    assert info is not None
    assert info.job_try == 1
    clock.advance(61)
    (claimed,) = (await queue.claim(shard, "w", 2, 1)).executions
    await queue.finish(shard, [succeeded(claimed, clock.now)])
    assert await job.status() is JobStatus.complete
    result = await job.result_info()
    assert result is not None
    assert result.success
    assert result.job_try == 2
    assert (await job.result())["state"] == "succeeded"
    await arq_redis.aclose()


@pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning")  # arq's own call
async def test_arqs_health_check_works_and_survives_one_worker_stopping(
    redis_server: RedisServer, redis_url: str, make_shard: ShardFactory
) -> None:
    settings = RedisSettings(unix_socket_path=redis_server.socket, database=int(redis_url.rpartition("=")[2]))
    assert await async_check_health(settings, queue_name="cs:{0}:queue") == 1

    async def check() -> bool:
        return await async_check_health(settings, queue_name="cs:{0}:queue") == 0

    async with worker_running(make_shard(real_time=True)):
        async with worker_running(make_shard(real_time=True)):
            await eventually(check)
        assert await check()


async def test_several_workers_share_the_work_and_send_each_once(
    start_process: StartProcess, make_shard: ShardFactory
) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target:
        workers = [
            await start_process("worker", CRONSPACE_MAX_JOBS="5", CRONSPACE_WORKER_NAME=f"w{i}")
            for i in range(3)
        ]

        async def all_here() -> bool:
            return len(await registry.all_seen(shard)) == len(workers)

        await eventually(all_here, 30)
        await triggers.replace(shard, "acme", numbered(60, "*/2 * * * * *", url=target.url))
        await eventually(lambda: len(target.received) >= 180, 30)
        for worker in workers:
            worker.terminate()
        assert [await worker.wait() for worker in workers] == [0, 0, 0]
        counts = Counter(request.headers["webhook-id"] for request in target.received)
        assert set(counts.values()) == {1}
        page = await executions.list_newest(shard, "acme", state=State.SUCCEEDED, limit=100)
        assert len({execution.worker for execution in page.executions}) > 1


async def test_a_new_trigger_starts_without_waiting_for_a_poll(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    sleepy = make_shard(real_time=True, poll_seconds=60)
    async with Target().running() as target, worker_running(sleepy) as worker:
        await eventually(lambda: worker._claims >= 1)  # it has looked, and sleeps
        begun = time.time()
        await triggers.replace(shard, "acme", [("t", define("* * * * * *", url=target.url))])
        await eventually(lambda: target.received)
        assert target.received[0].at - begun < 3
