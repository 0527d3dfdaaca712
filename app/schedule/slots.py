"""Sets of slots, without bounds: those of a cron expression in a time zone, and those of an interval. Pure.

What both can be asked: the slots after and up to a moment, one by one; whether a moment is one; how many lie
between two moments, also together with another set. The last come from the fields, not from stepping.
Moments are milliseconds since the epoch; a window is (after, until].
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import count as count_from
from math import gcd
from typing import Literal

from app.schedule.cron import Cron, count_common
from app.schedule.zones import BEGIN, END, FAR, Stretch, stretch_at, stretches

_DAY = 86_400
_FEW = 16  # slots that are faster tried one by one than by masks of whole days


Repeat = Literal["first", "second", "both"]


class CronSlots:
    """A cron expression in a zone.

    ``after_gap``: a local time that a clock change leaves out has its slot right after the gap, else none.
    ``repeat``: which passes of a repeated local time count. Several local times at one instant are one slot.
    """

    __slots__ = ("after_gap", "cron", "key", "repeat", "zone")

    def __init__(self, cron: Cron, zone: str, after_gap: bool, repeat: Repeat) -> None:
        self.cron = cron
        self.zone = zone
        self.after_gap = after_gap
        self.repeat = repeat
        self.key = (cron.key, zone) if zone == "UTC" else (cron.key, zone, after_gap, repeat)

    def forward(self, after: int) -> Iterator[int]:
        """The slots after a moment, ascending, to the end of the calendar."""
        cron = self.cron
        second = max(after // 1000 + 1, BEGIN)
        while second < END:
            stretch = stretch_at(self.zone, second)
            if second == stretch.begin and self.has_extra(stretch):
                yield second * 1000
            low, high = _bounds(stretch, self.repeat)
            offset = stretch.offset
            end = high + offset
            for local in cron.walk(max(second, low) + offset):
                if local >= end:
                    break
                yield (local - offset) * 1000
            else:
                return
            second = stretch.end
            # The wall clock shows nothing new that matches before `local`: go there at once, unless clocks
            # that are set back now show again what matched before.
            if local - FAR > second and not cron.count(second + offset - FAR, second + offset):
                second = local - FAR

    def backward(self, until: int) -> Iterator[int]:
        """The slots up to a moment, descending, to the beginning of the calendar."""
        cron = self.cron
        second = min(until // 1000, END - 1)
        while second >= BEGIN:
            stretch = stretch_at(self.zone, second)
            low, high = _bounds(stretch, self.repeat)
            offset = stretch.offset
            begin = low + offset
            for local in cron.walk_back(min(second, high - 1) + offset):
                if local < begin:
                    break
                yield (local - offset) * 1000
            else:
                return
            if self.has_extra(stretch):
                yield stretch.begin * 1000
            second = stretch.begin - 1
            if local + FAR < second and not cron.count(second + offset, second + offset + FAR):
                second = local + FAR

    def has(self, moment: int) -> bool:
        second, rest = divmod(moment, 1000)
        if rest or not BEGIN <= second < END:
            return False
        stretch = stretch_at(self.zone, second)
        low, high = _bounds(stretch, self.repeat)
        if low <= second < high and self.cron.has(second + stretch.offset):
            return True
        return second == stretch.begin and self.has_extra(stretch)

    def count(self, after: int, until: int) -> int:
        return _count_common(self, self, after, until)

    def mask(self, day: int, unit: int = 1) -> int:
        """The slots of a UTC day, but for the extra ones: a bit for each second, or minute (60), with any."""
        begin = day * _DAY
        times = _day_mask(self.cron, unit)
        found = 0
        for stretch in stretches(self.zone, begin, begin + _DAY):
            low, high = _bounds(stretch, self.repeat)
            low, high = max(low, begin), min(high, begin + _DAY)
            if low < high:
                local_day, rest = divmod(low + stretch.offset, _DAY)
                part = times >> rest // unit if self.cron.dates.has(local_day) else 0
                if self.cron.dates.has(local_day + 1):
                    part |= times << (_DAY - rest) // unit
                found |= (part & (1 << (high - low) // unit) - 1) << (low - begin) // unit
        return found

    def extras(self, begin: int, end: int) -> list[int]:
        """The slots in [begin, end), in s, that stand for what a gap left out."""
        _, gaps = _local_ranges(self.zone, "both", "both", begin, end)
        return [stretch.begin for stretch in gaps if self.has_extra(stretch)]

    def has_extra(self, stretch: Stretch) -> bool:
        """Whether a stretch begins with a slot for what the gap before it left out, and none of its own."""
        local = stretch.begin + stretch.offset
        return (
            stretch.shown < local
            and self.after_gap
            and self.cron.count(stretch.shown, local) > 0
            and not self.cron.has(local)
        )


class Every:
    """Every ``step`` ms, also before and after ``origin``: elapsed time, whatever clocks do."""

    __slots__ = ("key", "origin", "step")

    def __init__(self, origin: int, step: int) -> None:
        self.origin = origin
        self.step = step
        self.key = (origin % step, step)

    def forward(self, after: int) -> Iterator[int]:
        return count_from(after + self.step - (after - self.origin) % self.step, self.step)

    def backward(self, until: int) -> Iterator[int]:
        return count_from(until - (until - self.origin) % self.step, -self.step)

    def has(self, moment: int) -> bool:
        return (moment - self.origin) % self.step == 0

    def count(self, after: int, until: int) -> int:
        return max(0, (until - self.origin) // self.step - (after - self.origin) // self.step)

    def mask(self, day: int) -> int:
        """As :meth:`CronSlots.mask`; only for slots at whole seconds."""
        step = self.step // 1000
        first = next(self.forward(day * _DAY * 1000 - 1)) // 1000 - day * _DAY
        if first >= _DAY:
            return 0
        found, width = 1, step
        while width < _DAY:
            found |= found << width
            width *= 2
        return found << first & (1 << _DAY) - 1

    def meet(self, other: Every) -> Every | None:
        """What two intervals have in common, by the Chinese remainder theorem."""
        divisor = gcd(self.step, other.step)
        apart, rest = divmod(other.origin - self.origin, divisor)
        if rest:
            return None
        theirs = other.step // divisor
        turns = apart * pow(self.step // divisor, -1, theirs) % theirs
        return Every(self.origin + self.step * turns, self.step * theirs)


Slots = CronSlots | Every

_WHOLE_SECONDS = Every(0, 1000)


def count_both(one: Slots, other: Slots, after: int, until: int) -> int:
    """How many slots in (after, until] two sets have in common."""
    if until <= after:
        return 0
    if isinstance(one, Every):
        if isinstance(other, Every):
            both = one.meet(other)
            return both.count(after, until) if both else 0
        one, other = other, one
    if isinstance(other, CronSlots):
        if one.zone == other.zone:
            return _count_common(one, other, after, until)
        return _count_by_masks(one, other, after, until)
    seconds = other.meet(_WHOLE_SECONDS)
    return _count_by_masks(one, seconds, after, until) if seconds else 0


def _count_common(one: CronSlots, other: CronSlots, after: int, until: int) -> int:
    """The same for two sets in one zone: while the offset stays, both are products of fields."""
    ranges, gaps = _local_ranges(one.zone, one.repeat, other.repeat, after // 1000 + 1, until // 1000 + 1)
    found = 0
    for low, high in ranges:
        found += count_common(one.cron, other.cron, low, high)
    for stretch in gaps:
        # A slot that stands for what the gap left out is none of the fields' here, so it is not in there.
        moment = stretch.begin * 1000
        extra, theirs = one.has_extra(stretch), other.has_extra(stretch)
        if extra or theirs:
            found += (extra or one.has(moment)) and (theirs or other.has(moment))
    return found


@lru_cache(maxsize=4096)  # a plan asks about the same window for each of its triggers
def _local_ranges(
    zone: str, repeat: Repeat, other: Repeat, begin: int, end: int
) -> tuple[list[tuple[int, int]], list[Stretch]]:
    """[begin, end) as ranges of local times that count for both policies, and what begins with a gap."""
    ranges, gaps = [], []
    for stretch in stretches(zone, begin, end):
        (low, high), (their_low, their_high) = _bounds(stretch, repeat), _bounds(stretch, other)
        low, high = max(low, their_low, begin), min(high, their_high, end)
        if low < high:
            ranges.append((low + stretch.offset, high + stretch.offset))
        if begin <= stretch.begin and stretch.shown < stretch.begin + stretch.offset:
            gaps.append(stretch)
    return ranges, gaps


def _bounds(stretch: Stretch, repeat: Repeat) -> tuple[int, int]:
    """The part of a stretch whose local times count: [begin, end)."""
    low, high = stretch.begin, stretch.end
    if repeat == "first":
        low = max(low, stretch.shown - stretch.offset)
    elif repeat == "second":
        high = min(high, stretch.again - stretch.offset)
    return low, high


def _count_by_masks(one: CronSlots, other: Slots, after: int, until: int) -> int:
    """The same for any two sets at whole seconds."""
    few, many = (one, other) if one.count(after, until) <= other.count(after, until) else (other, one)
    if few.count(after, until) <= _FEW:
        found = 0
        for slot in few.forward(after):
            if slot > until:
                break
            found += many.has(slot)
        return found
    begin, end = after // 1000 + 1, until // 1000 + 1
    extras = set(one.extras(begin, end))
    if isinstance(other, CronSlots):
        extras.update(other.extras(begin, end))
        if _on_minutes(one.zone, begin, end) and _on_minutes(other.zone, begin, end):
            # Both are products of minutes and seconds, which are the same ones whatever the offsets.
            seconds, unit = one.cron.masks[0] & other.cron.masks[0], 60
        else:
            seconds, unit = 1, 1
    else:
        seconds, unit = 1, 1
    found = sum(one.has(moment * 1000) and other.has(moment * 1000) for moment in extras)
    first, last = begin // unit, -(-end // unit)  # units, of which the outer ones may lie within in part
    units = _DAY // unit
    for day in range(first // units, (last - 1) // units + 1):
        theirs = other.mask(day, unit) if isinstance(other, CronSlots) else other.mask(day)
        both = one.mask(day, unit) & theirs
        low, high = max(first - day * units, 0), min(last - day * units, units)
        both = (both & (1 << high) - 1) >> low
        found += both.bit_count() * seconds.bit_count()
        if day * units <= first and both & 1:
            found -= (seconds & (1 << begin % unit) - 1).bit_count()
        if last <= (day + 1) * units and end % unit and both >> high - low - 1:
            found -= (seconds >> end % unit).bit_count()
    return found


@lru_cache(maxsize=4096)
def _on_minutes(zone: str, begin: int, end: int) -> bool:
    """Whether clocks are whole minutes away from UTC from a day before to a day after a time."""
    near = stretches(zone, begin - _DAY, end + _DAY)
    return all(s.begin % 60 == s.offset % 60 == s.shown % 60 == s.again % 60 == 0 for s in near)


@lru_cache(maxsize=256)  # up to 11 kB each
def _day_mask(cron: Cron, unit: int) -> int:
    return cron.day_mask(unit)
