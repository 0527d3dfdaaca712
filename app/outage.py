"""A Redis that can't be used, as the loops of a process meet it: told once, not by each of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.errors import WrongDeployment
from app.redis_errors import kind_of_error

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 60.0


class Outage:
    """What one Redis is at. It begins with the first loop that can't use it, and is over when none of them
    fails any more. ``fields`` go with every event; ``steady`` gives seconds.
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic, **fields: object) -> None:
        self._steady, self._fields = steady, fields
        self._failing: set[object] = set()
        self._begun = 0.0
        self._told: dict[str, float] = {}  # kind of error → when

    def met(self, loop: object, name: str, error: Exception) -> None:
        """A loop met an error of Redis: say so if it is a new one, and again now and then."""
        now = self._steady()
        if not self._failing:
            self._begun = now
            self._told.clear()
        self._failing.add(loop)
        kind = kind_of_error(error)
        if now - self._told.get(kind, -_AGAIN_SECONDS) < _AGAIN_SECONDS:
            return
        since = f", since {now - self._begun:.0f} s" if kind in self._told else ""
        self._told[kind] = now
        log.warning(
            "%s can't be used (%s)%s; trying again",
            "What is stored" if isinstance(error, WrongDeployment) else "Redis",
            str(error) or type(error).__name__,
            since,
            extra={"loop": name, **self._fields},
        )

    def over(self, loop: object) -> bool:
        """A loop got through; whether it had not before."""
        if loop not in self._failing:
            return False
        self._failing.remove(loop)
        if not self._failing:
            log.info(
                "Redis can be used again, after %.1f s", self._steady() - self._begun, extra=self._fields
            )
        return True
