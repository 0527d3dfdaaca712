"""When a trigger is due: the slots of its schedule. Pure: no I/O and no clock of its own.

A schedule is a set of slots (``slots``) within bounds. Clock changes are as in Debian's cron unless the
trigger chooses otherwise: a fixed-time schedule (neither minute nor hour begins with ``*``) has what falls
into the gap right after it, and in a repeated hour it has each time once, at the first pass. Any other cron
schedule follows elapsed time: what is in the gap does not exist, a repeated hour counts twice. Intervals
always do.
"""

from __future__ import annotations

import sys
from collections.abc import Hashable
from functools import lru_cache
from typing import NamedTuple

from app.clock import DAY_MS, LAST_MS, day_of
from app.models import Definition, GapPolicy, RepeatPolicy
from app.schedule.cron import parse
from app.schedule.slots import CronSlots, Every, Slots, count_both
from app.schedule.zones import load_zone

_NEAR = 32  # slots that are rather looked at one by one than counted
_NEVER_BEGINS = -sys.maxsize


class Schedule:
    """The slots of a trigger, in ms since the epoch. Made by :func:`schedule_of`; never changed.

    Schedules with equal ``key`` have the same slots, however they are written and whatever trigger has them.
    Only what takes a calendar to see (that ``0 0 29-31 2 *`` is ``0 0 29 2 *``) does not show in it.
    """

    __slots__ = ("_first", "_last", "_slots", "key")

    def __init__(self, slots: Slots, first: int, last: int) -> None:
        """The slots of a set from ``first`` to ``last``."""
        self._slots = slots
        self._first = first
        self._last = last
        self.key: Hashable = (slots.key, first, last)

    def slots(self, after_ms: int, count: int, until_ms: int = 0, at_most: int = sys.maxsize) -> list[int]:
        """The next slots after a moment, ascending.

        At least ``count`` of them and, beyond those, all up to ``until_ms``, but never more than ``at_most``;
        fewer only where the schedule ends: at its ``ends_at`` or at the end of the calendar (year 9999).
        """
        found: list[int] = []
        last = self._last
        for slot in self._slots.forward(max(after_ms, self._first - 1)):
            if slot > last or len(found) >= at_most or (slot > until_ms and len(found) >= count):
                break
            found.append(slot)
            if slot >= until_ms and len(found) >= count:
                break  # before the next one is looked for: it can be years away
        return found

    def count(self, after_ms: int, until_ms: int) -> int:
        """How many slots are in (after, until]; calculated, not stepped over."""
        after, until = self._window(after_ms, until_ms)
        return self._slots.count(after, until) if after < until else 0

    def count_by_day(self, after_ms: int, until_ms: int) -> dict[int, int]:
        """The same for each UTC day (:func:`app.clock.day_of`) that has any."""
        after, until = self._window(after_ms, until_ms)
        found = {}
        for day in range(day_of(after + 1), day_of(until) + 1 if after < until else 0):
            count = self.count(max(after, day * DAY_MS - 1), min(until, (day + 1) * DAY_MS - 1))
            if count:
                found[day] = count
        return found

    def previous(self, slot_ms: int) -> int | None:
        """The latest slot before a moment, None when there is none."""
        slot = next(self._slots.backward(min(slot_ms - 1, self._last)), None)
        return None if slot is None or slot < self._first else slot

    def latest(self, n: int, until_ms: int, after_ms: int) -> list[int]:
        """The newest slots in (after, until], at most ``n``, ascending."""
        after, until = self._window(after_ms, until_ms)
        found: list[int] = []
        for slot in self._slots.backward(until):
            if slot <= after or len(found) >= n:
                break
            found.append(slot)
        return found[::-1]

    def has(self, moment_ms: int) -> bool:
        """Whether a moment is a slot."""
        return self._first <= moment_ms <= self._last and self._slots.has(moment_ms)

    def count_shared(self, other: Schedule, after_ms: int, until_ms: int) -> int:
        """How many slots in (after, until] are another schedule's, too."""
        after, until = other._window(*self._window(after_ms, until_ms))
        return count_both(self._slots, other._slots, after, until)

    def _window(self, after_ms: int, until_ms: int) -> tuple[int, int]:
        return max(after_ms, self._first - 1), min(until_ms, self._last)


def schedule_of(definition: Definition, workspace: str, trigger: str, anchor_ms: int) -> Schedule:
    """The schedule of a trigger; raises :class:`app.errors.InvalidSchedule`.

    ``anchor_ms`` is the moment of its creation, from which an interval counts when there is no ``starts_at``.
    Triggers with equal cron schedules share one.
    """
    starts_at, last = definition.starts_at, definition.ends_at or LAST_MS
    first = starts_at or _NEVER_BEGINS
    if definition.cron:
        cron = parse(definition.cron).of(workspace, trigger)
        zone, gap, repeat = definition.timezone, definition.dst_gap, definition.dst_repeat
        return _cron_schedule(cron.expression, zone, gap, repeat, first, last)
    if definition.interval:
        step = definition.interval * 1000
        return Schedule(Every(starts_at or anchor_ms, step), starts_at or anchor_ms + step, last)
    return Schedule(Every(definition.at, 1), max(definition.at, first), min(definition.at, last))


@lru_cache(maxsize=32_768)
def _cron_schedule(
    expression: str, zone: str, gap: GapPolicy, repeat: RepeatPolicy, first: int, last: int
) -> Schedule:
    load_zone(zone)
    cron = parse(expression)
    after_gap = gap == "after" if gap else cron.fixed_time
    slots = CronSlots(cron, zone, after_gap, repeat or ("first" if cron.fixed_time else "both"))
    return Schedule(slots, first, last)


class Difference(NamedTuple):
    """How two schedules differ within a window."""

    added: int  # slots that only the new one has
    lost: int  # slots that only the old one has
    first_added: list[int]
    first_lost: list[int]


def compare(
    old: Schedule | None, new: Schedule | None, after_ms: int, until_ms: int, first: int = 5
) -> Difference:
    """The slots in (after, until] that only one of two schedules has, and the ``first`` ones of each side.

    None is a schedule without slots. Counted from the fields; no stepping but for the first ones.
    """
    if old is not None and new is not None and old.key == new.key:
        return Difference(0, 0, [], [])
    added = new.count(after_ms, until_ms) if new is not None else 0
    lost = old.count(after_ms, until_ms) if old is not None else 0
    shared = 0
    if old is not None and new is not None and added and lost:
        shared = old.count_shared(new, after_ms, until_ms)
    added, lost = added - shared, lost - shared
    return Difference(
        added,
        lost,
        _first_without(new, old if shared else None, after_ms, until_ms, min(first, added)),
        _first_without(old, new if shared else None, after_ms, until_ms, min(first, lost)),
    )


def _first_without(
    schedule: Schedule | None, other: Schedule | None, after: int, until: int, wanted: int
) -> list[int]:
    """The first ``wanted`` slots of a schedule that another one does not have; there are that many."""
    found: list[int] = []
    look_at = 2 * wanted
    while schedule is not None and len(found) < wanted:
        if other is None:
            return schedule.slots(after, wanted)
        slots = schedule.slots(after, look_at)
        own = [slot for slot in slots if not other.has(slot)]
        found += own
        after = slots[-1]
        if not own:  # a run of slots that both have: go near its end at once
            after = _shared_until(schedule, other, after, until)
            look_at = _NEAR
    return found[:wanted]


def _shared_until(schedule: Schedule, other: Schedule, after: int, until: int) -> int:
    """A moment before which both have all slots, a few slots before the next that the other does not have."""
    low, high = after, until  # no such slot in (after, low], one in (low, high]
    while schedule.count(low, high) > _NEAR:
        middle = (low + high) // 2
        if schedule.count(low, middle) > schedule.count_shared(other, low, middle):
            high = middle
        else:
            low = middle
    return low
