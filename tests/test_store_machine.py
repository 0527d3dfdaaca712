"""The store as a state machine: random changes, ticks, claims, outcomes, crashes and clocks, and after each
step what has to hold, against a simple model. At the end everything is let go, and nothing is left.

The ledger's own machine, against an independent list of all slots, is in ``test_ledger.py``.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NamedTuple

from conftest import START, Clock
from cronsim import CronSim
from helpers import accounts_balance, bytes_balance, define, failed, open_ids, run_twice, succeeded
from hypothesis import HealthCheck, example, given, note, settings
from hypothesis import strategies as st
from msgspec import structs
from strategies import examples

from app.clock import day_of
from app.config import Settings
from app.errors import TooManyRuns
from app.keys import kind_of, split_execution_id
from app.models import Definition, State, unpack_definition
from app.store import (
    Shard,
    catalog,
    connect,
    definitions,
    executions,
    holds,
    hosts,
    orders,
    queue,
    ticking,
    triggers,
    upkeep,
    workspaces,
)
from app.store.queue import Claimed, Ended

PLACES = ("admitted", "backlog", "waiting", "late", "lined")
KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "skips": {"overlap_policy": "skip"},
    "queues": {"overlap_policy": "queue", "queue_limit": 2},
    "replaces": {"overlap_policy": "replace"},
    "jitters": {"jitter_seconds": 40, "overlap_policy": "queue"},
    "caught": {"cron": "*/2 * * * *", "catch_up_missed": "all", "catch_up_window_seconds": 600},
    "caughtskips": {"cron": "*/5 * * * *", "catch_up_missed": "latest", "overlap_policy": "skip"},
    "once": {"delivery": "at_most_once"},
    "few": {"max_runs": 3, "overlap_policy": "queue"},
    "gone": {"disable_on_gone": True},
}
LEASE = 15


def texts(members: Iterable[bytes]) -> set[str]:
    return {one.decode() for one in members}


def after(names: Iterable[str], start: str) -> list[str]:
    """What follows in the names that begin so."""
    return [name.removeprefix(start) for name in names if name.startswith(start)]


@lru_cache(maxsize=100_000)
def is_slot(cron: str, slot: int) -> bool:
    """Whether an expression has this slot (ms), by cronsim."""
    before = datetime.fromtimestamp(slot / 1000 - 1, UTC)
    return next(CronSim(cron, before)).timestamp() * 1000 == slot


def signed(ended: Ended) -> Ended:
    """An outcome whose attempt tells whose it is: the store knows one that it has recorded by that."""
    if ended.attempt is None:
        return ended
    return structs.replace(ended, attempt=structs.replace(ended.attempt, worker=ended.token))


class Lease(NamedTuple):
    """Who sends an execution, as far as the model knows."""

    worker: str
    token: str
    until: int  # ms


class Model:
    """What a workspace has to be like, told by what was done to it and by what the store replied."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.latest = clock.now
        self.set: dict[str, Definition] = {}  # in its order
        self.leases: dict[str, Lease] = {}  # execution → its last claim, until that ended
        self.ended: set[str] = set()  # executions
        self.crons: dict[str, set[str]] = {}  # trigger → those that it ever had

    def define(self, id_: str, definition: Definition) -> None:
        """A trigger is created or changed."""
        self.set[id_] = definition
        self.crons.setdefault(id_, set()).add(definition.cron)

    def on_claim(self, worker: str, claimed: Claimed) -> None:
        """Judge what a claim gave to a worker."""
        id_, now = claimed.id, self.clock.now
        assert id_ not in self.ended, f"{id_} has ended, and is sent again"
        if kind_of(id_) != "retry":  # which may have a request of its own
            assert claimed.trigger in self.set, f"{id_} is claimed, and its trigger was removed"
            assert unpack_definition(claimed.definition) == self.set[claimed.trigger]
        if kind_of(id_) is None:
            assert claimed.slot <= self.latest, f"{id_} is claimed before its slot"
            assert any(is_slot(cron, claimed.slot) for cron in self.crons[claimed.trigger]), f"{id_} is none"
        lease = self.leases.get(id_)
        if lease is not None and lease.worker != worker:
            assert now >= lease.until, f"{id_} is taken over, and its lease has not lapsed"
            assert claimed.attempts, "the lost attempt is not recorded"
            once = unpack_definition(claimed.definition).delivery == "at_most_once"
            assert not once, f"{id_} may have been sent, and is sent again"
        self.leases[id_] = Lease(worker, claimed.token, now + LEASE * 1000)

    def on_renewal(self, held: dict[str, str], lost: set[str]) -> None:
        """Judge which of the executions (id → token) the store took for somebody's."""
        for id_ in held.keys() - lost:
            lease = self.leases.get(id_)
            assert lease is not None
            assert lease.token == held[id_], f"{id_} was renewed with a token that is none any more"
            self.leases[id_] = lease._replace(until=self.clock.now + LEASE * 1000)

    def on_end(self, ended: Ended, state: State | None) -> None:
        """Judge what the store made of an outcome."""
        lease = self.leases.get(ended.id)
        if lease is None or lease.token != ended.token:
            assert state is None, f"{ended.id}: an outcome with a token that is none any more was recorded"
        else:
            del self.leases[ended.id]
        if state is not None and state not in (State.QUEUED, State.RETRYING):
            self.ended.add(ended.id)


class Machine:
    """A workspace, what is done to it, and what has to hold after every step."""

    def __init__(self, shard: Shard, clock: Clock, repeats: bool) -> None:
        self.shard, self.clock = shard, clock
        self.model = Model(clock)
        self.held: list[Claimed] = []
        self.number, self.most = 0, 3
        if repeats:
            run_twice(shard, but={"store_refills"})  # each time it would ask for one more

    def definition(self, id_: str, variant: int) -> Definition:
        fields = {**KINDS[id_], "name": f"v{variant % 3}", "enabled": variant != 3}
        if variant == 4:
            fields |= KINDS[sorted(KINDS)[len(id_) % len(KINDS)]]
        return define(**fields)

    async def do(self, what: str, given_: Any) -> None:
        shard = self.shard
        match what:
            case "replace":
                await self.replace({id_: self.definition(id_, variant) for id_, variant in given_.items()})
            case "edit":
                id_, variant = given_
                new = None if variant == 5 else self.definition(id_, variant)
                await triggers.edit(shard, "acme", [id_], lambda _: {id_: new})
                if new is None:
                    self.model.set.pop(id_, None)
                else:
                    self.model.define(id_, new)
            case "pause":
                await (holds.pause_triggers if given_[1] else holds.resume_triggers)(
                    shard, "acme", [given_[0]]
                )
            case "hold":
                await (holds.pause_workspace if given_ else holds.resume_workspace)(shard, "acme")
            case "pass":
                self.clock.advance(given_)
                await self.tick()
            case "live":
                for _ in range(given_):
                    self.clock.advance(5)
                    await self.renew({})
            case "back":
                self.clock.advance(-given_)
            case "renew":
                await self.renew({one.id: one.token for one in self.held[given_ % 2 :: 2]})
            case "crash":
                self.held = [one for one in self.held if not one.token.startswith(f"w{given_}:")]
            case "tick":
                await self.tick()
            case "claim":
                await self.claim(f"w{given_}", 1 + given_ * 3, enters=given_ % 2 == 1)
            case "rival":  # while whoever else holds something is silent, for less than a lease or more
                await self.do("live", 12)
                await self.tick()
                slow = await self.claim("w0", 8)
                await self.do("live", given_)
                await self.claim("w1", 20)
                await self.renew({one.id: one.token for one in slow[1::2]})
                told = slow[::2]
                await self.finish([succeeded(one, self.clock.now) for one in told])
                self.held = [one for one in self.held if one not in told]
            case "end":
                await self.end(given_)
            case "cancel":
                ids = sorted(await open_ids(shard, "acme"))
                await orders.cancel(shard, ids[given_::7])
            case "run":
                await self.order("run", given_[0], [self.clock.now], given_[1])
            case "backfill":
                first = self.clock.now // 60_000 * 60_000
                await self.order("backfill", given_[0], [first - n * 60_000 for n in range(3)], given_[1])
            case "retry":
                letters = (await executions.list_newest(shard, "acme", state=State.FAILED)).executions
                made = [
                    orders.Order(
                        one.trigger,
                        one.slot,
                        letter=one.id,
                        free=given_,
                        request=define() if given_ else None,
                    )
                    for one in letters[:3]
                ]
                with suppress(TooManyRuns):
                    await orders.make(shard, "acme", "retry", made, yielding=not given_)
            case "places":
                await workspaces.change(shard, "acme", {"max_concurrency": given_})
            case "rate":
                await workspaces.change(shard, "acme", {"max_rate": given_})
            case "leave":
                await hosts.keep(shard, "w", [], [(one.id, "host") for one in self.held], given_)
            case "clear":
                await upkeep.clear_removed(shard)
                await upkeep.trim_finished(shard)

        self.model.latest = max(self.model.latest, self.clock.now)

    async def replace(self, wanted: dict[str, Definition]) -> None:
        await triggers.replace(self.shard, "acme", list(wanted.items()))
        self.model.set.clear()
        for id_, definition in wanted.items():
            self.model.define(id_, definition)

    async def claim(self, worker: str, at_most: int, enters: bool = False) -> list[Claimed]:
        """``enters``: all go to a host with two places; who finds none gives its claim back and waits."""
        self.number += 1
        claimed = (await queue.claim(self.shard, worker, self.number, at_most)).executions
        assert len({one.id for one in claimed}) == len(claimed) <= at_most
        for one in claimed:
            self.model.on_claim(worker, one)
        if enters:
            entered = await hosts.enter(self.shard, "w", [(one, "host") for one in claimed])
            for one, is_in in zip(claimed, entered, strict=True):
                if not is_in:
                    self.model.on_end(Ended(one.id, one.token, "release"), State.QUEUED)
            claimed = [one for one, is_in in zip(claimed, entered, strict=True) if is_in]
        again = {(one.id, one.token) for one in claimed}  # what comes back to its own worker keeps its token
        self.held = [one for one in self.held if (one.id, one.token) not in again] + claimed
        return claimed

    async def finish(self, outcomes: list[Ended]) -> None:
        outcomes = [signed(one) for one in outcomes]
        for ended, state in zip(outcomes, await queue.finish(self.shard, outcomes), strict=True):
            self.model.on_end(ended, state)

    async def renew(self, held: dict[str, str]) -> None:
        self.model.on_renewal(held, await queue.renew(self.shard, held))

    async def order(self, kind: Any, id_: str, slots: list[int], how: bool) -> None:
        if await definitions.read(self.shard, "acme", [id_]) != [None]:
            made = [orders.Order(id_, slot) for slot in slots]
            await orders.make(
                self.shard, "acme", kind, made, one_by_one=how, yielding=how and kind == "backfill"
            )

    async def tick(self) -> None:
        while True:
            fired = await ticking.fire_due(self.shard)
            if not fired.handled and not await ticking.refill(self.shard):
                break
        of, now = self.shard.keys.of, self.clock.now
        if not await self.shard.redis.hexists(of("acme", "meta"), "paused"):
            assert await self.shard.redis.zcount(of("acme", "due"), 0, now) == 0, "due, and not fired"

    async def end(self, fate: int) -> None:
        """Report what some workers did; the rest stay silent, and may speak up later."""
        now, outcomes, silent = self.clock.now, [], []
        for index, one in enumerate(self.held):
            match (fate + index) % 6:
                case 0 | 1:
                    outcomes.append(succeeded(one, now))
                case 2:
                    outcomes.append(failed(one, now))
                case 3:
                    outcomes.append(failed(one, now, "retry", (fate % 3) * 20_000))
                case 4:
                    outcomes.append(Ended(one.id, one.token, "release"))
                case _:
                    silent.append(one)
        for ended in [failed(one, now) for one in silent if one.trigger == "gone"]:
            outcomes.append(Ended(ended.id, ended.token, "failed", 0, ended.attempt, b"", True))
        self.held = [one for one in silent if one.trigger != "gone"]
        await self.finish(outcomes)

    async def check(self) -> None:
        """Everything that has to hold at any moment."""
        shard, redis, of = self.shard, self.shard.redis, self.shard.keys.of
        keys = [key.decode() for key in await redis.keys("*")]
        heads, lines = (after(keys, of("acme", f"{kind}:")) for kind in ("active", "line"))
        async with redis.pipeline(transaction=False) as pipe:
            for place in PLACES:
                pipe.zrange(of("acme", place), 0, -1)
            pipe.zrange(shard.keys.queue, 0, -1)
            pipe.hget(of("acme", "meta"), "max_concurrency")
            pipe.zscore(shard.keys.late, "acme")
            pipe.zscore(shard.keys.paced, "acme")
            for trigger in heads:
                pipe.smembers(of("acme", f"active:{trigger}"))
            for trigger in lines:
                pipe.zrange(of("acme", f"line:{trigger}"), 0, -1)
            replies = iter(await pipe.execute())
        at = {place: texts(next(replies)) for place in PLACES}
        queued = set(after(texts(next(replies)), shard.keys.job_id("")))
        limit, in_turn, paced = int(next(replies) or 3), next(replies), next(replies)
        places = Counter(id_ for ids in at.values() for id_ in ids)
        assert all(number == 1 for number in places.values()), f"in two places: {places.most_common(3)}"
        assert set(after(keys, shard.keys.arq_job(""))) == set(places)
        assert set(after(keys, shard.keys.arq_in_progress(""))) <= at["admitted"]
        assert queued == at["admitted"] | at["waiting"]
        self.most = max(self.most, limit or 10_000)  # fewer places take none away
        assert len(at["admitted"]) <= self.most
        waits_rightly = len(at["admitted"]) >= limit > 0 or paced is not None
        assert not at["backlog"] or waits_rightly, "waits beside a free place"
        assert not at["late"] or in_turn is not None
        active, lined = set(), set()
        for found, triggers_ in ((active, heads), (lined, lines)):
            for trigger in triggers_:
                ids = texts(next(replies))
                assert {split_execution_id(id_)[1] for id_ in ids} == {trigger}
                found |= ids
        assert set(lines) <= set(heads), "a line that nobody heads"
        assert lined == at["lined"]
        assert active <= set(places) - lined
        await self.check_triggers()
        await bytes_balance(shard, "acme")
        last = day_of(self.model.latest)
        await accounts_balance(shard, "acme", *range(day_of(START), last + 1))

    async def check_triggers(self) -> None:
        """The set is the model's. Each trigger stands somewhere, and only there, at a slot of its schedule;
        the shard knows the earliest.
        """
        shard, of = self.shard, self.shard.keys.of
        stored = (await catalog.read(shard, "acme")).triggers
        assert [(one.id, one.definition) for one in stored] == list(self.model.set.items())
        async with shard.redis.pipeline(transaction=False) as pipe:
            pipe.hkeys(of("acme", "states"))
            pipe.zrange(of("acme", "due"), 0, -1, withscores=True)
            pipe.smembers(of("acme", "dry"))
            pipe.smembers(of("acme", "finished"))
            pipe.hkeys(of("acme", "disabled"))
            pipe.hkeys(of("acme", "pauses"))
            pipe.zscore(shard.keys.due, "acme")
            pipe.hexists(of("acme", "meta"), "paused")
            states, slots, *parts, earliest, held = await pipe.execute()
        dry, finished, disabled, paused = map(texts, parts)
        due = {id_.decode(): int(slot) for id_, slot in slots}
        assert texts(states) == set(self.model.set)
        assert not set(due) & dry
        assert not (set(due) | dry) & (finished | disabled)
        assert set(self.model.set) - paused <= set(due) | dry | finished | disabled
        assert disabled == {id_ for id_, one in self.model.set.items() if not one.enabled}
        assert earliest == (None if held or not due else min(due.values()))
        for id_, slot in due.items():
            assert is_slot(self.model.set[id_].cron, slot), f"{id_} is due at {slot}, which is no slot"

    async def drain(self) -> None:
        """Let everything end."""
        self.clock.now = self.model.latest
        await self.do("hold", False)
        await self.do("rate", None)
        await self.replace({})
        for number in range(1000, 1400):
            if not await open_ids(self.shard, "acme"):
                break
            self.clock.advance(5)  # a longer silence would put takeovers off
            await self.renew({})
            await upkeep.clear_removed(self.shard)
            claimed = await self.claim(f"d{number}", 50)
            await self.finish([succeeded(one, self.clock.now) for one in claimed])
            await self.check()
        assert await open_ids(self.shard, "acme") == set()
        await queue.claim(self.shard, "d", 1, 50)
        left = [
            key
            async for key in self.shard.redis.scan_iter(match="*")
            if b":active:" in key or b":line:" in key
        ]
        assert left == []
        assert await self.shard.redis.zcard(self.shard.keys.late) == 0
        kept = await self.shard.redis.hkeys(self.shard.keys.of("acme", "requests"))
        assert {id_.decode() for id_ in kept} <= {
            one.id
            for one in (
                await executions.list_newest(self.shard, "acme", state=State.FAILED, limit=10_000)
            ).executions
        }


ids = st.sampled_from(sorted(KINDS))
small = st.integers(0, 6)
steps = st.one_of(
    st.tuples(st.just("replace"), st.dictionaries(ids, st.integers(0, 4), max_size=9)),
    st.tuples(st.just("edit"), st.tuples(ids, st.integers(0, 5))),
    st.tuples(st.just("pause"), st.tuples(ids, st.booleans())),
    st.tuples(st.just("hold"), st.booleans()),
    *[st.tuples(st.just("pass"), st.sampled_from([7, 60, 61, 130, 400, 3000]))] * 3,
    st.tuples(st.just("live"), st.integers(1, 6)),
    *[st.tuples(st.just("claim"), small)] * 3,
    *[st.tuples(st.just("end"), small)] * 3,
    *[st.tuples(st.just("rival"), st.integers(1, 4))] * 3,
    st.tuples(st.just("renew"), small),
    st.tuples(st.just("crash"), small),
    st.tuples(st.just("back"), st.sampled_from([1, 20, 61, 700, 4000])),
    st.tuples(st.just("cancel"), small),
    st.tuples(st.just("run"), st.tuples(ids, st.booleans())),
    st.tuples(st.just("backfill"), st.tuples(ids, st.booleans())),
    st.tuples(st.just("retry"), st.booleans()),
    st.tuples(st.just("places"), st.sampled_from([0, 1, 3, 8])),
    st.tuples(st.just("rate"), st.sampled_from([None, 0.02, 0.3, 50])),
    st.tuples(st.just("leave"), st.booleans()),
    st.tuples(st.just("clear"), st.none()),
)


@settings(examples(40), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(steps, min_size=12, max_size=40), st.booleans())  # on average twice the least
# Slots of a trigger that was made anew while the clock was behind, and found late: they had their executions.
@example([("pass", 60), ("replace", {}), ("pass", 60), ("back", 700), ("edit", ("gone", 0))], False)
@example([("pass", 60), ("replace", {}), ("pass", 60), ("back", 700), ("edit", ("few", 0))], False)
def test_every_invariant_holds_whatever_happens(
    redis_url: str, script: list[tuple[str, Any]], repeats: bool
) -> None:
    note(script)

    async def run() -> None:
        clock = Clock()
        options = Settings(
            redis_url=redis_url,
            max_concurrency=3,
            max_concurrency_per_host=2,
            max_backlog=12,
            lease_seconds=LEASE,
            keep_succeeded=5,
            max_kept_bytes=400,  # a few requests
        )
        shard = Shard(connect(options), options, now=clock)
        try:
            await shard.redis.flushdb()
            machine = Machine(shard, clock, repeats)
            await machine.do("replace", dict.fromkeys(KINDS, 0))
            for what, given_ in script:
                await machine.do(what, given_)
                await machine.check()
            await machine.drain()
        finally:
            await shard.redis.aclose()

    asyncio.run(run())
