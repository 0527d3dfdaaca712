"""What one of everything costs Redis, without sending anything: CPU of a slot that is fired, of an execution
that is claimed and finished, of a refill, of a workspace in what goes through all; bytes that slots leave.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from datetime import UTC, datetime

import msgspec

from app.config import Settings
from app.models import Attempt
from app.store import Shard, connect, executions, queue, ticking, triggers, workspaces
from app.store.queue import Ended
from bench.lab import Lab
from bench.load import same_sets
from bench.result import Context, Figure, Row
from lab.redis_servers import RedisServer

_DAY = 86_400_000
_HOUR = 3_600_000
_CLAIMED_AT_ONCE = 100
_MORE = 200  # workspaces


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


class _Days:
    """Some UTC days of hourly triggers, as fast as the scripts run, on a clock of its own."""

    def __init__(self, server: RedisServer, count: int, each: int) -> None:
        self._server, self._sets = (
            server,
            list(same_sets("0 * * * *", "https://api.example.com", count, each)),
        )
        # What goes through all workspaces meets more of them: what a call costs by itself is not theirs.
        self._names = [workspace for workspace, _ in self._sets] + [f"more-{n}" for n in range(_MORE)]
        self.first_day = int(datetime.now(UTC).timestamp() * 1000) // _DAY - 10
        self._now = self.first_day * _DAY - _HOUR
        settings = Settings(redis_url=server.url())
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
        for name in self._names[len(self._sets) :]:
            await triggers.replace(self.shard, name, [("0", self._sets[0][1][0][1])])
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
        ended = []
        for number, one in enumerate(claimed):
            some = 7 * self._claims + 13 * number  # different ones: the timings have a bucket for each range
            made = Attempt(self._now + some % 50, 20 + some % 180, 200, "", "", "ok", "w")
            ended.append(Ended(one.id, one.token, "succeeded", 0, made))
        await queue.finish(self.shard, ended)
        return len(claimed)

    async def _count(self) -> int:
        return len(await workspaces.counts(self.shard, self._names))

    async def _list(self) -> int:
        """The newest execution of all workspaces, as GET /api/executions looks for it."""
        await executions.list_everywhere([(self.shard, self._names)], limit=1)
        return len(self._names)

    def _cpu(self) -> float:
        info = self._server.client.info("cpu")
        assert isinstance(info, dict)
        return 1e6 * (float(info["used_cpu_user"]) + float(info["used_cpu_sys"]))

    def bytes_of(self, *names: str) -> int:
        """What these keys of all workspaces take."""
        keys = [self.shard.keys.of(workspace, name) for workspace, _ in self._sets for name in names]
        return sum(self._server.client.memory_usage(key, samples=0) or 0 for key in keys)


def run(context: Context) -> Row:
    """One Redis, one process, one call after the other."""
    count, each, hours = (40, 20, 8) if context.small else (500, 100, 120)
    with Lab() as lab:
        days = _Days(lab.redis(), count, each)

        async def work() -> None:
            try:
                await days.run(hours)
            finally:
                await days.shard.redis.aclose()

        asyncio.run(work())
        # A day goes into the timings when a trigger has twice as many last slots as are kept.
        counters = days.bytes_of(f"day:{days.first_day}") / count
        timings = days.bytes_of(f"timings:{days.first_day}") / count
        last = days.bytes_of("last") / count
    figures = [
        Figure(name=name, unit=unit, ours=value, better="lower")
        for name, unit, value in (
            ("Redis CPU, a slot fired", "µs", days.fired.each),
            ("Redis CPU, an execution claimed and finished", "µs", days.sent.each),
            ("Redis CPU, a trigger refilled", "µs", days.refilled.each),
            ("a worker's CPU, a trigger refilled", "µs", days.refilled.own_each),
            ("Redis CPU, a workspace counted", "µs", days.counted.each),
            ("Redis CPU, a workspace in a list of all executions", "µs", days.listed.each),
            ("the API's CPU, a workspace in a list of all executions", "µs", days.listed.own_each),
            ("ledger, counters of a trigger's day", "bytes", counters),
            ("ledger, timings of a trigger's day", "bytes", timings),
            ("last slots of a trigger", "bytes", last),
        )
    ]
    numbers = {"fired": days.fired.number, "sent": days.sent.number, "refilled": days.refilled.number}
    return Row(figures, {"triggers": count, "each": each, "hours": hours, **numbers})
