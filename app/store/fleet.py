"""The whole at a glance, in a few commands however much there is: what is due, what is ready, who works."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from app.keys import split_execution_id
from app.store.everywhere import ask_each
from app.store.shard import Shard
from app.store.shards import Shards
from app.store.workers import Seen, all_seen, merge

_DUE_AT_ONCE = 1000  # due workspaces whose overdue slots are counted one by one


class Waiting(Struct, frozen=True):
    """Something that is behind its time."""

    workspace: str
    trigger: str | None
    since: int  # ms


class Fleet(Struct, frozen=True, kw_only=True):
    """How all stands. Times are ms since the epoch, by Redis's clock."""

    now: int
    pulse: int | None  # when a worker last called
    workers: list[Seen]
    ready: int  # executions that wait for a worker
    oldest_ready: Waiting | None
    overdue: int  # triggers whose slot has come and is not fired
    oldest_overdue: Waiting | None
    workspaces: int
    totals: dict[str, int]  # what happened since ever: due, each final state with its reason, takeovers
    unserved: Sequence[int] = ()  # shards whose workers are all silent
    unread: Mapping[int, str] = {}  # shards that could not be asked, and why: all else is of the others

    def readable(self, shards: Shards) -> list[Shard]:
        """The shards that could be asked."""
        return [shard for number, shard in enumerate(shards) if number not in self.unread]

    @property
    def alive(self) -> list[Seen]:
        """The workers whose heartbeats come."""
        return [one for one in self.workers if not one.is_silent(self.now)]

    @property
    def missing(self) -> list[Seen]:
        """The silent workers in whose place nobody has come, the longest silent first: a worker that started
        after the last heartbeat of one is there for it, of any name, and for no other one.
        """
        came = iter(sorted(one.facts.started for one in self.alive))
        silent = sorted((one for one in self.workers if one.is_silent(self.now)), key=lambda one: one.at)
        # Each takes the first who may have come for it, so that most find one.
        return [gone for gone in silent if not any(started > gone.at for started in came)]

    @property
    def running(self) -> int:
        """Requests on their way."""
        return sum(one.facts.running for one in self.alive)

    @property
    def capacity(self) -> int:
        """Requests at once at most."""
        return sum(one.facts.capacity for one in self.alive)

    @property
    def ticker_lag(self) -> int:
        """How long the earliest unfired slot has been waiting, ms."""
        return 0 if self.oldest_overdue is None else self.now - self.oldest_overdue.since

    @property
    def queue_wait(self) -> int:
        """How long the first ready execution has been ready, ms."""
        return 0 if self.oldest_ready is None else self.now - self.oldest_ready.since


async def read(shards: Shards) -> Fleet:
    """How all stands, over all shards that can be asked. Raises what it raises where none can."""
    found, unread = await ask_each(shards, _read)
    return _together(found, unread)


def _together(found: Mapping[int, Fleet], unread: Mapping[int, str]) -> Fleet:
    """The whole, of what each shard told."""
    each = found.values()
    totals: Counter[str] = Counter()
    for one in each:
        totals.update(one.totals)
    return Fleet(
        now=max(one.now for one in each),
        pulse=min((one.pulse for one in each if one.pulse is not None), default=None),
        workers=merge(worker for one in each for worker in one.workers),
        unserved=[number for number, one in found.items() if not one.alive],
        unread=unread,
        ready=sum(one.ready for one in each),
        oldest_ready=_oldest(one.oldest_ready for one in each),
        overdue=sum(one.overdue for one in each),
        oldest_overdue=_oldest(one.oldest_overdue for one in each),
        workspaces=sum(one.workspaces for one in each),
        totals=dict(totals),
    )


def _oldest(waiting: Iterable[Waiting | None]) -> Waiting | None:
    return min((one for one in waiting if one is not None), key=lambda one: one.since, default=None)


async def _read(shard: Shard) -> Fleet:
    keys, now = shard.keys, await shard.now_ms()
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.hget(keys.root, "pulse")
        pipe.zcount(keys.queue, "-inf", now)
        pipe.zrange(keys.queue, 0, 0, withscores=True)
        pipe.zrangebyscore(keys.due, "-inf", now, 0, _DUE_AT_ONCE, withscores=True)
        pipe.zcard(keys.workspaces)
        pipe.hgetall(keys.totals)
        pulse, ready, first, due, workspaces, totals = await pipe.execute()
    return Fleet(
        now=now,
        pulse=None if pulse is None else int(pulse),
        workers=await all_seen(shard),
        ready=ready,
        oldest_ready=_oldest_ready(shard, first) if ready else None,
        overdue=await _overdue(shard, [workspace.decode() for workspace, _ in due], now),
        oldest_overdue=await _oldest_overdue(shard, due[0][0].decode()) if due else None,
        workspaces=workspaces,
        totals={what.decode(): int(number) for what, number in totals.items()},
    )


def _oldest_ready(shard: Shard, first: list[tuple[bytes, float]]) -> Waiting | None:
    try:
        job, since = first[0]
        workspace, trigger, _ = split_execution_id(job.decode().removeprefix(shard.keys.job_id("")))
    except (IndexError, ValueError):  # claimed meanwhile; or none of ours
        return None
    return Waiting(workspace, trigger, int(since))


async def _overdue(shard: Shard, workspaces: list[str], now: int) -> int:
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace in workspaces:
            pipe.zcount(shard.keys.of(workspace, "due"), "-inf", now)
        return sum(await pipe.execute())


async def _oldest_overdue(shard: Shard, workspace: str) -> Waiting | None:
    first = await shard.redis.zrange(shard.keys.of(workspace, "due"), 0, 0, withscores=True)
    return Waiting(workspace, first[0][0].decode(), int(first[0][1])) if first else None
