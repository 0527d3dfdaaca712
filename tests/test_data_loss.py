"""Redis was emptied or rolled back: who saw more notices it, and nothing is fired until an admin resumes."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import httpx
import msgspec
import pytest
from calls import client_of, fire, ok
from conftest import Clock, ShardFactory, eventually
from helpers import (
    Target,
    accounts_balance,
    claim_all,
    define,
    heartbeat,
    numbered,
    succeeded,
    worker_running,
)
from samples import at, samples

from app.api import scrape
from app.clock import day_of
from app.config import Settings
from app.main import create_app
from app.store import Shard, Shards, executions, open_shards, queue, ticking, triggers, witness
from app.store.memory import Memory
from app.witness import Remembered
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

EVERY_TEN_SECONDS = "*/10 * * * * *"


@pytest.fixture
def process(own_redis: RedisServer, shard_at: ShardFactory) -> ShardFactory:
    """Shards on the test's own server: each stands for a process with what it saw."""
    return partial(shard_at, redis_url=own_redis.url())


async def restart_with_dump(server: RedisServer) -> None:
    """Redis dies, and comes back with what it saved last."""
    server.process.kill()
    server.start()


async def live(shard: Shard, clock: Clock, seconds: int, number: int = 0) -> list[str]:
    """Let time pass for a process that fires and sends; the ids of what it sent."""
    sent = []
    for second in range(seconds):
        clock.advance(1)
        await ticking.fire_due(shard)
        await ticking.refill(shard)
        claimed = await claim_all(shard, number=clock.now // 1000 + number + second)
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
        sent += [one.id for one in claimed]
    return sent


async def holds(shard: Shard) -> list[str]:
    return [one.kind for one in (await witness.status(shard)).holds]


async def test_a_first_start_has_lost_nothing(shard: Shard, clock: Clock) -> None:
    assert (await witness.status(shard)).epoch is None
    await triggers.replace(shard, "acme", numbered(1))
    assert len(await live(shard, clock, 60)) == 1
    status = await witness.status(shard)
    assert (status.firing, status.losses, status.beat) == (True, [], clock.now)
    assert status.epoch is not None


async def test_an_emptied_redis_holds_firing_until_an_admin_resumes(
    make_shard: ShardFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    worker, other = make_shard(worker_name="first"), make_shard()
    await triggers.replace(worker, "acme", numbered(1))
    await live(worker, clock, 60)
    await live(other, clock, 1)
    await worker.redis.flushdb()
    clock.advance(30)
    await triggers.replace(worker, "acme", numbered(2))
    clock.advance(60)
    for shard in (worker, other, make_shard()):  # who starts after it respects it
        assert (await ticking.fire_due(shard)).handled == 0
        assert await claim_all(shard) == []
    (hold,) = (await witness.status(other)).holds
    assert (hold.kind, hold.noticed_by) == ("data_loss", "first")
    assert "emptied" in hold.detail
    (loss,) = (await witness.status(other)).losses
    assert (loss.since, loss.held, loss.kind) == (0, True, "emptied")
    assert "nothing is fired" in caplog.text
    assert await witness.resume(other)
    assert not await witness.resume(other)
    await triggers.replace(worker, "acme", numbered(2))
    for shard in (worker, other):
        assert len(await live(shard, clock, 60)) >= 2
    assert await holds(worker) == []
    assert "firing goes on" in caplog.text


async def test_with_continue_a_loss_is_recorded_and_firing_goes_on(
    make_shard: ShardFactory, clock: Clock
) -> None:
    shard = make_shard(on_data_loss="continue")
    await live(shard, clock, 3)
    await shard.redis.flushdb()
    await triggers.replace(shard, "acme", numbered(1))
    assert len(await live(shard, clock, 60)) == 1
    status = await witness.status(shard)
    assert (status.firing, [one.held for one in status.losses]) == (True, [False])


async def send_and_save(process: ShardFactory, clock: Clock) -> list[str]:
    """A worker sends for a while; what Redis would come back with is thirty seconds old. The ids since."""
    worker = process()
    await triggers.replace(
        worker,
        "acme",
        [
            ("least", define(EVERY_TEN_SECONDS)),
            ("once", define(EVERY_TEN_SECONDS, delivery="at_most_once")),
        ],
    )
    await live(worker, clock, 20)
    await worker.redis.save()
    return await live(worker, clock, 30)


async def test_a_rolled_back_redis_sends_again_what_may_be_and_tells_the_rest(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process()
    lost = await send_and_save(lambda: worker, clock)
    assert len(lost) == 6
    saved = clock.now - 30_000
    await restart_with_dump(own_redis)
    clock.advance(1)
    assert (await ticking.fire_due(worker)).handled == 0
    assert await holds(worker) == ["data_loss"]
    (loss,) = (await witness.status(worker)).losses
    assert (loss.kind, loss.held) == ("rolled_back", True)
    assert saved - 1000 <= loss.since <= saved
    assert clock.now - 1000 <= loss.until <= clock.now + 1000
    await witness.resume(worker)
    sent = await live(worker, clock, 20)
    assert {id_ for id_ in lost if ":least:" in id_} <= set(sent)  # the same ids: receivers deduplicate
    assert not {id_ for id_ in lost if ":once:" in id_} & set(sent)
    totals = await accounts_balance(worker, "acme", day_of(clock.now))
    assert totals["missed:data_loss"] == 3
    reasons = {
        one.id: one.reason for one in (await executions.list_newest(worker, "acme", limit=50)).executions
    }
    assert [reasons[id_] for id_ in lost if ":once:" in id_] == ["data_loss"] * 3


async def test_what_is_sent_at_most_once_and_was_open_before_a_rollback_is_not_sent_again(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process()
    for name, delivery in (("once", "at_most_once"), ("least", "at_least_once")):
        await triggers.replace(worker, name, [("0", define(delivery=delivery))])
    clock.advance(60)
    await ticking.fire_due(worker)
    await worker.redis.save()
    sent = await live(worker, clock, 15)
    assert len(sent) == 2
    await restart_with_dump(own_redis)
    await ticking.fire_due(worker)
    await witness.resume(worker)
    again = await live(worker, clock, 5)
    assert [id_ for id_ in sent if id_.startswith("least:")] == again
    (letter,) = (await executions.list_newest(worker, "once")).executions
    assert (str(letter.state), letter.reason) == ("failed", "unknown_outcome")


async def test_what_its_own_worker_sent_at_most_once_in_the_lost_time_does_not_come_back_to_it(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process(lease_seconds=15)
    for name, delivery in (("once", "at_most_once"), ("least", "at_least_once")):
        await triggers.replace(worker, name, [("0", define(delivery=delivery))])
    clock.advance(60)
    await ticking.fire_due(worker)
    claimed = await claim_all(worker, number=1)
    assert len(claimed) == 2
    await worker.redis.save()
    clock.advance(2)
    await queue.finish(worker, [succeeded(one, clock.now) for one in claimed])
    await witness.watch(worker)
    # A loss that holds nothing: both are this worker's again, under its lease.
    await restart_with_dump(own_redis)
    again = []
    for number in range(2, 10):
        clock.advance(5)
        again += await claim_all(worker, number=number)
    assert {one.workspace for one in again} == {"least"}
    (letter,) = (await executions.list_newest(worker, "once")).executions
    assert (str(letter.state), letter.reason) == ("failed", "unknown_outcome")


async def test_what_its_own_worker_still_sends_at_most_once_after_a_loss_is_its_to_report(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process(lease_seconds=15)
    await triggers.replace(worker, "acme", [("0", define(delivery="at_most_once"))])
    clock.advance(60)
    await ticking.fire_due(worker)
    (sending,) = await claim_all(worker, number=1)
    await worker.redis.save()
    clock.advance(2)
    await witness.watch(worker)
    await restart_with_dump(own_redis)
    clock.advance(20)  # Redis was away for longer than the lease
    assert await claim_all(worker, number=2) == []
    assert await queue.renew(worker, {sending.id: sending.token}) == set()
    clock.advance(14)
    assert await claim_all(worker, number=3) == []
    assert await queue.finish(worker, [succeeded(sending, clock.now)]) == ["succeeded"]


async def test_a_slot_that_was_overdue_when_a_loss_began_is_not_sent_again_at_most_once(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process()
    await triggers.replace(worker, "acme", [("0", define(delivery="at_most_once"))])
    clock.advance(59)
    await witness.watch(worker)
    clock.advance(3)
    await witness.watch(worker)  # the slot is due, and nobody has come to fire it
    await worker.redis.save()
    assert len(await live(worker, clock, 1)) == 1
    await restart_with_dump(own_redis)
    assert await live(worker, clock, 3) == []
    totals = await accounts_balance(worker, "acme", day_of(clock.now))
    assert totals["missed:data_loss"] == 1


def remembered(folder: Path) -> Remembered:
    (file,) = folder.iterdir()
    return msgspec.json.decode(file.read_bytes(), type=Remembered)


async def test_what_others_sent_at_most_once_since_a_process_looked_last_is_not_sent_again(
    own_redis: RedisServer, process: ShardFactory, clock: Clock, tmp_path: Path
) -> None:
    """It rests, and looked some seconds ago; or all that it knows is what others had written down."""
    worker, resting = process(), process(state_dir=str(tmp_path))
    await triggers.replace(worker, "acme", [("0", define("* * * * * *", delivery="at_most_once"))])
    await live(worker, clock, 5)
    await worker.redis.save()
    lost = await live(worker, clock, 2)
    memory = Memory(resting)
    for _ in range(2):
        await memory.once()
        lost += await live(worker, clock, 2)
    assert remembered(tmp_path).at == clock.now - 2000  # what it saw last, not some rounds before
    for knows in (resting, process(state_dir=str(tmp_path))):
        await restart_with_dump(own_redis)
        Memory(knows).recall()
        clock.advance(1)
        assert not set(lost) & set(await live(knows, clock, 3))
        assert not (await witness.status(knows)).holds


async def test_lost_slots_that_are_found_too_late_are_told_so(
    own_redis: RedisServer, process: ShardFactory, clock: Clock
) -> None:
    worker = process()
    await triggers.replace(worker, "acme", numbered(1, catch_up_missed="latest"))
    await triggers.replace(worker, "hourly", numbered(1))
    await live(worker, clock, 60)
    await worker.redis.save()
    for _ in range(20):
        clock.advance(30)
        await live(worker, clock, 1)
    await restart_with_dump(own_redis)
    clock.advance(600)
    await ticking.fire_due(worker)
    await ticking.refill(worker)  # nothing is judged while firing is held
    assert (await accounts_balance(worker, "acme", day_of(clock.now)))["due"] == 1
    await witness.resume(worker)
    await fire(worker)
    totals = await accounts_balance(worker, "hourly", day_of(clock.now))
    assert (totals["missed:data_loss"], totals["missed:deadline"]) == (10, 9)
    assert totals["due"] == 21  # with the first, which was kept, and the last, which is in time
    totals = await accounts_balance(worker, "acme", day_of(clock.now))
    assert (totals["missed:data_loss"], totals["missed:deadline"]) == (10, 9)


async def test_a_loss_is_noticed_although_every_worker_restarted(
    own_redis: RedisServer, process: ShardFactory, clock: Clock, tmp_path: Path
) -> None:
    worker = process(state_dir=str(tmp_path / "state"))
    await send_and_save(lambda: worker, clock)
    Memory(worker).save()
    await restart_with_dump(own_redis)
    clock.advance(5)
    await ticking.fire_due(process())  # one that knows nothing goes first
    successor = process(state_dir=str(tmp_path / "state"))
    Memory(successor).recall()
    assert (await ticking.fire_due(successor)).handled == 0
    assert await holds(successor) == ["data_loss"]
    (file,) = (tmp_path / "state").iterdir()
    assert (await witness.status(successor)).losses[0].since > 0
    elsewhere = process(state_dir=str(tmp_path / "state"), redis_url=own_redis.url(3))
    Memory(elsewhere).recall()
    await ticking.fire_due(elsewhere)
    assert await holds(elsewhere) == []  # another database is no loss
    file.write_bytes(b"")
    Memory(process(state_dir=str(tmp_path / "state"))).recall()


@pytest.mark.parametrize("password", ["hun[ter", "hun\u2100ter", "hun]ter"])
async def test_what_was_seen_is_found_again_with_another_password(tmp_path: Path, password: str) -> None:
    url = f"redis+sentinel://:{password}@127.0.0.1/mymaster"
    seen = Remembered("epoch", "1-beat", 1)
    for one in (url, url.replace(password, "other")):
        shards = open_shards(Settings(redis_url=one, state_dir=str(tmp_path)))
        Memory(shards.first).recall()
        known = shards.first.witness.remembered
        assert known == (None if one == url else seen)
        shards.first.witness.recall(seen)
        Memory(shards.first).save()
        await shards.aclose()


async def test_processes_that_share_a_folder_and_a_process_id_do_not_mix_what_they_write(
    process: ShardFactory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As containers with one volume: in each the process has the id 1."""
    shards = [process(state_dir=str(tmp_path)) for _ in range(2)]
    for shard in shards:
        await witness.watch(shard)
    first, second = map(Memory, shards)
    replace = Path.replace

    def replace_late(self: Path, target: Path) -> Path:
        monkeypatch.undo()
        second.save()  # the moment between writing and renaming
        return replace(self, target)

    monkeypatch.setattr(Path, "replace", replace_late)
    first.save()
    assert remembered(tmp_path) == shards[0].witness.remembered
    assert caplog.messages == []


async def test_a_worker_and_an_api_leave_what_they_saw_to_the_next(
    make_shard: ShardFactory, tmp_path: Path
) -> None:
    def run_worker(shard: Shard) -> AbstractAsyncContextManager[object]:
        return worker_running(shard)

    for number, run in enumerate((run_worker, api_running)):
        folder = str(tmp_path / str(number))
        shard = make_shard(real_time=True, state_dir=folder)
        async with run(shard):
            await eventually(lambda shard=shard: shard.witness.remembered)
        looking = make_shard(real_time=True)
        await looking.redis.flushdb()
        async with run(make_shard(real_time=True, state_dir=folder)):

            async def is_held(looking: Shard = looking) -> bool:
                return await holds(looking) == ["data_loss"]

            await eventually(is_held)
        await looking.redis.flushdb()


async def test_explain_says_that_firing_is_held(shard: Shard, clock: Clock) -> None:
    await live(shard, clock, 1)
    await shard.redis.flushdb()
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(90)
    await ticking.fire_due(shard)
    await heartbeat(shard)
    async with client_of(shard) as client:
        told = await ok(client.get("/api/workspaces/acme/triggers/0/explain"))
    assert [one["code"] for one in told["findings"]][:2] == ["firing_held", "slot_overdue"]
    assert "emptied" in told["summary"]


async def test_of_several_shards_it_is_told_which_is_held(
    shard: Shard, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    shards = Shards([Shard(shard.redis, shard.settings, number, clock) for number in range(3)])
    for one in shards:
        await live(one, clock, 1)
    await shard.redis.delete(shards[1].keys.root, shards[1].keys.beats)
    for one in shards:
        await live(one, clock, 1)
    told = {record.shard for record in caplog.records if record.levelname == "CRITICAL"}  # type: ignore[attr-defined]
    assert told == {1}
    transport = httpx.ASGITransport(create_app(shard.settings, shards))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        reasons = (await client.get("/health/detailed")).json()["reasons"]
    (held,) = [reason for reason in reasons if "firing is held" in reason]
    assert held.startswith("firing is held: shard 1: Redis was emptied")


@asynccontextmanager
async def api_running(shard: Shard) -> AsyncIterator[None]:
    """The API's lifespan."""
    app = create_app(shard.settings, Shards([shard]))
    async with app.router.lifespan_context(app):
        yield


@pytest.mark.parametrize("how", ["emptied", "rolled_back"])
async def test_the_api_notices_a_loss_that_no_worker_saw(
    own_redis: RedisServer, process: ShardFactory, clock: Clock, how: str
) -> None:
    api = process()
    async with api_running(api):
        await send_and_save(process, clock)

        async def has_looked() -> bool:
            return bool(api.witness.testify().at == clock.now)

        await eventually(has_looked)
        await restart_with_dump(own_redis)
        if how == "emptied":
            await process().redis.flushdb()
        clock.advance(20)
        await live(process(), clock, 5)  # a new worker, before the API comes to look

        async def is_held() -> bool:
            return bool(await holds(process()))

        await eventually(is_held)
    status = await witness.status(api)
    assert [one.kind for one in status.losses] == [how]
    assert await live(process(), clock, 60) == []


async def test_a_loss_within_the_tolerance_is_told_and_holds_nothing(
    own_redis: RedisServer, process: ShardFactory, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    worker = process()
    await triggers.replace(
        worker,
        "acme",
        [("0", define("*/5 * * * * *")), ("1", define("*/5 * * * * *", delivery="at_most_once"))],
    )
    await live(worker, clock, 20)
    await worker.redis.save()
    lost = await live(worker, clock, 6)
    assert len(lost) == 2
    await restart_with_dump(own_redis)
    sent = await live(worker, clock, 1)
    assert {id_ for id_ in lost if ":0:" in id_} <= set(sent)
    assert not {id_ for id_ in lost if ":1:" in id_} & set(sent)
    status = await witness.status(worker)
    assert (status.firing, [one.held for one in status.losses]) == (True, [False])
    assert [one.levelno for one in caplog.records if "rolled back" in one.message] == [logging.WARNING]


async def test_a_process_that_was_away_for_long_claims_no_loss(
    make_shard: ShardFactory, clock: Clock
) -> None:
    away, there = make_shard(), make_shard()
    await ticking.fire_due(away)

    async def ten_minutes() -> None:
        for _ in range(610):
            clock.advance(1)
            await witness.watch(there)

    await ten_minutes()
    await ticking.fire_due(away)
    assert (await witness.status(away)).losses == []
    await away.redis.flushdb()
    fresh = make_shard()
    await ticking.fire_due(fresh)
    await ten_minutes()
    for late in (
        away,
        fresh,
    ):  # one saw the data before the loss, the other what was made before it was noticed
        await ticking.fire_due(late)
    assert len((await witness.status(away)).losses) == 1
    assert await there.redis.zcard(there.keys.beats) == 600


async def test_the_span_reaches_as_far_as_any_process_saw(make_shard: ShardFactory, clock: Clock) -> None:
    first, second = make_shard(), make_shard()
    await live(first, clock, 5)
    clock.advance(3)
    await witness.watch(second)
    seen = clock.now
    await first.redis.flushdb()
    clock.advance(60)
    await witness.watch(first)
    await witness.watch(second)
    (loss,) = (await witness.status(first)).losses
    assert seen < loss.until <= seen + 10_000


async def test_the_system_call_tells_and_resumes_and_the_audit_knows(
    shard: Shard, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrape, "_FRESH_SECONDS", 0.0)
    await live(shard, clock, 3)
    async with client_of(shard) as client:
        shown = await ok(client.get("/api/system"))
        assert (shown["firing"], shown["holds"], shown["losses"]) == (True, [], [])
        assert await told_to_prometheus(client) == (0, 0, 0)
        assert not (await ok(client.post("/api/system/resume")))["changed"]
        await shard.redis.flushdb()
        await ticking.fire_due(shard)
        shown = await ok(client.get("/api/system"))
        assert (shown["firing"], [one["kind"] for one in shown["holds"]]) == (False, ["data_loss"])
        (loss,) = shown["losses"]
        assert (loss["kind"], loss["since"], loss["held"]) == ("emptied", None, True)
        assert await told_to_prometheus(client) == (1, 0, clock.now / 1000)
        resumed = await ok(client.post("/api/system/resume"))
        assert (resumed["changed"], resumed["firing"]) == (True, True)
        assert len(resumed["losses"]) == 1
        assert await told_to_prometheus(client) == (0, 0, clock.now / 1000)
        (entry,) = (await ok(client.get("/api/audit")))["entries"]
        assert entry["action"] == "resume_system"
        assert "emptied" in entry["before"]["holds"][0]


async def told_to_prometheus(client: httpx.AsyncClient) -> tuple[float | None, ...]:
    """Shards that are held for a loss and for a jump of the clock, and when the last loss was noticed."""
    found = samples((await client.get("/metrics")).text)
    return (
        at(found, "shards_held", kind="data_loss"),
        at(found, "shards_held", kind="clock_jump"),
        at(found, "last_data_loss_timestamp_seconds"),
    )


async def test_running_workers_stop_firing_when_redis_is_emptied(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with Target().running() as target, worker_running(make_shard(real_time=True)):
        every_second = numbered(1, "* * * * * *", url=target.url)
        await triggers.replace(shard, "acme", every_second)
        await eventually(lambda: len(target.received) >= 2)
        await shard.redis.flushdb()

        async def is_held() -> bool:
            return await holds(shard) == ["data_loss"]

        await eventually(is_held)
        await triggers.replace(shard, "acme", every_second)
        before = len(target.received)

        async def is_overdue() -> bool:
            (slot,) = [score for _, score in await shard.redis.zrange(shard.keys.due, 0, -1, withscores=True)]
            return bool(await shard.now_ms() > slot + 2500)

        await eventually(is_overdue)
        assert len(target.received) == before
        await witness.resume(shard)
        await eventually(lambda: len(target.received) > before)
