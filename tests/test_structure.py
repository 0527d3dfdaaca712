"""Where open executions are, whatever happens: each in one place, and nothing is left when all has ended."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from conftest import Clock
from helpers import accounts_balance, define, failed, succeeded
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from strategies import examples

from app.clock import day_of
from app.config import Settings
from app.keys import split_execution_id
from app.models import Definition, State
from app.store import (
    Shard,
    connect,
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


class Machine:
    """A workspace, what is done to it, and what has to hold after every step."""

    def __init__(self, shard: Shard, clock: Clock, repeats: bool) -> None:
        self.shard, self.clock = shard, clock
        self.held: list[Claimed] = []
        self.number, self.most = 0, 3
        if repeats:
            run = shard.run

            async def twice(name: str, *args: Any, **more: Any) -> Any:
                if name != "store_refills":  # each time it would ask for one more
                    await run(name, *args, **more)
                return await run(name, *args, **more)

            shard.run = twice  # type: ignore[method-assign]

    def definition(self, id_: str, variant: int) -> Definition:
        fields = {**KINDS[id_], "name": f"v{variant % 3}", "enabled": variant != 3}
        if variant == 4:
            fields |= KINDS[sorted(KINDS)[len(id_) % len(KINDS)]]
        return define(**fields)

    async def do(self, what: str, given_: Any) -> None:
        shard = self.shard
        match what:
            case "replace":
                await triggers.replace(shard, "acme", [(i, self.definition(i, v)) for i, v in given_.items()])
            case "edit":
                id_, variant = given_
                new = None if variant == 5 else self.definition(id_, variant)
                await triggers.edit(shard, "acme", [id_], lambda _: {id_: new})
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
                    await queue.renew(shard, {})
            case "tick":
                await self.tick()
            case "claim":
                self.number += 1
                claim = await queue.claim(shard, f"w{given_}", self.number, 1 + given_ * 3)
                self.held += await self.enter(claim.executions) if given_ % 2 else claim.executions
            case "leave":
                await hosts.keep(self.shard, "w", [], [(one.id, "host") for one in self.held], given_)
            case "end":
                await self.end(given_)
            case "cancel":
                ids = sorted(await executions.open_ids(shard, "acme"))
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
                await orders.make(shard, "acme", "retry", made, yielding=not given_)
            case "places":
                await workspaces.change(shard, "acme", {"max_concurrency": given_})
            case "rate":
                await workspaces.change(shard, "acme", {"max_rate": given_})
            case "clear":
                await upkeep.clear_removed(shard)
                await upkeep.trim_finished(shard)

    async def enter(self, claimed: list[Claimed]) -> list[Claimed]:
        """Those that have one of the two places of a host that all go to; the others wait for one."""
        entered = await hosts.enter(self.shard, "w", [(one, "host") for one in claimed])
        return [one for one, is_in in zip(claimed, entered, strict=True) if is_in]

    async def order(self, kind: Any, id_: str, slots: list[int], how: bool) -> None:
        if await triggers.read_definitions(self.shard, "acme", [id_]) != [None]:
            made = [orders.Order(id_, slot) for slot in slots]
            await orders.make(
                self.shard, "acme", kind, made, one_by_one=how, yielding=how and kind == "backfill"
            )

    async def tick(self) -> None:
        while True:
            fired = await ticking.fire_due(self.shard)
            if not fired.handled and not await ticking.refill(self.shard):
                return

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
        await queue.finish(self.shard, outcomes)

    async def check(self) -> None:
        shard, redis, of = self.shard, self.shard.redis, self.shard.keys.of
        at: dict[str, set[str]] = {}
        for place in PLACES:
            at[place] = {id_.decode() for id_ in await redis.zrange(of("acme", place), 0, -1)}
        places = Counter(id_ for ids in at.values() for id_ in ids)
        assert all(number == 1 for number in places.values()), f"in two places: {places.most_common(3)}"
        prefix = shard.keys.arq_job("")
        jobs = {key.decode().removeprefix(prefix) async for key in redis.scan_iter(match=prefix + "*")}
        assert jobs == set(places)
        owners_at = shard.keys.arq_in_progress("")
        owners = {
            key.decode().removeprefix(owners_at) async for key in redis.scan_iter(match=owners_at + "*")
        }
        assert owners <= at["admitted"]
        tag = shard.keys.job_id("")
        queued = {id_.decode().removeprefix(tag) for id_ in await redis.zrange(shard.keys.queue, 0, -1)}
        assert queued == at["admitted"] | at["waiting"]
        limit = int(await redis.hget(of("acme", "meta"), "max_concurrency") or 3)
        self.most = max(self.most, limit or 10_000)  # fewer places take none away
        assert len(at["admitted"]) <= self.most
        waits_for_place = len(at["admitted"]) >= limit > 0
        waits_for_rate = await redis.zscore(shard.keys.paced, "acme") is not None
        assert not at["backlog"] or waits_for_place or waits_for_rate, "waits beside a free place"
        assert not at["late"] or await redis.zscore(shard.keys.late, "acme") is not None
        active, lined = set(), set()
        for kind, found in (("active", active), ("line", lined)):
            start = of("acme", f"{kind}:")
            async for key in redis.scan_iter(match=start.replace("{", "[{]") + "*"):
                trigger = key.decode().removeprefix(start)
                members = await (redis.smembers(key) if kind == "active" else redis.zrange(key, 0, -1))
                ids = {id_.decode() for id_ in members}
                assert {split_execution_id(id_)[1] for id_ in ids} == {trigger}
                if kind == "line":
                    assert await redis.exists(of("acme", f"active:{trigger}")), "a line that nobody heads"
                found |= ids
        assert lined == at["lined"]
        assert active <= set(places) - lined
        await self.check_triggers()
        today = day_of(self.clock.now)
        await accounts_balance(shard, "acme", *range(today - 3, today + 1))

    async def check_triggers(self) -> None:
        """Each trigger stands somewhere, and only there; the shard knows the earliest slot."""
        redis, of = self.shard.redis, self.shard.keys.of
        ids = set(await redis.hkeys(of("acme", "states")))
        assert ids == set(await redis.hkeys(of("acme", "definitions")))
        due = dict(await redis.zrange(of("acme", "due"), 0, -1, withscores=True))
        dry, finished = await redis.smembers(of("acme", "dry")), await redis.smembers(of("acme", "finished"))
        disabled = set(await redis.hkeys(of("acme", "disabled")))
        paused = set(await redis.hkeys(of("acme", "pauses"))) & ids
        assert not set(due) & dry
        assert not (set(due) | dry) & (finished | disabled)
        assert ids - paused <= set(due) | dry | finished | disabled
        earliest = await redis.zscore(self.shard.keys.due, "acme")
        held = await redis.hexists(of("acme", "meta"), "paused")
        assert earliest == (None if held or not due else min(due.values()))

    async def drain(self) -> None:
        """Let everything end."""
        await self.do("hold", False)
        await self.do("rate", None)
        await triggers.replace(self.shard, "acme", [])
        for number in range(1000, 1400):
            if not await executions.open_ids(self.shard, "acme"):
                break
            self.clock.advance(5)  # a longer silence would put takeovers off
            await queue.renew(self.shard, {})
            await upkeep.clear_removed(self.shard)
            claim = await queue.claim(self.shard, f"d{number}", number, 50)
            await queue.finish(self.shard, [succeeded(one, self.clock.now) for one in claim.executions])
            await self.check()
        assert await executions.open_ids(self.shard, "acme") == set()
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
@given(st.lists(steps, min_size=5, max_size=40), st.booleans())
def test_every_open_execution_is_in_one_place_whatever_happens(
    redis_url: str, script: list[tuple[str, Any]], repeats: bool
) -> None:
    note(script)

    async def run() -> None:
        clock = Clock()
        options = Settings(
            redis_url=redis_url,
            max_concurrency=3,
            max_backlog=12,
            lease_seconds=LEASE,
            keep_succeeded=5,
            max_concurrency_per_host=2,
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
