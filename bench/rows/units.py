"""What one of everything costs Redis, without sending anything: CPU of a slot that is fired, of an execution
that is claimed and finished, of a refill, of a workspace in what goes through all; bytes that slots leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime

import msgspec

from app.clock import day_of
from app.config import Settings
from app.models import Attempt
from app.store import Shard, connect, executions, queue, ticking, triggers, workspaces
from app.store.queue import Ended
from bench.lab import Lab
from bench.load import same_sets
from bench.result import Context, Figure, Row
from lab.lab import RedisServer

_DAY = 86_400_000
_HOUR = 3_600_000
_CLAIMED_AT_ONCE = 100


class _Spent(msgspec.Struct):
    """How often something was done, and what Redis and this process needed for it, in µs of CPU."""

    number: int = 0
    redis: float = 0.0
    own: float = 0.0

    @property
    def each(self) -> float:
        """Redis's share, of one."""
        return self.redis / max(1, self.number)

    @property
    def own_each(self) -> float:
        """This process's, of one."""
        return self.own / max(1, self.number)


class _Day:
    """A whole UTC day of hourly triggers, as fast as the scripts run, on a clock of its own."""

    def __init__(self, server: RedisServer, count: int, each: int) -> None:
        self._server, self._sets = (
            server,
            list(same_sets("0 * * * *", "https://api.example.com", count, each)),
        )
        self._now = (int(datetime.now(UTC).timestamp() * 1000) // _DAY - 1) * _DAY - _HOUR
        settings = Settings(redis_url=server.url)
        self.shard = Shard(connect(settings), settings, now=lambda: self._now)
        self.fired, self.sent, self.refilled = _Spent(), _Spent(), _Spent()
        self.counted, self.listed = _Spent(), _Spent()
        self._claims = 0

    async def run(self, hours: int) -> None:
        """Let the hours pass."""
        for workspace, members in self._sets:
            await triggers.replace(self.shard, workspace, members)
        for _ in range(hours):
            self._now += _HOUR
            while await self._spend(self.fired, self._fire()):
                pass
            while await self._spend(self.refilled, ticking.refill(self.shard)):
                pass
            while await self._spend(self.sent, self._send()):
                pass
        await self._spend(self.counted, self._count())
        await self._spend(self.listed, self._list())

    async def _spend(self, spent: _Spent, work: Awaitable[int]) -> int:
        before, own = self._cpu(), time.process_time()
        number = await work
        spent.redis += self._cpu() - before
        spent.own += 1e6 * (time.process_time() - own)
        spent.number += number
        return number

    async def _fire(self) -> int:
        return (await ticking.fire_due(self.shard)).handled

    async def _send(self) -> int:
        self._claims += 1
        claimed = (await queue.claim(self.shard, "w", self._claims, _CLAIMED_AT_ONCE)).executions
        made = Attempt(self._now, 20, 200, "", "", "ok", "w")
        await queue.finish(self.shard, [Ended(one.id, one.token, "succeeded", 0, made) for one in claimed])
        return len(claimed)

    async def _count(self) -> int:
        return len(await workspaces.counts(self.shard, [workspace for workspace, _ in self._sets]))

    async def _list(self) -> int:
        """The newest execution of all workspaces, as GET /api/executions looks for it."""
        names = [workspace for workspace, _ in self._sets]
        await executions.list_everywhere([(self.shard, names)], limit=1)
        return len(names)

    def _cpu(self) -> float:
        info = self._server.client.info("cpu")
        assert isinstance(info, dict)
        return 1e6 * (float(info["used_cpu_user"]) + float(info["used_cpu_sys"]))

    def bytes_of(self, *names: str) -> int:
        """What these keys of all workspaces take."""
        keys = [self.shard.keys.of(workspace, name) for workspace, _ in self._sets for name in names]
        return sum(self._server.client.memory_usage(key, samples=0) or 0 for key in keys)

    @property
    def today(self) -> int:
        """The number of the day."""
        return day_of(self._now)


def run(context: Context) -> Row:
    """One Redis, one process, one call after the other."""
    count, each, hours = (40, 20, 8) if context.small else (2000, 100, 24)
    with Lab() as lab:
        day = _Day(lab.redis(), count, each)

        async def work() -> None:
            try:
                await day.run(hours)
            finally:
                await day.shard.redis.aclose()

        asyncio.run(work())
        ledger = day.bytes_of(f"day:{day.today}", f"timings:{day.today}") / count
        last = day.bytes_of("last") / count / hours
    figures = [
        Figure(name=name, unit=unit, ours=value, better="lower")
        for name, unit, value in (
            ("Redis CPU, a slot fired", "µs", day.fired.each),
            ("Redis CPU, an execution claimed and finished", "µs", day.sent.each),
            ("Redis CPU, a trigger refilled", "µs", day.refilled.each),
            ("a worker's CPU, a trigger refilled", "µs", day.refilled.own_each),
            ("Redis CPU, a workspace counted", "µs", day.counted.each),
            ("Redis CPU, a workspace in a list of all executions", "µs", day.listed.each),
            ("the API's CPU, a workspace in a list of all executions", "µs", day.listed.own_each),
            ("ledger, a trigger's day", "bytes", ledger),
            ("last slots of a trigger, each", "bytes", last),
        )
    ]
    numbers = {"fired": day.fired.number, "sent": day.sent.number, "refilled": day.refilled.number}
    return Row(figures, {"triggers": count, "each": each, "hours": hours, **numbers})
