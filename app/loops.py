"""What every loop that runs beside requests has in common: it sleeps, it wakes, it survives, it stops."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping

from redis.exceptions import RedisError

from app.errors import WrongDeployment
from app.outage import Outage
from app.redis_errors import is_state, kind_of_error
from app.telemetry.figures import Figures
from app.telemetry.metrics import REDIS_ERRORS

log = logging.getLogger(__name__)

_FIRST_BACKOFF, _LONGEST_BACKOFF = 0.05, 1.0


class Loop:
    """Runs ``once`` again and again. ``once`` returns the seconds to sleep before the next time; ``wake``
    ends a sleep early. No exception ends the loop: it is logged, and followed by a growing pause. Loops that
    use the same Redis have one ``outage``, which says so once when it is away.
    """

    def __init__(
        self,
        name: str,
        once: Callable[[], Awaitable[float]],
        figures: Figures | None = None,
        outage: Outage | None = None,
    ) -> None:
        self.name = name
        self._figures = figures
        self._outage = outage or Outage()
        self.failures = 0  # in a row
        self._once = once
        self._wake = asyncio.Event()
        self._stopping = False

    def wake(self) -> None:
        """End the sleep, or skip the next one."""
        self._wake.set()

    def stop(self) -> None:
        """Return from ``run`` after the round under way."""
        self._stopping = True
        self._wake.set()

    def got_through(self) -> None:
        """What failed before works: after each round that ends, and for one that does not end by itself."""
        if not self._outage.over(self) and self.failures:
            log.info("%s works again after %d failures", self.name, self.failures)
        self.failures = 0

    async def run(self) -> None:
        """Loop until stopped."""
        while not self._stopping:
            self._wake.clear()
            try:
                pause = await self._once()
                self.got_through()
            except Exception as error:
                self.failures += 1
                pause = min(_FIRST_BACKOFF * 2 ** min(self.failures, 10), _LONGEST_BACKOFF)
                self._report(error)
            if pause > 0:
                try:
                    async with asyncio.timeout(pause):
                        await self._wake.wait()
                except TimeoutError:
                    pass
            else:
                await asyncio.sleep(0)

    def _report(self, error: Exception) -> None:
        if self._figures is not None and isinstance(error, RedisError | OSError):
            self._figures.add(REDIS_ERRORS, kind_of_error(error))
        if is_state(error) or isinstance(error, WrongDeployment):
            self._outage.met(self, self.name, error)
        else:
            log.error("%s failed; it goes on", self.name, exc_info=error)


async def end(running: Mapping[Loop, asyncio.Task[None]]) -> None:
    """End loops, wherever they are. The client may swallow a cancellation while it connects, so they are told
    as well.
    """
    for loop, task in running.items():
        loop.stop()
        task.cancel()
    await asyncio.gather(*running.values(), return_exceptions=True)
