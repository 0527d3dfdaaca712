"""Who looks often. Of many workers a few are on duty: they wake for each slot and each notification. The
others look now and then, and when one on duty finds more than it has places for. So a fleet that has nothing
to do costs little more than a few workers, and a slot does not wake all of them.

Seats are held in Redis, under a lease that heartbeats renew (``store/workers.py``). A worker without a free
place leaves its seat to others; where all are full, all look: slots have to be fired whether there are places
or not. Nothing depends on seats: a worker that finds something undone while it is not on duty is on duty from
then on, for a while.
"""

from __future__ import annotations

import time

REST_SECONDS = 5.0  # between two looks of a worker that is not on duty
_ALERT_SECONDS = 10.0  # on duty after something undone was found
_CALL_SECONDS = 0.1  # between two calls for the others


class Duty:
    """Whether this worker is on duty; it is until it is told otherwise."""

    def __init__(self) -> None:
        self._seated = True
        self.has_others = False  # workers without a seat
        self._alert_until = 0.0
        self._called = 0.0

    @property
    def is_on(self) -> bool:
        """Whether to look often."""
        return self._seated or time.monotonic() < self._alert_until

    def told(self, seated: bool, others: bool) -> None:
        """What the heartbeat said: if this worker has a seat (or nobody has), and if others lack one."""
        self._seated, self.has_others = seated, others

    def found(self) -> None:
        """Something was undone although others were on duty."""
        if not self._seated:
            self._alert_until = time.monotonic() + _ALERT_SECONDS

    def pause(self, seconds: float) -> float:
        """How long to sleep where one on duty would sleep for ``seconds``."""
        return seconds if self.is_on else max(seconds, REST_SECONDS)

    def may_call(self) -> bool:
        """Whether to call those who rest: there is more than this worker has places for."""
        now = time.monotonic()
        if not self.has_others or now - self._called < _CALL_SECONDS:
            return False
        self._called = now
        return True
