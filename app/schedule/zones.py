"""Time zones as stretches of constant offset. Pure: no clock; times are whole seconds since the epoch.

``zoneinfo`` tells the offset of one moment. Schedules need the moments at which it changes, and what the wall
clock did there: which local times it never showed, and which it showed twice.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from itertools import pairwise
from typing import NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from app.errors import InvalidSchedule

DAY = 86_400

# What lies further away than this, read as local time, has nothing to do with a moment: zones are at most
# 26 h apart, and no clock was ever moved by more than a day (at the date line).
FAR = 3 * DAY

# The calendar: years that have a neighbour on both sides, so that every offset can be applied.
_FIRST_YEAR, _LAST_YEAR = 2, 9998


class Stretch(NamedTuple):
    """A time within which a zone's offset does not change; it ends with the UTC year at the latest.

    The last two are local times, in seconds as if they were UTC, and say what clock changes nearby mean: what
    is before ``shown`` was on the wall clock already, what is from ``again`` on will be there once more. A
    ``shown`` before the first local time is a gap: the wall clock never shows what lies between.
    """

    begin: int
    end: int  # exclusive
    offset: int  # local time is UTC and this
    shown: int
    again: int


def _start_of(year: int) -> int:
    return int(datetime(year, 1, 1, tzinfo=UTC).timestamp())


BEGIN, END = _start_of(_FIRST_YEAR), _start_of(_LAST_YEAR + 1)
_ALWAYS = Stretch(BEGIN, END, 0, BEGIN, END)


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo:
    """An IANA zone by its exact name; raises :class:`InvalidSchedule`."""
    if name not in zone_names():
        raise InvalidSchedule(f"unknown time zone {name!r}: give an IANA name such as 'Europe/Berlin'")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """Every zone that can be named."""
    return frozenset(available_timezones())


def stretch_at(zone: str, moment: int) -> Stretch:
    """The stretch that holds a moment, which lies within ``BEGIN`` and ``END``."""
    if zone == "UTC":
        return _ALWAYS
    for stretch in _stretches(zone, datetime.fromtimestamp(moment, UTC).year):
        if moment < stretch.end:
            return stretch
    raise AssertionError("the stretches of a year cover it")


def stretches(zone: str, begin: int, end: int) -> Iterator[Stretch]:
    """The stretches that hold a moment from ``begin`` on, before ``end``, in order."""
    begin, end = max(begin, BEGIN), min(end, END)
    while begin < end:
        stretch = stretch_at(zone, begin)
        yield stretch
        begin = stretch.end


@lru_cache(maxsize=8192)
def _stretches(zone: str, year: int) -> tuple[Stretch, ...]:
    """The stretches of a UTC year. What changes close before and after it counts for the local times."""
    tz = load_zone(zone)
    begin, end = _start_of(year), _start_of(year + 1)
    changes = [begin - FAR, *_changes(tz, begin - FAR, end + FAR), end + FAR]
    pieces = [(low, high, _offset(low, tz)) for low, high in pairwise(changes)]
    found = []
    for index, (low, high, offset) in enumerate(pieces):
        if high <= begin or low >= end:
            continue
        before = [to + their for _, to, their in pieces[:index]]
        after = [since + their for since, _, their in pieces[index + 1 :]]
        found.append(
            Stretch(
                max(low, begin),
                min(high, end),
                offset,
                max(before, default=low + offset),
                min(after, default=high + offset),
            )
        )
        if low < begin:  # its beginning lies in the year before: what happened there is no gap of this piece
            found[-1] = found[-1]._replace(shown=max(begin + offset, found[-1].shown))
    return tuple(found)


def _changes(tz: ZoneInfo, begin: int, end: int) -> Iterator[int]:
    """The moments in (begin, end] at which the zone's offset changes; never twice within a day."""
    for low in range(begin, end, DAY):
        high = min(low + DAY, end)
        before = _offset(low, tz)
        if before != _offset(high, tz):
            while high - low > 1:
                middle = (low + high) // 2
                if _offset(middle, tz) == before:
                    low = middle
                else:
                    high = middle
            yield high


def _offset(moment: int, tz: ZoneInfo) -> int:
    offset = datetime.fromtimestamp(moment, tz).utcoffset()
    assert offset is not None  # an aware datetime always has one
    return int(offset.total_seconds())
