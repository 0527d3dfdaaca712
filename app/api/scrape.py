"""``/metrics``: figures of the whole fleet, and of this process, for Prometheus."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.config import Settings
from app.redis_errors import kind_of_error
from app.store import Shards, fleet, server, witness
from app.store.census import Census
from app.store.history import WHATS
from app.telemetry.figures import CONTENT_TYPE, Figures, write_out
from app.telemetry.fleet_figures import Reading, fleet_figures
from app.telemetry.metrics import REDIS_ERRORS, REDIS_UP

_FRESH_SECONDS = 1.0  # several scrapers, and those in a hurry, get what was read for the first


class Scrape:
    """Reads what ``/metrics`` tells of the fleet, at most once a second."""

    def __init__(self, shards: Shards, own: Figures) -> None:
        self._shards = shards
        self._own = own
        self._census = Census(shards, shards.settings.metrics_workspaces)
        self._turn = asyncio.Lock()
        self._read = -_FRESH_SECONDS
        self._text = b""

    async def text(self) -> bytes:
        """The figures in Prometheus's format."""
        async with self._turn:
            if time.monotonic() - self._read >= _FRESH_SECONDS:
                self._text = write_out(self._own, *await self._fleet())
                self._read = time.monotonic()
        return self._text

    async def _fleet(self) -> list[Figures]:
        """The fleet's figures; none while Redis is away."""
        try:
            figures = fleet_figures(await self._look())
        except (RedisError, OSError) as error:
            self._own.set(REDIS_UP, 0)
            self._own.add(REDIS_ERRORS, kind_of_error(error))
            return []
        self._own.set(REDIS_UP, 1)
        return [figures]

    async def _look(self) -> Reading:
        found = await fleet.read(self._shards)
        readable = found.readable(self._shards)
        redis, *_ = await server.look_at_all(readable)
        if not found.unread:
            await self._census.go_on()
        total = self._census.total
        stand = [await witness.status(one) for one in readable]
        return Reading(
            # What never happened is 0: a counter that begins with 3 has not increased, and nobody is alarmed.
            totals=None if found.unread else dict.fromkeys(WHATS, 0) | found.totals,
            triggers=total.triggers if total else {},
            executions=total.executions if total else {},
            of_each=self._census.of_each,
            workspaces=found.workspaces,
            unread=len(found.unread),
            held=Counter(hold.kind for one in stand for hold in one.holds),
            last_loss=max((loss.noticed for one in stand for loss in one.losses), default=0),
            ready=found.ready,
            queue_wait=found.queue_wait,
            overdue=found.overdue,
            ticker_lag=found.ticker_lag,
            running=found.running,
            capacity=found.capacity,
            alive=len(found.alive),
            silent=len(found.workers) - len(found.alive),
            used_memory=redis.used_memory,
            max_memory=redis.max_memory,
        )


def scrape_routes(settings: Settings, shards: Shards, own: Figures) -> list[Route]:
    """The route, if the settings want it; ``own`` are the figures of this process."""
    if settings.metrics == "off":
        return []
    scrape = Scrape(shards, own)

    async def metrics(request: Request) -> Response:
        if settings.metrics == "authenticated":
            (await request.app.state.gate.identify(request)).need_everywhere("read")
        return Response(await scrape.text(), media_type=CONTENT_TYPE)

    return [Route("/metrics", metrics)]
