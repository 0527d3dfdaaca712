"""This worker's places at target hosts. Only with ``CRONSPACE_MAX_CONCURRENCY_PER_HOST``.

An execution that was claimed enters before it is sent, and leaves when its request is over. A place lasts for
a lease, and is renewed; so a dead worker's places are free again when its executions are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from app.loops import Loop
from app.store import Shard, hosts
from app.store.queue import Claimed
from workers.delivery import host_of


class HostPlaces:
    """The places that one worker holds."""

    def __init__(self, shard: Shard, worker: str) -> None:
        self._shard, self._worker = shard, worker
        self._held: dict[str, str] = {}  # execution → host
        self._left: dict[hosts.Place, None] = {}
        self._turn = asyncio.Lock()  # or an execution that enters anew could be overtaken by its leaving
        self._third = shard.settings.lease_seconds / 3
        self._renewed = 0.0  # by the monotonic clock
        self._is_left = False  # somebody could be called, but one call did not get through
        self.keeper = Loop("host places", self.keep, outage=shard.outage)

    async def enter(self, executions: Sequence[Claimed]) -> list[Claimed]:
        """Those of some claimed executions that may be sent; the others wait in Redis for their turn."""
        wanted = [(one, host_of(one)) for one in executions]
        asking = [(one, host) for one, host in wanted if host]
        if not asking:
            return list(executions)
        async with self._turn:
            for one, host in asking:
                self._left.pop((one.id, host), None)
            entered = await hosts.enter(self._shard, self._worker, asking)
        refused = set()
        for (one, host), is_in in zip(asking, entered, strict=True):
            if is_in:
                self._held[one.id] = host
            else:
                refused.add(one.id)
        return [one for one in executions if one.id not in refused]

    def leave(self, id_: str) -> None:
        """A request is over."""
        host = self._held.pop(id_, None)
        if host is not None:
            self._left[id_, host] = None
            self.keeper.wake()

    async def keep(self) -> float:
        """Tell Redis who left; renew the rest in time."""
        async with self._turn:
            begun, left = time.monotonic(), list(self._left)
            is_time = self._is_left or begun - self._renewed >= self._third
            renewed = list(self._held.items()) if is_time else []
            if left or is_time:
                self._is_left = await hosts.keep(self._shard, self._worker, renewed, left, is_time)
            for place in left:
                del self._left[place]
            if is_time:
                self._renewed = begun
        return 0.0 if self._is_left else max(0.0, self._renewed + self._third - time.monotonic())
