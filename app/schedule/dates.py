"""The dates that the day fields of a cron expression let through. Pure; days are numbers since 1970-01-01.

There are only fourteen calendars: a year begins on one of seven weekdays, and is a leap year or not. So a
rule for dates is at most fourteen bit masks with a bit for each day of a year, made when needed, and any
question is arithmetic on them.
"""

from __future__ import annotations

from datetime import date
from functools import lru_cache

DateRule = tuple[str, int]
"""A day that no number names: ``("last", 0)``, ``("last weekday", 0)`` and ``("nearest", day)`` of the month;
``("last", weekday)`` and ``("1" … "5", weekday)`` for the nth one, Sunday is 0."""

_TO_ORDINAL = date(1970, 1, 1).toordinal()
_FIRST_YEAR, _LAST_YEAR = 1, 9999
_LENGTHS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_WEEKS = sum(1 << 7 * week for week in range(6))
ALL_DAYS, ALL_MONTHS, ALL_WEEKDAYS = (1 << 32) - 2, (1 << 13) - 2, (1 << 7) - 1

# The calendar repeats after 400 years; the rarest date that can come at all (a 29 February that is also a
# given weekday) is never more than 40 years away.
_HORIZON_YEARS = 41


class Dates:
    """A set of dates. ``both``: the day of the month and that of the week have to match, else either."""

    __slots__ = ("_every", "_masks", "key")

    def __init__(
        self,
        days: int,
        day_rules: frozenset[DateRule],
        months: int,
        weekdays: int,
        weekday_rules: frozenset[DateRule],
        both: bool,
    ) -> None:
        """Masks have the values themselves as their bits."""
        self.key = (days, day_rules, months, weekdays, weekday_rules, both)
        all_weekdays = weekdays == ALL_WEEKDAYS
        all_days = days == ALL_DAYS
        self._every = months == ALL_MONTHS and (
            all_days and all_weekdays if both else all_days or all_weekdays
        )
        self._masks = [-1] * 14

    def come(self) -> bool:
        """Whether there is any such date at all."""
        return self._every or any(self._mask(kind) for kind in range(14))

    def has(self, day: int) -> bool:
        if self._every:
            return True
        index, kind, _ = _place(day)
        return bool(self._mask(kind) >> index & 1)

    def next(self, day: int) -> int | None:
        """The first date from ``day`` on; None at the end of the calendar."""
        index, kind, year = _place(day)
        if self._every:
            return day if year < _LAST_YEAR else None
        rest = self._mask(kind) >> index
        if rest:
            return day + _lowest(rest)
        for later in range(year + 1, min(year + _HORIZON_YEARS, _LAST_YEAR)):
            start, kind = _calendar(later)
            if mask := self._mask(kind):
                return start + _lowest(mask)
        return None

    def previous(self, day: int) -> int | None:
        """The last date up to ``day``; None at the beginning of the calendar."""
        index, kind, year = _place(day)
        if self._every:
            return day if year > _FIRST_YEAR else None
        until = self._mask(kind) & (2 << index) - 1
        if until:
            return day - index + until.bit_length() - 1
        for earlier in range(year - 1, max(year - _HORIZON_YEARS, _FIRST_YEAR), -1):
            start, kind = _calendar(earlier)
            if mask := self._mask(kind):
                return start + mask.bit_length() - 1
        return None

    def count(self, begin: int, end: int, other: Dates) -> int:
        """How many days in [begin, end) this one and another one both have."""
        if self._every and other._every:
            return end - begin
        first, kind, year = _place(begin)
        last, _, last_year = _place(end)
        found = 0
        while year < last_year:
            found += ((self._mask(kind) & other._mask(kind)) >> first).bit_count()
            first, year = 0, year + 1
            _, kind = _calendar(year)
        return found + ((self._mask(kind) & other._mask(kind) & (1 << last) - 1) >> first).bit_count()

    def _mask(self, kind: int) -> int:
        mask = self._masks[kind]
        if mask < 0:
            mask = self._masks[kind] = self._make(kind)
        return mask

    def _make(self, kind: int) -> int:
        """The mask of one of the calendars: a bit for each day of its year."""
        days, day_rules, months, weekdays, weekday_rules, both = self.key
        weekday, leap = divmod(kind, 2)
        mask = start = 0
        for month, length in enumerate(_LENGTHS, 1):
            length += leap and month == 2
            if months >> month & 1:
                by_date = days >> 1
                for rule, number in day_rules:
                    if (day := _rule_day(rule, number, weekday, length)) is not None:
                        by_date |= 1 << day
                by_weekday = (weekdays * _WEEKS) >> weekday
                for rule, number in weekday_rules:
                    by_weekday |= _nth(rule, (number - weekday) % 7, length)
                found = by_date & by_weekday if both else by_date | by_weekday
                mask |= (found & (1 << length) - 1) << start
            start += length
            weekday = (weekday + length) % 7
        return mask


def _rule_day(rule: str, number: int, weekday: int, length: int) -> int | None:
    """The day that a rule for days of the month means, from 0, in a month that begins on a weekday."""
    if rule == "last":
        return length - 1
    day = length if rule == "last weekday" else number
    if day > length:
        return None
    match (weekday + day - 1) % 7:
        case 6:
            return day - 2 if day > 1 else day + 1
        case 0:
            return day if day < length else day - 3
    return day - 1


def _nth(rule: str, first: int, length: int) -> int:
    """The mask of the nth or last of the days that come every week from ``first`` on."""
    if rule == "last":
        return 1 << first + 7 * ((length - 1 - first) // 7)
    return 1 << first + 7 * (int(rule) - 1)


def _lowest(mask: int) -> int:
    return (mask & -mask).bit_length() - 1


@lru_cache(maxsize=16_384)
def _calendar(year: int) -> tuple[int, int]:
    """The number of a year's first day, and its calendar: that day's weekday, and whether it leaps."""
    start = date(year, 1, 1)
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return start.toordinal() - _TO_ORDINAL, start.isoweekday() % 7 * 2 + leap


@lru_cache(maxsize=16_384)
def _place(day: int) -> tuple[int, int, int]:
    """Where a day is: its index in its year, that year's calendar, the year."""
    year = date.fromordinal(day + _TO_ORDINAL).year
    start, kind = _calendar(year)
    return day - start, kind, year
