"""What the daily counters of the store mean. Pure.

A counter is called ``due``, or a final state with its reason (``missed:deadline``); with ``unscheduled:``
before it, it counts what a person started.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

from msgspec import Struct

_BY_HAND = "unscheduled:"

Ends = dict[tuple[str, str], int]  # state and reason ("" for none) → number


class Tally(Struct, frozen=True, kw_only=True):
    """Counted slots, and executions that a person started."""

    due: int
    ended: Ends
    by_hand: Ends

    @property
    def open(self) -> int:
        """Slots that were due and have not ended."""
        return self.due - sum(self.ended.values())

    @property
    def success_rate(self) -> float | None:
        """The share that succeeded of what was sent to its end, 0 to 1; None where nothing was."""
        good = self._number("succeeded")
        sent = good + self._number("failed")
        return round(good / sent, 4) if sent else None

    def _number(self, state: str) -> int:
        return by_state(self.ended)[state] + by_state(self.by_hand)[state]


def tally(parts: Iterable[Mapping[str, int]]) -> Tally:
    """The counters of one or several days."""
    due = 0
    ended: Counter[tuple[str, str]] = Counter()
    by_hand: Counter[tuple[str, str]] = Counter()
    for counts in parts:
        for name, number in counts.items():
            if name == "due":
                due += number
                continue
            state, _, reason = name.removeprefix(_BY_HAND).partition(":")
            (by_hand if name.startswith(_BY_HAND) else ended)[state, reason] += number
    return Tally(due=due, ended=+ended, by_hand=+by_hand)


def by_state(ends: Ends) -> Counter[str]:
    """Without the reasons."""
    found: Counter[str] = Counter()
    for (state, _), number in ends.items():
        found[state] += number
    return found
