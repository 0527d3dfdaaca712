"""Calls that Redis refuses, as the log tells of them: not each, for probes and scrapes make a stream."""

from __future__ import annotations

import asyncio
import logging

from app.loops import Loop
from app.outage import Outage
from app.store import Shards, readiness
from app.store.connection import address_of

log = logging.getLogger(__name__)

_QUIET_SECONDS = 2.0  # without a refused call: what only some calls meet is no new outage each time
_FAR_SECONDS = 3600.0


class Refusals:
    """Begins an outage with the first refused call. It is over when Redis takes everything again, which
    ``loop`` finds out, and no call has been refused for a moment.
    """

    def __init__(self, shards: Shards, quiet_seconds: float = _QUIET_SECONDS) -> None:
        self._shards = shards
        outages = list({id(shard.outage): shard.outage for shard in shards}.values())
        # Which shard's Redis refused is not known where each has its own.
        self._outage = (
            outages[0] if len(outages) == 1 else Outage(redis=address_of(shards.settings.redis_url))
        )
        self._quiet_seconds = quiet_seconds
        self._refused = 0  # calls since the outage began
        self.loop = Loop("calls", self.once, outage=self._outage)

    def met(self, call: str, error: Exception) -> None:
        """A call, such as ``GET /ready``, was refused."""
        log.debug("%s: Redis failed: %s", call, error or type(error).__name__)
        self._refused += 1
        self._outage.met(self.loop, self.loop.name, error)
        self.loop.wake()

    async def once(self) -> float:
        """See whether what calls met is over; sleep while they meet nothing. Raises what they would meet."""
        while self._refused:
            refused = self._refused
            await self._shards.verify()
            await readiness.check_ready(self._shards)
            await asyncio.sleep(self._quiet_seconds)
            if self._refused == refused:
                self._refused = 0
        return _FAR_SECONDS
