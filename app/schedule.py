"""Cron expressions and the slots they define. Pure: no I/O and no clock of its own.

croniter splits an expression into the values of each field; the stepping is ours, because croniter's own
costs 14-115 µs a call, ORs the two day fields where Vixie cron ANDs them, and fires fixed times twice when
clocks go back.

An expression has five fields, or six with the seconds first. Rules, after Debian's cron:

* Day of month and day of week are ANDed when either begins with ``*`` (or is ``?``), else ORed.
* A *fixed-time* schedule (neither minute nor hour begins with ``*``) whose time falls into the gap of a
  clock change fires right after the gap, and in a repeated hour it fires once, the first time.
* Any other schedule follows elapsed time: what is in the gap does not exist, a repeated hour counts twice.
"""

from __future__ import annotations

import calendar
import re
import sys
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, available_timezones

from croniter import CroniterError, croniter

from app.errors import InvalidSchedule

FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
_CRONITER_ORDER = (5, 0, 1, 2, 3, 4)  # croniter expands to minute … day of week, second
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))

PRESETS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

# The calendar repeats after 400 years; the rarest date that can come at all (a 29 February that is also a
# given weekday) is never more than 40 years away, so a schedule silent for longer never fires.
_HORIZON_YEARS = 41

_EPOCH = datetime(1970, 1, 1)

# Clocks were never set back by more than a day (at the date line).
_MOST_SET_BACK = timedelta(days=2)

# What croniter raises for input that it can't read: its own errors, and at odd tokens the plain ones.
_CRONITER_ERRORS = (CroniterError, ValueError, KeyError, TypeError, IndexError)

_NAMED_LAST = re.compile(r"^(\d|[A-Za-z]{3})[lL]$")  # 5L: croniter writes it L5
_NEAREST = re.compile(r"^(\d+)[wW]$")
_EQUAL_RANGE = re.compile(r"^(\w+)-\1$")  # 5-5 is 5; croniter reads it as the whole field


class Cron:
    """A parsed expression. ``slots`` is the way in; instances are immutable and cached by :func:`parse`."""

    __slots__ = (
        "_days",
        "_days_and",
        "_hours",
        "_last_day",
        "_last_weekday",
        "_minutes",
        "_month_days",
        "_months",
        "_nearest",
        "_nth",
        "_seconds",
        "_weekdays",
        "expression",
        "fixed_time",
    )

    def __init__(self, expression: str) -> None:
        """Parse; raises :class:`InvalidSchedule` with the field in its message."""
        self.expression = expression
        fields = _fields(expression)
        values, nth = _expand(fields)
        self._seconds = _numbers(values[0], 0)
        self._minutes = _numbers(values[1], 1)
        self._hours = _numbers(values[2], 2)
        self._months = _numbers(values[4], 4)
        nearest = _NEAREST.match(fields[3])
        self._nearest = int(nearest[1]) if nearest else None
        self._last_weekday = fields[3].upper() == "LW"
        self._last_day = "l" in values[3] and not self._last_weekday
        self._days = frozenset(() if nearest else _numbers([day for day in values[3] if day != "l"], 3))
        self._nth = {weekday % 7: frozenset(which) for weekday, which in nth.items()}
        self._weekdays = frozenset(d % 7 for d in _numbers(values[5], 5)) - frozenset(self._nth)
        self._days_and = fields[3][0] in "*?" or fields[5][0] in "*?"
        self.fixed_time = not (fields[1].startswith("*") or fields[2].startswith("*"))
        self._month_days: dict[tuple[int, int], tuple[int, ...]] = {}
        if next(self._dates(date(2000, 1, 1)), None) is None:
            raise InvalidSchedule(
                f"the day of month {fields[3]!r} never comes in the month {fields[4]!r}"
                f" together with the day of week {fields[5]!r}: the schedule would never fire"
            )

    def slots(
        self, zone: str, after_ms: int, count: int, until_ms: int = 0, at_most: int = sys.maxsize
    ) -> list[int]:
        """The next slots after a moment, in milliseconds since the epoch, ascending.

        At least ``count`` of them and, beyond those, all up to ``until_ms``, but never more than
        ``at_most``; fewer only at the end of the calendar (year 9999).
        """
        found: list[int] = []
        for slot in self._iterate(zone, after_ms):
            if len(found) >= at_most or (len(found) >= count and slot > until_ms):
                break
            found.append(slot)
        return found

    def _iterate(self, zone: str, after_ms: int) -> Iterator[int]:
        start = datetime.fromtimestamp(after_ms // 1000, UTC).replace(tzinfo=None)
        if zone == "UTC":
            return map(_ms, self._naive(start))
        load_zone(zone)
        return self._iterate_fixed(start, zone) if self.fixed_time else self._iterate_elapsed(start, zone)

    def _iterate_fixed(self, start: datetime, zone: str) -> Iterator[int]:
        """Each local time once: in a gap at its end, in a repeated hour the first time."""
        tz = load_zone(zone)
        last = start
        for naive in self._naive(start + _offset(start, tz)):
            local = naive.replace(tzinfo=tz)
            before, after = _known(local.utcoffset()), _known(local.replace(fold=1).utcoffset())
            moment = naive - before
            if after > before:  # the wall clock skips this time
                moment = next(change for change in _changes(zone, moment.year) if change > naive - after)
            if moment > last:  # not the start itself, a second pass, or another time in the same gap
                last = moment
                yield _ms(moment)

    def _iterate_elapsed(self, start: datetime, zone: str) -> Iterator[int]:
        """Walk the stretches of constant offset: elapsed time decides."""
        tz = load_zone(zone)
        begin, just_before = start, start
        while begin.year < 9998:
            end = _stretch_end(begin, zone)
            offset = _offset(begin, tz)
            latest = begin
            for naive in self._naive(just_before + offset):
                if naive - offset >= end:
                    break
                latest = naive - offset
                yield _ms(latest)
            else:
                return
            # The wall clock shows nothing that matches before `naive`. So skip what lies well before it, but
            # not what clocks set back at the end of this stretch may show again.
            far = naive - offset - 2 * _MOST_SET_BACK
            begin = max(end, far) if end - latest > _MOST_SET_BACK else end
            just_before = begin - timedelta(seconds=1)

    def _naive(self, after: datetime) -> Iterator[datetime]:
        """Every matching wall-clock time after ``after``, as naive datetimes in whole seconds."""
        day = after.date()
        floor = (after.hour, after.minute, after.second)
        for found in self._dates(day):
            low = floor if found == day else (-1, -1, -1)
            hours = self._hours
            for hour in hours[bisect_left(hours, low[0]) :]:
                same_hour = hour == low[0]
                minutes = self._minutes
                for minute in minutes[bisect_left(minutes, low[1]) if same_hour else 0 :]:
                    same_minute = same_hour and minute == low[1]
                    seconds = self._seconds
                    for second in seconds[bisect_right(seconds, low[2]) if same_minute else 0 :]:
                        yield datetime(found.year, found.month, found.day, hour, minute, second)

    def _dates(self, start: date) -> Iterator[date]:
        """Matching dates from ``start`` on; ends after the longest silence that a schedule can have."""
        year, month, silent_until = start.year, start.month, start.year + _HORIZON_YEARS
        while year <= min(silent_until, 9999):
            if month in self._months:
                for day in self._days_of(year, month):
                    if (year, month, day) >= (start.year, start.month, start.day):
                        silent_until = year + _HORIZON_YEARS
                        yield date(year, month, day)
            year, month = (year, month + 1) if month < 12 else (year + 1, 1)

    def _days_of(self, year: int, month: int) -> tuple[int, ...]:
        days = self._month_days.get((year, month))
        if days is None:
            if len(self._month_days) > 240:
                self._month_days.clear()
            days = self._month_days[year, month] = tuple(self._find_days(year, month))
        return days

    def _find_days(self, year: int, month: int) -> Iterator[int]:
        first, length = calendar.monthrange(year, month)  # Monday is 0
        by_date = set(self._days)
        if self._last_day:
            by_date.add(length)
        if self._last_weekday:
            by_date.add(_nearest_weekday(length, first, length))
        if self._nearest is not None and self._nearest <= length:
            by_date.add(_nearest_weekday(self._nearest, first, length))
        for day in range(1, length + 1):
            weekday = (first + day) % 7  # Sunday is 0
            by_weekday = weekday in self._weekdays
            if weekday in self._nth:
                which = self._nth[weekday]
                by_weekday = (day + 6) // 7 in which or ("l" in which and day + 7 > length)
            both = day in by_date, by_weekday
            if all(both) if self._days_and else any(both):
                yield day


def parse(expression: str) -> Cron:
    """The :class:`Cron` of an expression, from a cache; raises :class:`InvalidSchedule`."""
    found = _parse_cached(expression)
    if isinstance(found, str):
        raise InvalidSchedule(found)
    return found


@lru_cache(maxsize=16_384)
def _parse_cached(expression: str) -> Cron | str:
    """The schedule, or what is wrong with the expression: to find that out can be the dearer part."""
    try:
        return Cron(expression)
    except InvalidSchedule as error:
        return str(error)


@lru_cache(maxsize=1024)
def load_zone(name: str) -> ZoneInfo:
    """An IANA zone by its exact name; raises :class:`InvalidSchedule`."""
    if name not in _zone_names():
        raise InvalidSchedule(f"unknown time zone {name!r}: give an IANA name such as 'Europe/Berlin'")
    return ZoneInfo(name)


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    return frozenset(available_timezones())


def _fields(expression: str) -> list[str]:
    text = expression.strip()
    if text.startswith("@"):
        preset = PRESETS.get(text.lower())
        if preset is None:
            raise InvalidSchedule(f"unknown preset {text!r}: the presets are {', '.join(PRESETS)}")
        text = preset
    if not text.isascii():
        raise InvalidSchedule(f"the expression {text!r} has a character that is not ASCII")
    fields = text.split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) != 6:
        raise InvalidSchedule(
            f"an expression has 5 fields (minute hour day month weekday), or 6 with the seconds first;"
            f" {text!r} has {len(fields)}"
        )
    for name, field in zip(FIELDS, fields, strict=True):
        items = field.upper().split(",")
        if any(re.match(r"^[HR]([(/].*)?$", item) for item in items):
            raise InvalidSchedule(f"the {name} field {field!r} is random or hashed, which is not supported")
    return fields


def _expand(fields: list[str]) -> tuple[list[list[object]], dict[int, set[object]]]:
    """Each field's values in our order, and the nth weekdays (weekday → which, 1 to 5 or ``"l"``)."""
    written = [",".join(map(_for_croniter, field.split(","))) for field in fields]
    if written[3].upper() == "LW":
        written[3] = "L"
    elif match := _NEAREST.match(written[3]):
        written[3] = match[1]
    try:
        found, nth = croniter.expand(" ".join(written), second_at_beginning=True)
    except _CRONITER_ERRORS as error:
        raise InvalidSchedule(_blame(fields, written, error)) from error
    return [found[index] for index in _CRONITER_ORDER], nth


def _blame(fields: list[str], written: list[str], error: Exception) -> str:
    """Name the field that is wrong: the one that fails alone among stars."""
    for index, name in enumerate(FIELDS):
        alone = ["*"] * 6
        alone[index] = written[index]
        try:
            croniter.expand(" ".join(alone), second_at_beginning=True)
        except _CRONITER_ERRORS:
            low, high = _BOUNDS[index]
            return f"the {name} field {fields[index]!r} is not valid (values go from {low} to {high})"
    return f"the expression {' '.join(fields)!r} is not valid: {error}"


def _for_croniter(item: str) -> str:
    """One list item as croniter writes it."""
    body, slash, step = item.partition("/")
    if match := _EQUAL_RANGE.match(body):
        return match[1]
    if match := _NAMED_LAST.match(body):
        return f"L{match[1]}"
    return body + slash + step


def _numbers(values: list[object], index: int) -> tuple[int, ...]:
    low, high = _BOUNDS[index]
    if values == ["*"]:
        return tuple(range(low, high + 1))
    return tuple(sorted(int(str(value)) for value in values))


def _nearest_weekday(day: int, first: int, length: int) -> int:
    """The weekday nearest to a day within its month (``15W``); ``first`` is the weekday of day 1."""
    weekday = (first + day - 1) % 7  # Monday is 0
    if weekday == 5:
        return day - 1 if day > 1 else day + 2
    if weekday == 6:
        return day + 1 if day < length else day - 2
    return day


def _ms(moment: datetime) -> int:
    """A naive UTC time in whole seconds as milliseconds since the epoch."""
    elapsed = moment - _EPOCH
    return (elapsed.days * 86_400 + elapsed.seconds) * 1000


def _known(offset: timedelta | None) -> timedelta:
    """The offset of an aware datetime, which always has one."""
    assert offset is not None
    return offset


def _offset(moment: datetime, tz: ZoneInfo) -> timedelta:
    return _known(moment.replace(tzinfo=UTC).astimezone(tz).utcoffset())


def _stretch_end(begin: datetime, zone: str) -> datetime:
    """The first moment after a stretch of constant offset; with the year it ends at the latest."""
    for change in _changes(zone, begin.year):
        if change > begin:
            return change
    return datetime(begin.year + 1, 1, 1)


@lru_cache(maxsize=4096)
def _changes(zone: str, year: int) -> tuple[datetime, ...]:
    """The moments of a UTC year, as naive UTC, at which the zone's offset changes."""
    tz = load_zone(zone)
    found = []
    low = datetime(year, 1, 1) - timedelta(seconds=1)
    for _ in range(367):
        high = low + timedelta(days=1)
        if _offset(low, tz) != _offset(high, tz):
            found.append(_bisect_change(low, high, tz))
        low = high
    return tuple(change for change in found if change.year == year)


def _bisect_change(low: datetime, high: datetime, tz: ZoneInfo) -> datetime:
    """The first whole second in (low, high] with another offset than ``low``."""
    before = _offset(low, tz)
    while high - low > timedelta(seconds=1):
        middle = low + (high - low) // 2
        middle = middle.replace(microsecond=0)
        if _offset(middle, tz) == before:
            low = middle
        else:
            high = middle
    return high
