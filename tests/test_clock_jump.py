"""Redis's clock decides, until it jumps: then nothing is fired until it is back, or an admin accepts it."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Callable

import pytest
from calls import client_of, fire, ok, refused
from conftest import LOOPBACK, Clock, ShardFactory, StartProcess, eventually
from examples import ONE
from helpers import Target, accounts_balance, claim_all, failed, numbered

from app.clock import day_of
from app.config import Settings
from app.store import Shard, connect, executions, queue, ticking, triggers, upkeep, witness
from app.store.memory import Memory
from lab import faketime

pytestmark = pytest.mark.anyio

HOUR = 3_600_000


class Time:
    """What passes for everybody; Redis's clock may jump beside it."""

    def __init__(self, clock: Clock) -> None:
        self.redis = clock
        self.passed = 1000.0

    def pass_by(self, seconds: float) -> None:
        self.passed += seconds
        self.redis.advance(seconds)

    def jump(self, seconds: float) -> None:
        """Somebody sets Redis's clock."""
        self.redis.advance(seconds)


@pytest.fixture
def time(clock: Clock) -> Time:
    return Time(clock)


NewProcess = Callable[..., Shard]


@pytest.fixture
async def process(redis_url: str, time: Time) -> AsyncIterator[NewProcess]:
    """Shards that each stand for a process with a clock of its own that nobody sets."""
    made: list[Shard] = []

    def new(own_clock: Callable[[], float] = lambda: time.passed, **given: object) -> Shard:
        settings = Settings(**{"redis_url": redis_url, "egress_allow": LOOPBACK, **given})  # type: ignore[arg-type]
        made.append(Shard(connect(settings), settings, now=time.redis, steady=own_clock))
        return made[-1]

    yield new
    for one in made:
        await one.redis.aclose()


async def holds(shard: Shard) -> list[str]:
    return [one.kind for one in (await witness.status(shard)).holds]


async def started(*shards: Shard) -> None:
    """They have called once: from here on they know the time."""
    for shard in shards:
        await ticking.fire_due(shard)


async def settle(shard: Shard) -> int:
    """Fire and judge until nothing is left to do; returns how many executions were made."""
    made = 0
    while (fired := await ticking.fire_due(shard)).handled or await ticking.refill(shard):
        made += fired.made
    return made


@pytest.mark.parametrize("jump", [600, -600, 86_400 * 365])
async def test_a_jump_holds_firing_before_anything_is_fired(
    process: NewProcess, time: Time, jump: float, caplog: pytest.LogCaptureFixture
) -> None:
    worker, other = process(worker_name="first"), process()
    await triggers.replace(worker, "acme", numbered(3))
    await started(worker, other)
    time.pass_by(60)
    time.jump(jump)
    for shard in (worker, other, process()):
        assert await settle(shard) == 0
        assert await claim_all(shard) == []
        await ticking.refill_some(shard, ["acme:0", "acme:1"])
    (hold,) = (await witness.status(worker)).holds
    assert (hold.kind, hold.noticed_by) == ("clock_jump", "first")
    assert f"{abs(jump):.1f} s {'ahead of' if jump > 0 else 'behind'}" in hold.detail
    assert "clock_jump" in caplog.text
    totals = await accounts_balance(
        worker, "acme", *range(day_of(time.redis.now) - 1, day_of(time.redis.now) + 2)
    )
    assert totals["due"] == 0
    time.jump(-jump)
    time.pass_by(1)
    assert await settle(other) == 3  # its clock agrees again, and it saw the time before
    assert await holds(other) == []
    for shard in (worker, process()):
        await started(shard)
        assert shard.witness.why == ""
    assert len(await claim_all(worker)) == 3


async def test_nothing_is_judged_late_by_a_clock_that_jumped(process: NewProcess, time: Time) -> None:
    worker = process()
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.pass_by(600)
    dry = (await ticking.fire_due(worker)).dry
    assert dry == ["acme:0"]
    time.jump(6 * 3600)
    await started(worker)
    await ticking.refill_some(worker, dry)
    assert await ticking.refill(worker) == 0
    time.jump(-6 * 3600)
    time.pass_by(1)
    await fire(worker)  # at once: nobody has taken the chore meanwhile
    totals = await accounts_balance(worker, "acme", day_of(time.redis.now))
    assert totals == {"due": 10, "missed:deadline": 9, "open": 1}


async def test_who_starts_after_a_jump_does_not_speak_for_the_new_time(
    process: NewProcess, time: Time
) -> None:
    witnessing = process()
    await started(witnessing)
    for jump in (600, -600):
        time.jump(jump)
        late = process()
        await started(late)  # it comes before anybody noticed
        time.pass_by(0.5)
        await started(witnessing, late, process(), late)
        assert await holds(witnessing) == ["clock_jump"]
        assert late.witness.why == "clock_jump"
        assert await witness.resume(late)
        await started(witnessing, late)
        assert (witnessing.witness.why, late.witness.why) == ("", "")


async def test_a_worker_whose_own_clock_is_wrong_stops_nobody(process: NewProcess, time: Time) -> None:
    asleep = [0.0]
    odd, good = process(lambda: time.passed - asleep[0]), process()
    await started(good, odd)
    time.jump(-6 * 3600)
    await started(good)
    assert await witness.resume(good)  # what they know begins anew with the time that was accepted
    await triggers.replace(good, "acme", numbered(1))
    await started(good, odd)
    for _ in range(3):
        time.pass_by(60)
        assert await settle(good) == 1
    asleep[0] = 180  # the machine was suspended, and its clock does not know
    time.pass_by(60)
    assert (await ticking.fire_due(odd)).made == 0
    assert await holds(good) == ["clock_jump"]
    assert await settle(good) == 1
    assert await holds(good) == []
    time.pass_by(60)
    assert (await ticking.fire_due(odd)).made == 1  # the others' evidence counted: it goes by Redis's clock
    assert await holds(good) == []


async def test_a_jump_within_the_bound_and_a_long_outage_hold_nothing(
    process: NewProcess, time: Time
) -> None:
    worker = process(max_clock_jump_seconds=60)
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.jump(55)
    time.pass_by(5)
    assert await settle(worker) == 1
    time.pass_by(7200)
    assert await settle(worker) >= 1
    assert await holds(worker) == []


async def test_the_brake_can_be_switched_off(process: NewProcess, time: Time) -> None:
    worker = process(max_clock_jump_seconds=0)
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.jump(3600)
    assert await settle(worker) == 1
    assert await holds(worker) == []


async def test_after_an_accepted_jump_forward_slots_between_go_by_the_rules_for_late_ones(
    process: NewProcess, time: Time
) -> None:
    worker = process()
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.jump(1800)
    await fire(worker)
    assert await witness.resume(worker)
    await fire(worker)
    totals = await accounts_balance(worker, "acme", day_of(time.redis.now))
    assert totals == {"due": 30, "missed:deadline": 29, "open": 1}
    assert worker.witness.why == ""


async def test_after_an_accepted_jump_back_nothing_waits_for_the_old_time(
    process: NewProcess, time: Time
) -> None:
    worker = process(lease_seconds=15)
    await triggers.replace(worker, "dead", numbered(2))
    await triggers.replace(worker, "retrying", numbered(1))
    await started(worker)
    time.pass_by(60)
    await ticking.fire_due(worker)
    claimed = await claim_all(worker, "dies")
    (retried,) = [one for one in claimed if one.workspace == "retrying"]
    await queue.finish(worker, [failed(retried, time.redis.now - 5, "retry", 120_000)])
    alive = next(one for one in claimed if one.workspace == "dead")
    await worker.redis.zadd(worker.keys.refills, {"dead:0": time.redis.now + 20_000})  # its taker died
    time.jump(-6 * 3600)
    await started(worker)
    assert await holds(worker) == ["clock_jump"]
    assert await witness.resume(worker)
    assert await claim_all(worker, number=2) == []
    for _ in range(3):
        time.pass_by(5)
        assert await queue.renew(worker, {alive.id: alive.token}) == set()
    (taken,) = await claim_all(worker, number=3)  # after a lease, not after six hours
    assert taken.workspace == "dead"
    assert taken.id != alive.id
    time.pass_by(120)
    assert [one.id for one in await claim_all(worker, "later", number=4)] == [retried.id]
    assert await ticking.refill(worker) == 1
    await upkeep.trim_finished(worker)
    assert await settle(worker) == 0  # slots that were fired are not fired again
    await accounts_balance(worker, "dead", day_of(time.redis.now), day_of(time.redis.now) + 1)


async def test_a_lease_that_was_renewed_while_the_clock_was_ahead_lapses_when_it_is_right_again(
    process: NewProcess, time: Time
) -> None:
    worker = process(lease_seconds=15)
    memory = Memory(worker)
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.pass_by(60)
    await ticking.fire_due(worker)
    (running,) = await claim_all(worker, "dies")
    time.jump(6 * 3600)
    await memory.once()
    await queue.renew(worker, {running.id: running.token})
    time.jump(-6 * 3600)
    time.pass_by(1)
    await memory.once()
    for _ in range(4):
        time.pass_by(5)
        await queue.renew(worker, {})
    assert [one.id for one in await claim_all(worker)] == [running.id]


async def test_changes_wait_until_the_clock_is_right(process: NewProcess, time: Time) -> None:
    worker = process()
    await triggers.replace(worker, "acme", numbered(1))
    await started(worker)
    time.jump(3600)
    await started(worker)
    async with client_of(process()) as client:
        problem = await refused(
            client.post("/api/workspaces/acme/triggers", json={"triggers": [ONE]}),
            503,
            "store_unavailable",
        )
        assert "clock" in problem["detail"]
        assert not (await ok(client.get("/api/system")))["firing"]
        await ok(client.post("/api/system/resume"))
        await ok(client.post("/api/workspaces/acme/triggers", json={"triggers": [ONE]}))


@pytest.mark.skipif(faketime.library() is None, reason="libfaketime is not installed")
@pytest.mark.parametrize("offset", ["+10m", "-10m"])
async def test_a_workers_own_clock_ten_minutes_wrong_changes_nothing(
    make_shard: ShardFactory, start_process: StartProcess, offset: str
) -> None:
    shard = make_shard(real_time=True)
    wrong = faketime.faked(FAKETIME=offset)
    told = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "import time; print(time.time())",
        env={**os.environ, **wrong},
        stdout=asyncio.subprocess.PIPE,
    )
    wall = float((await told.communicate())[0])
    assert 500 < abs(wall - (await shard.now_ms()) / 1000) < 700
    async with Target().running() as target:
        worker = await start_process("worker", **wrong)

        async def works() -> bool:
            return (await witness.status(shard)).worker_seen is not None

        await eventually(works)
        await triggers.replace(shard, "acme", numbered(2, "* * * * * *", url=target.url))
        await eventually(lambda: len(target.received) >= 8)
        worker.terminate()
        await worker.wait()
        ids = [request.headers["webhook-id"] for request in target.received]
        slots = sorted(int(id_.rsplit(":", 1)[1]) for id_ in ids if ":0:" in id_)
        assert slots == list(range(slots[0], slots[-1] + 1000, 1000))  # no burst, no gap
        assert len(ids) == len(set(ids))
        for request in target.received:
            slot = int(request.headers["webhook-id"].rsplit(":", 1)[1]) / 1000
            assert slot <= request.at < slot + 2
            assert abs(int(request.headers["webhook-timestamp"]) - request.at) < 2
    assert await holds(shard) == []
    ended = (await executions.list_newest(shard, "acme", limit=50)).executions
    assert all(abs(one.attempts[0].started / 1000 - one.slot / 1000) < 2 for one in ended if one.attempts)
