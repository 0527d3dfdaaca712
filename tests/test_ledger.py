"""The ledger against an independent list of the slots there were, and against what the target received."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import UTC, datetime
from typing import Any

from conftest import START, Clock
from cronsim import CronSim
from helpers import accounts_balance, day_counts, define
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from msgspec import structs
from strategies import examples

from app.clock import day_of
from app.config import Settings
from app.models import Attempt, Definition, State
from app.store import Shard, connect, executions, holds, queue, ticking, triggers, upkeep
from app.store.queue import Claimed, Ended

CRONS = {
    "seconds": "*/20 * * * * *",
    "minutes": "* * * * *",
    "fives": "*/5 * * * *",
    "hours": "7 * * * *",
    "caught": "*/10 * * * *",
    "latest": "*/4 * * * *",
    "skips": "* * * * *",
    "queues": "* * * * *",
    "replaces": "* * * * *",
    "once": "*/3 * * * *",
}
POLICIES = {
    "caught": {"catch_up_missed": "all", "catch_up_window_seconds": 3600},
    "latest": {"catch_up_missed": "latest"},
    "skips": {"overlap_policy": "skip"},
    "queues": {"overlap_policy": "queue", "queue_limit": 2},
    "replaces": {"overlap_policy": "replace"},
    "once": {"delivery": "at_most_once"},
}


def oracle(cron: str, after: int, until: int) -> list[int]:
    """The slots in (after, until], by cronsim."""
    found = []
    for moment in CronSim(cron, datetime.fromtimestamp(after / 1000, UTC)):
        slot = round(moment.timestamp() * 1000)
        if slot > until:
            return found
        found.append(slot)
    raise AssertionError("cronsim never ends")


class World:
    """A workspace under changes of every kind, and beside it the independent account."""

    def __init__(self, shard: Shard, clock: Clock) -> None:
        self.shard, self.clock = shard, clock
        self.defined: dict[str, tuple[Definition, int]] = {}  # since when, ms
        self.paused: dict[str, int] = {}
        self.workspace_paused = 0
        self.expected: dict[str, set[int]] = {}
        self.sent: Counter[str] = Counter()  # executions at the target
        self.told: Counter[str] = Counter()  # failures that were told, and are worth another try
        self.held: list[Claimed] = []
        self.claims = 0

    def definition(self, id_: str, variant: int) -> Definition:
        return define(
            CRONS[id_] if variant != 2 else "*/2 * * * *", name=f"v{variant}", **POLICIES.get(id_, {})
        )

    def account(self, id_: str) -> None:
        """Write down which slots a trigger had since it was last looked at."""
        now = self.clock.now
        if id_ in self.defined:
            definition, since = self.defined[id_]
            if id_ not in self.paused and not self.workspace_paused and definition.enabled:
                self.expected.setdefault(id_, set()).update(oracle(definition.cron, since, now))
            self.defined[id_] = definition, now

    def account_all(self) -> None:
        for id_ in self.defined:
            self.account(id_)

    async def replace(self, wanted: dict[str, int]) -> None:
        self.account_all()
        new = {
            id_: structs.replace(self.definition(id_, variant), enabled=variant != 3)
            for id_, variant in wanted.items()
        }
        await triggers.replace(self.shard, "acme", list(new.items()))
        self.paused = {id_: at for id_, at in self.paused.items() if id_ in new}
        self.defined = {id_: (one, self.clock.now) for id_, one in new.items()}

    async def edit(self, id_: str, variant: int) -> None:
        self.account_all()
        new = self.definition(id_, variant) if variant != 4 else None
        await triggers.edit(self.shard, "acme", [id_], lambda _: {id_: new})
        if new is None:
            self.defined.pop(id_, None)
            self.paused.pop(id_, None)
        else:
            self.defined[id_] = new, self.clock.now

    async def pause(self, id_: str) -> None:
        self.account_all()
        if id_ in self.defined:
            await holds.pause_triggers(self.shard, "acme", [id_])
            self.paused.setdefault(id_, self.clock.now)

    async def resume(self, id_: str) -> None:
        self.account_all()
        await holds.resume_triggers(self.shard, "acme", [id_])
        self.paused.pop(id_, None)

    async def pause_workspace(self, on: bool) -> None:
        self.account_all()
        if on:
            await holds.pause_workspace(self.shard, "acme")
        else:
            await holds.resume_workspace(self.shard, "acme")
        self.workspace_paused = int(on)

    async def tick(self) -> None:
        while True:
            fired = await ticking.fire_due(self.shard)
            if not fired.handled and not await ticking.refill(self.shard):
                break
        await upkeep.clear_removed(self.shard)

    async def work(self, fate: int) -> None:
        """Claim and send; some fail, some are retried, some stay with a worker that dies."""
        self.claims += 1
        claimed = (await queue.claim(self.shard, f"w{self.claims}", 1, 40)).executions
        ended = []
        for index, one in enumerate(claimed):
            self.sent[one.id] += 1
            what: Any = ("succeeded", "succeeded", "failed", "retry", "dies")[(fate + index) % 5]
            if what == "retry":
                self.told[one.id] += 1
            if what == "dies":
                self.held.append(one)
                continue
            kind = "" if what == "succeeded" else "status"
            made = Attempt(self.clock.now, 3, 200 if not kind else 500, kind, "", "", "w")
            ended.append(Ended(one.id, one.token, what, 20_000, made))
        await queue.finish(self.shard, ended)

    async def pass_time(self, seconds: int, alive: bool) -> None:
        """Time passes; with living workers step by step, else at once: an outage."""
        if not alive:
            self.clock.advance(seconds)
            return
        for _ in range(0, seconds, 5):
            self.clock.advance(5)
            await queue.renew(self.shard, {})
            if self.clock.now % 15_000 < 5_000:
                await self.tick()


ids = st.sampled_from(sorted(CRONS))
sets = st.dictionaries(ids, st.integers(0, 3), max_size=8)
steps = st.one_of(
    st.tuples(st.just("replace"), sets),
    st.tuples(st.just("edit"), st.tuples(ids, st.integers(0, 4))),
    st.tuples(st.just("pause"), ids),
    st.tuples(st.just("resume"), ids),
    st.tuples(st.just("pause_workspace"), st.booleans()),
    st.tuples(st.just("tick"), st.none()),
    st.tuples(st.just("work"), st.integers(0, 4)),
    st.tuples(st.just("work"), st.integers(0, 4)),
    st.tuples(st.just("outage"), st.integers(30, 9000)),
    st.tuples(st.just("live"), st.integers(30, 300)),
)


async def run_world(world: World, script: list[tuple[str, Any]]) -> None:
    await world.replace(dict.fromkeys(CRONS, 0))
    for what, given_ in script:
        if what == "edit":
            await world.edit(*given_)
        elif what == "tick":
            await world.tick()
        elif what in ("outage", "live"):
            await world.pass_time(given_, what == "live")
        else:
            await getattr(world, what)(given_)
    await world.pause_workspace(False)
    for id_ in list(world.paused):
        await world.resume(id_)
    world.account_all()
    await world.tick()


async def check_world(world: World) -> None:
    shard, now = world.shard, world.clock.now
    days = range(day_of(START), day_of(now) + 1)
    await accounts_balance(shard, "acme", *days)
    for id_, slots in world.expected.items():
        counted: Counter[str] = Counter()
        for day in days:
            counted.update((await day_counts(shard, "acme", day)).get(id_, {}))
        assert counted["due"] == len(slots), (id_, counted)
    counted_triggers = set()
    for day in days:
        counted_triggers |= set(await day_counts(shard, "acme", day))
    assert counted_triggers <= set(world.expected), "counted, but there never was such a slot"
    # What the target got are slots that there were; what the ledger calls sent, it got.
    for execution in world.sent:
        _, id_, slot = execution.split(":")
        assert int(slot) in world.expected[id_], execution
    for page_state in State:
        page = await executions.list_newest(shard, "acme", state=page_state, limit=100_000)
        for one in page.executions:
            assert one.slot in world.expected[one.trigger], one
            if one.state in (State.SUCCEEDED, State.FAILED):
                assert world.sent[one.id] >= 1
            if one.state in (State.SKIPPED, State.MISSED):
                assert world.sent[one.id] == 0
            if one.trigger == "once":
                assert world.sent[one.id] <= 1 + world.told[one.id]  # a loss is not retried


@settings(examples(60), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=3, max_size=25))
def test_the_ledger_agrees_with_cronsim_whatever_happens(
    redis_url: str, script: list[tuple[str, object]]
) -> None:
    note(script)

    async def run() -> None:
        clock = Clock()
        options = Settings(redis_url=redis_url, max_concurrency=25, keep_succeeded=10_000, keep_failed=10_000)
        shard = Shard(connect(options), options, now=clock)
        try:
            await shard.redis.flushdb()
            world = World(shard, clock)
            await run_world(world, script)
            await check_world(world)
        finally:
            await shard.redis.aclose()

    asyncio.run(run())
