"""Writes are confirmed by replicas, so that no failover to one of them loses what was acknowledged.

WAIT counts what was written before it on its own connection. So something small is written on the connection
that waits: what was written before, on whichever connection, stands before it in what the replicas get. That
holds as long as the primary is the same. After a failover between a write and its confirmation the new
primary's replicas agree with it in that they know nothing of the write: therefore a confirmation counts only
when the primary's history (its replication id) is the one from before the write.
"""

from __future__ import annotations

import logging
import time

from redis.exceptions import RedisError

from app.store.server import Server, history_of, look, replicas_of
from app.store.shard import Shard

log = logging.getLogger(__name__)

_LOOK_SECONDS = 10.0
_WARN_AGAIN_SECONDS = 3600.0


class Replicas:
    """What a process knows of its shard's primary and replicas."""

    def __init__(self, shard: Shard, look_seconds: float = _LOOK_SECONDS) -> None:
        self._shard = shard
        self.outage = shard.outage
        self._look_seconds = look_seconds
        self._history = ""  # of the primary; empty: not known yet
        self._connected = 0  # replicas, when we looked last
        self._warned: dict[str, float] = {}  # warning → when it was logged, by the monotonic clock
        self._next_look = 0.0

    @property
    def connected(self) -> int:
        """How many replicas there were a moment ago."""
        return self._connected

    async def history(self) -> str:
        """What a later confirmation is held against: to be asked for before the write.

        It may be out of date, and then one confirmation fails that need not. It is empty where INFO is
        forbidden: nothing can be confirmed there.
        """
        if not self._history:
            await self.look()
        return self._history

    async def look(self) -> Server:
        """Look at the server, and keep what is of use here."""
        server = await look(self._shard)
        self._history, self._connected = server.history, server.replicas
        return server

    async def watch(self) -> float:
        """Look now and then, and log what is wrong with how Redis is run: when it is new, and again every
        hour. Returns the seconds until the next look; several may watch, and it is looked once.
        """
        now = time.monotonic()
        if now < self._next_look:
            return self._next_look - now
        warnings = (await self.look()).warnings()
        self._next_look = now + self._look_seconds
        self._warned = {one: at for one, at in self._warned.items() if one in warnings}
        for warning in warnings:
            if warning not in self._warned or now - self._warned[warning] >= _WARN_AGAIN_SECONDS:
                log.warning("%s", warning)
                self._warned[warning] = now
        return self._look_seconds

    async def confirm(self, since: str, wanted: int) -> str:
        """Wait until that many replicas have all that this process has written since :meth:`history` told
        ``since``. Returns why that is not known to be so; empty when it is.
        """
        seconds = self._shard.settings.wait_replicas_seconds
        try:
            async with self._shard.redis.pipeline(transaction=False) as pipe:
                await self._shard.run("take_serial", client=pipe)
                pipe.wait(wanted, int(seconds * 1000))
                pipe.info("replication")
                _, confirmed, info = await pipe.execute()
        except (RedisError, OSError) as error:
            return f"Redis failed ({error or type(error).__name__})"
        self._history, self._connected = history_of(info), replicas_of(info)
        if self._history != since:
            return "Redis has failed over or restarted meanwhile"
        if confirmed < wanted:
            return f"{confirmed} of {wanted} replicas have it after {seconds:g} s"
        return ""
