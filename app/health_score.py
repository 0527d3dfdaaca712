"""The health of a trigger as a number from 0 to 100. Pure.

Four parts, each a share from 0 to 1, weighted:

======  ===========  ============================================================================
weight  part         share
======  ===========  ============================================================================
60      success      of the last slots that were sent to their end, those that succeeded; each
                     weighs 0.9 times the one after it, so that about the last ten decide
20      attendance   of the slots of the last seven days, those that were neither missed nor skipped
10      punctuality  1 where 95 of 100 started within a second of their slot, 0 from a minute on,
                     and evenly between them on a logarithmic scale
10      streak       halved by each failure since the last success
======  ===========  ============================================================================

What was cancelled says nothing about health, and counts nowhere. The score never falls when a failure is
turned into a success, a missed slot into one that succeeded, or a late start into an earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import takewhile

from app.models import State

FADING = 0.9
SUCCESS, ATTENDANCE, PUNCTUALITY, STREAK = 60, 20, 10, 10
PUNCTUAL_MS, LATE_MS = 1000, 60_000


def health_score(last: Sequence[State], *, due: int, absent: int, lateness_p95: float | None) -> int | None:
    """The score; None where no slot was sent to its end.

    ``last`` are the final states of the last slots, newest first; ``due`` and ``absent`` (missed and skipped)
    the slots of seven days; ``lateness_p95`` is in ms.
    """
    sent = [state == State.SUCCEEDED for state in last if state in (State.SUCCEEDED, State.FAILED)]
    if not sent:
        return None
    weights = [FADING**age for age in range(len(sent))]
    success = math.fsum(w for w, good in zip(weights, sent, strict=True) if good) / math.fsum(weights)
    attendance = 1 - min(absent, due) / due if due else 1.0
    late = min(max(lateness_p95 or 0.0, PUNCTUAL_MS), LATE_MS)
    punctuality = 1 - math.log(late / PUNCTUAL_MS) / math.log(LATE_MS / PUNCTUAL_MS)
    streak = 0.5 ** consecutive_failures(last)
    return round(SUCCESS * success + ATTENDANCE * attendance + PUNCTUALITY * punctuality + STREAK * streak)


def consecutive_failures(last: Sequence[State]) -> int:
    """How many of the last slots (newest first) failed since one succeeded; unsent ones are passed over."""
    sent = (state for state in last if state in (State.SUCCEEDED, State.FAILED))
    return sum(1 for _ in takewhile(lambda state: state == State.FAILED, sent))
