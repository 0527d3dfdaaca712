"""Cron expressions as sets of local times. Pure: no I/O, no clock, and no time zone (that is ``slots``).

croniter reads what the items of a field mean (``fields``); the stepping and counting is ours, because
croniter's own costs 14-115 µs a call, ORs the two day fields where Vixie cron ANDs them, and fires fixed
times twice when clocks go back.

An expression has five fields (minute, hour, day of month, month, day of week), or six with the seconds first:

* numbers, names, ranges (also backwards: ``FRI-MON``), steps, lists, ``*``; ``?`` for an open day field;
* ``L`` (last day of the month), ``LW`` (its last weekday), ``15W`` (the weekday nearest to the 15th within
  the month); ``MON#2`` (the second Monday), ``FRIL`` or ``5L`` (the last Friday);
* ``H``, ``H/15``, ``H(0-29)``, ``H(0-29)/10`` in any field, as in Jenkins: a number that is made from the ids
  of workspace and trigger, so that triggers spread, and each keeps its time. Without a range, a day of the
  month is one that every month has (1-28), and seconds that are not given stay 0;
* ``@daily`` and its like in place of all fields.

Day of month and day of week are ANDed when either begins with ``*`` (or is ``?``), else ORed. A schedule is
*fixed-time* when neither minute nor hour begins with ``*``. Both rules are Debian's cron's.

``tests/test_oracle.py`` holds the slots against cronsim. They agree but for these, all intended:

1. *Six fields.* Fixed times with seconds are treated at clock changes like those without; cronsim lets all
   expressions of six fields follow elapsed time (what ``skip`` at gaps and ``both`` at repeats give here).
2. *Clock changes off the full hour or at midnight*, where cronsim steps by hours over elapsed time: it leaves
   out times that match, or finds some that no clock shows. Ours are those that match, second by second.
3. *A range of one value with a step*, ``5-5/20``, is that value, as in Vixie cron; cronsim reads ``5/20``.
4. *Searching from within a repeated hour*: cronsim can go back to the first pass, before the moment given.
5. *Items that cronsim does not know*: ``H``, ``nW``, ``FRIL``, ``?``, backward ranges and ``@daily``.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from functools import lru_cache

from app.errors import InvalidSchedule
from app.schedule.dates import Dates
from app.schedule.fields import MONTH, MONTH_DAY, has_hash, hash_of, read, resolve, split

DAY = 86_400


class Cron:
    """A parsed expression: a set of local times. Made by :func:`parse`, shared, and never changed.

    Local times are seconds since the epoch as if the wall clock showed UTC. A ``hashed`` expression has an
    ``H``: its times are an example, those of a trigger come from :meth:`of`. ``key`` is equal for equal sets.
    """

    __slots__ = (
        "_hours",
        "_minutes",
        "_seconds",
        "dates",
        "expression",
        "fixed_time",
        "hashed",
        "key",
        "masks",
    )

    def __init__(self, expression: str) -> None:
        """Read an expression; raises :class:`InvalidSchedule` with the field in its message."""
        self.expression = expression
        texts = split(expression)
        self.hashed = any(map(has_hash, texts))
        if self.hashed:
            texts = _example(texts)
        second, minute, hour = read(0, texts[0]), read(1, texts[1]), read(2, texts[2])
        self._seconds, self._minutes, self._hours = second.starts, minute.starts, hour.starts
        self.masks = second.mask, minute.mask, hour.mask
        self.dates = _dates(texts[3], texts[4], texts[5])
        self.fixed_time = not (texts[1][0] == "*" or texts[2][0] == "*")
        self.key = (self.masks, self.dates.key)

    def of(self, workspace: str, trigger: str) -> Cron:
        """The schedule that this is for a trigger: itself, unless it is hashed."""
        if not self.hashed:
            return self
        return parse(
            " ".join(
                resolve(index, text, hash_of(workspace, trigger, index)) if has_hash(text) else text
                for index, text in enumerate(split(self.expression))
            )
        )

    def has(self, local: int) -> bool:
        """Whether a local time matches."""
        day, rest = divmod(local, DAY)
        hour, rest = divmod(rest, 3600)
        minute, second = divmod(rest, 60)
        seconds, minutes, hours = self.masks
        return bool(hours >> hour & minutes >> minute & seconds >> second & 1) and self.dates.has(day)

    def walk(self, local: int) -> Iterator[int]:
        """The local times from one on, ascending, to the end of the calendar."""
        day, rest = divmod(local, DAY)
        found = self.dates.next(day)
        if found != day:
            rest = 0
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        while found is not None:
            start = found * DAY
            for hour in hours[bisect_left(hours, rest - 3599) :]:
                for minute in minutes[bisect_left(minutes, rest - hour - 59) :]:
                    time = hour + minute
                    for second in seconds[bisect_left(seconds, rest - time) :]:
                        yield start + time + second
            rest = 0
            found = self.dates.next(found + 1)

    def walk_back(self, local: int) -> Iterator[int]:
        """The local times from one on, descending."""
        day, rest = divmod(local, DAY)
        found = self.dates.previous(day)
        if found != day:
            rest = DAY - 1
        hours, minutes, seconds = self._hours, self._minutes, self._seconds
        while found is not None:
            start = found * DAY
            for hour in reversed(hours[: bisect_left(hours, rest + 1)]):
                for minute in reversed(minutes[: bisect_left(minutes, rest - hour + 1)]):
                    time = hour + minute
                    for second in reversed(seconds[: bisect_left(seconds, rest - time + 1)]):
                        yield start + time + second
            rest = DAY - 1
            found = self.dates.previous(found - 1)

    def count(self, begin: int, end: int) -> int:
        """How many local times lie in [begin, end)."""
        return count_common(self, self, begin, end)

    def day_mask(self, unit: int) -> int:
        """The times of a day that matches: a bit for each of its seconds (unit 1) or minutes (60)."""
        seconds, minutes, hours = self.masks
        # The fields do not overlap in the product, so a multiplication is a union of shifted copies.
        if unit == 60:
            return minutes * _spaced(hours, 60)
        return seconds * _spaced(minutes, 60) * _spaced(hours, 3600)


def count_common(one: Cron, other: Cron, begin: int, end: int) -> int:
    """How many local times in [begin, end) both have: what their fields share, multiplied."""
    seconds, minutes, hours = one.masks
    if one is not other:
        their_seconds, their_minutes, their_hours = other.masks
        seconds &= their_seconds
        minutes &= their_minutes
        hours &= their_hours
        if not (seconds and minutes and hours):
            return 0
    per_minute = seconds.bit_count()
    per_hour = minutes.bit_count() * per_minute
    per_day = hours.bit_count() * per_hour
    dates, others = one.dates, other.dates
    first, begin_rest = divmod(begin, DAY)
    last, end_rest = divmod(end, DAY)
    total = dates.count(first, last, others) * per_day
    for day, rest, sign in ((first, begin_rest, -1), (last, end_rest, 1)):
        if rest and dates.has(day) and (dates is others or others.has(day)):
            hour, rest = divmod(rest, 3600)
            before = (hours & (1 << hour) - 1).bit_count() * per_hour
            if hours >> hour & 1:
                minute, second = divmod(rest, 60)
                before += (minutes & (1 << minute) - 1).bit_count() * per_minute
                if minutes >> minute & 1:
                    before += (seconds & (1 << second) - 1).bit_count()
            total += sign * before
    return total


def parse(expression: str) -> Cron:
    """The :class:`Cron` of an expression, from a cache; raises :class:`InvalidSchedule`."""
    found = _parse_cached(expression)
    if isinstance(found, str):
        raise InvalidSchedule(found)
    return found


@lru_cache(maxsize=32_768)
def _parse_cached(expression: str) -> Cron | str:
    """The schedule, or what is wrong with the expression: to find that out can be the dearer part."""
    try:
        return Cron(expression)
    except InvalidSchedule as error:
        return str(error)


@lru_cache(maxsize=16_384)
def _dates(month_day: str, month: str, weekday: str) -> Dates:
    """The dates of the three day fields; raises :class:`InvalidSchedule` when there are none."""
    days, months, weekdays = read(3, month_day), read(4, month), read(5, weekday)
    both = month_day[0] in "*?" or weekday[0] in "*?"
    dates = Dates(days.mask, days.rules, months.mask, weekdays.mask, weekdays.rules, both)
    if not dates.come():
        raise InvalidSchedule(
            f"the day of month {month_day!r} never comes in the month {month!r}"
            f" together with the day of week {weekday!r}: the schedule would never fire"
        )
    return dates


def _example(texts: list[str]) -> list[str]:
    """The fields as some trigger may have them; raises when any trigger's date would never come.

    That takes a day that some month does not have, so the last day that H may mean is tried in each month.
    """
    fields = texts
    for month in range(12 if has_hash(texts[MONTH]) else 1):
        numbers = (0, 0, 0, -1, month, 0)  # -1: the last
        fields = [
            resolve(index, text, number) if has_hash(text) else text
            for index, (text, number) in enumerate(zip(texts, numbers, strict=True))
        ]
        _dates(*fields[MONTH_DAY:])
    return fields


@lru_cache(maxsize=1024)
def _spaced(mask: int, distance: int) -> int:
    """A mask with its bits that far apart."""
    spaced = 0
    while mask:
        lowest = mask & -mask
        spaced |= 1 << distance * (lowest.bit_length() - 1)
        mask ^= lowest
    return spaced
