"""Replacing a trigger set: atomic, on the difference, without holding anybody up."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import Clock, ShardFactory
from helpers import accounts_balance, claim_all, day_counts, define, failed, numbered, open_ids, succeeded

from app.clock import day_of
from app.errors import ReplaceConflict
from app.models import State, pack_definition
from app.store import Shard, catalog, queue, ticking, triggers, upkeep

pytestmark = pytest.mark.anyio


async def test_the_sizes_and_the_changes_are_told(shard: Shard) -> None:
    first = await triggers.replace(shard, "acme", numbered(4))
    assert (first.removed, first.added, first.revision) == (0, 4, 1)
    second = await triggers.replace(
        shard, "acme", [("0", define()), ("1", define("0 * * * *")), ("new", define())]
    )
    assert (second.removed, second.added, second.revision) == (4, 3, 2)
    changes = second.changes
    assert (changes.created, changes.updated, changes.unchanged, changes.deleted) == (1, 1, 1, 2)


async def test_the_order_of_the_set_is_kept(shard: Shard) -> None:
    names = ["zeta", "alpha", "10", "9"]
    await triggers.replace(shard, "acme", [(name, define()) for name in names])
    assert [t.id for t in (await catalog.read(shard, "acme")).triggers] == names
    await triggers.replace(shard, "acme", [(name, define()) for name in names[::-1]])
    assert [t.id for t in (await catalog.read(shard, "acme")).triggers] == names[::-1]


async def test_an_identical_set_makes_no_revision(shard: Shard) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    again = await triggers.replace(shard, "acme", numbered(3))
    assert (again.revision, again.changes.unchanged) == (1, 3)


async def test_what_is_due_before_a_replace_is_accounted_for_by_the_old_set(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    slot = (await catalog.read(shard, "acme")).triggers[0].next_slot
    clock.advance(50)  # past the slot, and nobody has fired yet
    await triggers.replace(shard, "acme", [("0", define()), ("1", define("0 * * * *"))])
    assert await open_ids(shard, "acme") == {f"acme:{id_}:{slot}" for id_ in range(3)}
    assert slot is not None
    assert (await catalog.read(shard, "acme")).triggers[0].next_slot == slot + 60_000
    assert (await ticking.fire_due(shard)).made == 0
    assert (await accounts_balance(shard, "acme", day_of(clock.now)))["due"] == 3


async def test_a_changed_trigger_gets_its_next_slot_anew_and_keeps_its_counters(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    await triggers.replace(shard, "acme", numbered(1, "0 * * * *"))
    slot = (await catalog.read(shard, "acme")).triggers[0].next_slot
    assert slot is not None
    assert slot % 3_600_000 == 0
    assert (await day_counts(shard, "acme", day_of(clock.now)))["0"]["due"] == 1


async def test_a_disabled_trigger_has_no_slot(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1, enabled=False))
    assert (await catalog.read(shard, "acme")).triggers[0].next_slot is None
    clock.advance(120)
    assert (await ticking.fire_due(shard)).handled == 0
    await triggers.replace(shard, "acme", numbered(1))
    assert (await catalog.read(shard, "acme")).triggers[0].next_slot is not None


async def test_after_the_call_nothing_of_a_removed_trigger_is_claimed(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(30))
    clock.advance(60)
    await ticking.fire_due(shard)
    await triggers.replace(shard, "acme", [])
    assert await claim_all(shard) == []
    while await upkeep.clear_removed(shard):
        pass
    totals = await accounts_balance(shard, "acme", day_of(clock.now))
    assert totals == {"due": 30, "cancelled:trigger_removed": 30, "open": 0}


async def test_a_recreated_trigger_is_another_one(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    await triggers.replace(shard, "acme", [])
    await triggers.replace(shard, "acme", numbered(1))
    assert await claim_all(shard) == []


async def test_a_running_request_of_a_removed_trigger_may_end_but_is_not_retried(
    shard: Shard, clock: Clock
) -> None:
    await triggers.replace(shard, "acme", numbered(2))
    clock.advance(60)
    await ticking.fire_due(shard)
    first, second = await claim_all(shard)
    await triggers.replace(shard, "acme", [])
    outcomes = [succeeded(first, clock.now), failed(second, clock.now, "retry", 1000)]
    assert await queue.finish(shard, outcomes) == [State.SUCCEEDED, State.CANCELLED]


async def test_a_changed_definition_is_sent_by_what_was_queued_before(shard: Shard, clock: Clock) -> None:
    await triggers.replace(shard, "acme", numbered(1))
    clock.advance(60)
    await ticking.fire_due(shard)
    await triggers.replace(shard, "acme", numbered(1, url="http://127.0.0.1:9/new"))
    (claimed,) = await claim_all(shard)
    assert b"/new" in claimed.definition


async def test_removed_triggers_leave_nothing_behind(shard: Shard, clock: Clock) -> None:
    for generation in range(3):
        await triggers.replace(shard, "acme", [(f"g{generation}-{i}", define()) for i in range(5)])
        clock.advance(60)
        await ticking.fire_due(shard)
        claimed = await claim_all(shard, number=generation)
        await queue.finish(shard, [succeeded(one, clock.now) for one in claimed])
    while await upkeep.clear_removed(shard):
        pass
    remembered = await shard.redis.hkeys(shard.keys.of("acme", "last"))
    assert {name[:2] for name in remembered} == {b"g2"}


async def test_a_failed_preparation_changes_nothing_and_goes_by_itself(
    shard: Shard, monkeypatch: pytest.MonkeyPatch
) -> None:
    await triggers.replace(shard, "acme", numbered(3))
    run = shard.run

    async def broken(name: str, *args: object, **more: object) -> object:
        if name == "swap_triggers":
            raise ConnectionError("lost")
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", broken)
    with pytest.raises(ConnectionError):
        await triggers.replace(shard, "acme", numbered(8, "0 * * * *"))
    assert len((await catalog.read(shard, "acme")).triggers) == 3
    staged = [key async for key in shard.redis.scan_iter("*stage*")]
    assert staged
    for key in staged:
        assert 0 < await shard.redis.ttl(key) <= 600


async def test_of_racing_replaces_one_whole_set_remains(make_shard: ShardFactory) -> None:
    shards = [make_shard() for _ in range(6)]
    sets = [[(f"s{n}-{i}", define()) for i in range(300)] for n in range(6)]
    outcomes = await asyncio.gather(
        *(triggers.replace(s, "acme", set_) for s, set_ in zip(shards, sets, strict=True)),
        return_exceptions=True,
    )
    for outcome in outcomes:
        assert not isinstance(outcome, BaseException) or isinstance(outcome, ReplaceConflict)
    remaining = [t.id for t in (await catalog.read(shards[0], "acme")).triggers]
    assert remaining in [[id_ for id_, _ in set_] for set_ in sets]


async def test_no_reader_and_no_ticker_sees_half_a_set_amid_a_burst(
    make_shard: ShardFactory, clock: Clock
) -> None:
    writer, reader, ticker = make_shard(), make_shard(), make_shard(max_concurrency=0)
    old = [(f"old-{i}", define("* * * * * *")) for i in range(600)]
    new = [(f"new-{i}", define("* * * * * *")) for i in range(600)]
    await triggers.replace(writer, "acme", old)
    done = False

    async def watch() -> None:
        while not done:
            kinds = {t.id[:3] for t in (await catalog.read(reader, "acme")).triggers}
            assert len(kinds) == 1
            clock.advance(0.2)

    async def tick() -> None:
        while not done:
            await ticking.fire_due(ticker)
            await ticking.refill(ticker)

    watching, burst = asyncio.create_task(watch()), asyncio.create_task(tick())
    for round_ in range(6):
        await triggers.replace(writer, "acme", new if round_ % 2 == 0 else old)
    done = True
    await asyncio.gather(watching, burst)
    while await upkeep.clear_removed(writer):
        pass
    await accounts_balance(writer, "acme", day_of(clock.now))


async def test_a_trigger_that_fires_while_a_replace_is_prepared_fires_no_slot_twice(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, ticker = make_shard(), make_shard(max_concurrency=0)
    await triggers.replace(writer, "acme", numbered(700))
    run = writer.run
    fired: list[int] = []

    async def fire_before_the_swap(name: str, *args: object, **more: object) -> object:
        if name == "swap_triggers" and not fired:
            clock.advance(60)
            while (outcome := await ticking.fire_due(ticker)).handled:
                fired.append(outcome.made)
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(writer, "run", fire_before_the_swap)
    await triggers.replace(writer, "acme", [*numbered(700), ("more", define("0 0 1 1 *"))])
    assert sum(fired) == 700
    assert (await ticking.fire_due(ticker)).made == 0
    slots = {t.next_slot for t in (await catalog.read(writer, "acme")).triggers[:-1]}
    assert slots == {clock.now // 60_000 * 60_000 + 60_000}


@pytest.mark.parametrize(
    ("before", "most", "cron"), [(0, 1, "* * * * *"), (1, 2, "*/10 * * * *"), (0, 2, "* * * * *")]
)
async def test_a_run_that_is_made_while_a_replace_is_prepared_is_counted(
    shard: Shard, clock: Clock, monkeypatch: pytest.MonkeyPatch, before: int, most: int, cron: str
) -> None:
    async def fire_a_minute() -> None:
        clock.advance(60)
        while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
            pass

    await triggers.replace(shard, "acme", [("0", define(max_runs=most))])
    for _ in range(before):
        await fire_a_minute()
    run, fired = shard.run, False

    async def fire_before_the_swap(name: str, *args: object, **more: object) -> object:
        nonlocal fired
        if name == "swap_triggers" and not fired:
            fired = True
            await fire_a_minute()
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", fire_before_the_swap)
    await triggers.replace(shard, "acme", [("0", define(cron, max_runs=most, name="new"))])
    for _ in range(15):
        await fire_a_minute()
    assert len(await open_ids(shard, "acme")) == most
    one = await catalog.read_one(shard, "acme", "0")
    assert one is not None
    assert (one.standing, one.runs) == ("finished", most)
    assert await shard.redis.keys("*stage*") == []


async def test_a_slot_that_fires_while_an_edit_is_prepared_is_not_sent_twice(
    make_shard: ShardFactory, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = make_shard(keep_succeeded=0)  # nothing of the first execution tells of it
    await triggers.replace(shard, "acme", [("0", define())])
    clock.now = clock.now // 60_000 * 60_000 + 59_995
    run, sent = shard.run, []

    async def send(number: int) -> None:
        while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
            pass
        for one in await claim_all(shard, number=number):
            sent.append(one.slot)
            await queue.finish(shard, [succeeded(one, clock.now)])

    async def send_before_the_edit(name: str, *args: object, **more: object) -> object:
        if name == "edit_triggers" and not sent:
            clock.advance(0.02)
            await send(1)
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", send_before_the_edit)
    await triggers.edit(shard, "acme", ["0"], lambda _: {"0": define(name="new")})
    await send(2)
    clock.advance(60)
    await send(3)
    assert sent == [clock.now // 60_000 * 60_000 - 60_000, clock.now // 60_000 * 60_000]
    await accounts_balance(shard, "acme", day_of(clock.now))


async def lengthened(shard: Shard) -> float:
    """How many times as long as its CPU time a script takes on this machine just now, at least 1."""
    before = await shard.redis.info("cpu")
    began = time.perf_counter()
    await shard.redis.eval("for n = 1, 5000000 do end", 0)
    took = time.perf_counter() - began
    after = await shard.redis.info("cpu")
    return max(
        1.0,
        took / sum(float(after[name]) - float(before[name]) for name in ("used_cpu_user", "used_cpu_sys")),
    )


async def test_ten_thousand_new_triggers_block_redis_for_no_more_than_20_ms(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard()
    await shard.redis.config_set("slowlog-log-slower-than", 20_000)
    slow = []
    for number in range(3):  # the log tells the wall clock, which a busy machine lengthens
        await shard.redis.slowlog_reset()
        for cron in ("0 * * * *", "0 9 * * *"):
            await triggers.replace(shard, f"big{number}", numbered(10_000, cron))
        await catalog.read(shard, f"big{number}")
        await triggers.replace(shard, f"big{number}", [])
        logged = [(entry["duration"], entry["command"][:60]) for entry in await shard.redis.slowlog_get()]
        at_most = 20_000 * await lengthened(shard)
        slow = [(duration, command) for duration, command in logged if duration > at_most]
        if not slow:
            break
    assert slow == []


@pytest.mark.parametrize("part", ["definitions", "states", "due"])
async def test_a_preparation_that_was_lost_wipes_nothing(
    shard: Shard, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    await triggers.replace(shard, "acme", numbered(5))
    run = shard.run
    losses = 1

    async def lose_what_was_staged(name: str, *args: object, **more: object) -> object:
        nonlocal losses
        if name == "swap_triggers" and losses:
            losses -= 1
            await shard.redis.delete(shard.keys.staged("acme", int(str(args[1])), part))
        return await run(name, *args, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(shard, "run", lose_what_was_staged)
    done = await triggers.replace(shard, "acme", numbered(7))
    assert (done.added, done.removed, losses) == (7, 5, 0)
    assert len((await catalog.read(shard, "acme")).triggers) == 7


def test_equal_definitions_have_equal_bytes() -> None:
    usual = define()
    given = define(
        timezone="".join(["U", "TC"]),
        timeout_seconds=float("30"),
        retry_max_delay_seconds=float("3600"),
        catch_up_window_seconds=int("86400"),
        name="".join([]),
    )
    assert pack_definition(given) == pack_definition(usual)
