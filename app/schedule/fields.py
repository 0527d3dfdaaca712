"""The fields of a cron expression, read one by one: what their texts mean as numbers. Pure.

croniter says what an item such as ``10-40/5`` means, one item among stars; the answer is kept for each item,
so that an expression of known items is read in a few µs. Days that no number names (``L``, ``15W``,
``MON#2``), which croniter knows only in part, are rules of ours; so is ``H``.
"""

from __future__ import annotations

import re
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from croniter import CroniterError, croniter

from app.errors import InvalidSchedule
from app.schedule.dates import DateRule

MAX_CRON = 1024  # characters, of which all values of all fields take half; what is read is kept in memory

FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
SECOND, MINUTE, HOUR, MONTH_DAY, MONTH, WEEKDAY = range(6)
_BOUNDS = ((0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
_HASHED = (*_BOUNDS[:3], (1, 28), (1, 12), (0, 6))  # what H without a range chooses from
_UNITS = (1, 60, 3600, 1, 1, 1)  # seconds, where a field's values are times
_CRONITER_ORDER = (5, 0, 1, 2, 3, 4)  # croniter expands to minute … day of week, second

MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_NAMES: dict[int, dict[str, str]] = {
    MONTH: {name: str(number) for number, name in enumerate(_MONTHS, 1)},
    WEEKDAY: {name: str(number) for number, name in enumerate(_WEEKDAYS)},
}

# What croniter raises for input that it can't read: its own errors, and at odd tokens the plain ones.
_CRONITER_ERRORS = (CroniterError, ValueError, KeyError, TypeError, IndexError)

_NAME = re.compile(r"[A-Z]{3}")
_HASH = re.compile(r"H(?:\((\d+)-(\d+)\))?(?:/(\d+))?")
_RANDOM = re.compile(r"R(?:[(/].*)?")
_NEAREST = re.compile(r"(\d+)W|W(\d+)")
_LAST = re.compile(r"(\d)L|L(\d)")
_NTH = re.compile(r"([\d-]+)#([1-5])")
_RANGE = re.compile(r"(\d+)(?:-(\d+))?(?:/(\d+))?")


class Field(NamedTuple):
    """What one field lets through."""

    mask: int  # a bit for each value, which is the bit's number
    starts: tuple[int, ...]  # the values in their order, as seconds where they are times
    rules: frozenset[DateRule]  # the days that no number names


def split(expression: str) -> list[str]:
    """The six fields of an expression as written, seconds first; raises :class:`InvalidSchedule`."""
    text = expression.strip()
    if text.startswith("@"):
        macro = MACROS.get(text.lower())
        if macro is None:
            raise InvalidSchedule(f"unknown preset {text!r}: the presets are {', '.join(MACROS)}")
        text = macro
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
    return fields


@lru_cache(maxsize=16_384)
def read(index: int, text: str) -> Field:
    """What a field means; raises :class:`InvalidSchedule` that names it. ``index`` is that in ``FIELDS``."""
    mask = 0
    rules: frozenset[DateRule] = frozenset()
    for item in text.upper().split(","):
        found = _read_item(index, item)
        if found is None:
            raise invalid(index, text)
        mask |= found.mask
        rules |= found.rules
    unit = _UNITS[index]
    starts = tuple([value * unit for value in range(mask.bit_length()) if mask >> value & 1])
    return Field(mask, starts, rules)


def invalid(index: int, text: str) -> InvalidSchedule:
    """The error that says which field can't be read."""
    name, (low, high) = FIELDS[index], _BOUNDS[index]
    if any(_RANDOM.fullmatch(item) for item in text.upper().split(",")):
        return InvalidSchedule(
            f"the {name} field {text!r} is random, so nobody could say when it comes: use H in place of R,"
            " which spreads triggers as well but keeps each one's time"
        )
    return InvalidSchedule(f"the {name} field {text!r} is not valid (values go from {low} to {high})")


@lru_cache(maxsize=16_384)
def _read_item(index: int, item: str) -> Field | None:
    """What one item of a list means, None when it means nothing. It is in capitals."""
    names = _NAMES.get(index, {})
    item = _NAME.sub(lambda name: names.get(name[0], name[0]), item)
    if index == MONTH_DAY:
        if item in ("L", "LW"):
            return _rule("last" if item == "L" else "last weekday", 0)
        if match := _NEAREST.fullmatch(item):
            day = int(match[1] or match[2])
            return _rule("nearest", day) if 1 <= day <= 31 else None
    elif index == WEEKDAY:
        if match := _LAST.fullmatch(item):
            weekday = int(match[1] or match[2])
            return _rule("last", weekday % 7) if weekday <= 7 else None
        if match := _NTH.fullmatch(item):
            weekdays = _expand(index, match[1])
            if weekdays is None:
                return None
            return Field(0, (), frozenset((match[2], day) for day in range(7) if weekdays >> day & 1))
    mask = _expand(index, item)
    return None if mask is None else Field(mask, (), frozenset())


def _rule(kind: str, number: int) -> Field:
    return Field(0, (), frozenset({(kind, number)}))


def _expand(index: int, item: str) -> int | None:
    """The values of an item as a mask, by croniter; None when it can't read it."""
    match = _RANGE.fullmatch(item)
    if match and match[2] is not None and int(match[1]) == int(match[2]) and int(match[3] or 1):
        item = match[1]  # a range of one value, which croniter reads as the whole field
    elif match and match[2] is None and match[3] is not None and index == WEEKDAY:
        item = f"{match[1]}-7/{match[3]}"  # from there to the end of the field, which is the 7
        if match[1] == "7":
            item = match[1]
    if not item or "H" in item or "R" in item:
        return None
    alone = ["*"] * 6
    alone[index] = item
    try:
        expanded, nth = croniter.expand(" ".join(alone), second_at_beginning=True)
    except _CRONITER_ERRORS:
        return None
    values = expanded[_CRONITER_ORDER[index]]
    low, high = _BOUNDS[index]
    if values == ["*"]:
        values = list(range(low, 7 if index == WEEKDAY else high + 1))
    if nth or not all(isinstance(value, int) for value in values):
        return None
    mask = 0
    for value in values:
        mask |= 1 << value
    return mask


def has_hash(text: str) -> bool:
    """Whether a field has an ``H``."""
    return ("H" in text or "h" in text) and any(map(_HASH.fullmatch, text.upper().split(",")))


def resolve(index: int, text: str, number: int) -> str:
    """A field with the ``number``-th of what it may mean (modulo how many there are) in the place of ``H``.

    Raises :class:`InvalidSchedule`.
    """
    items = []
    for item in text.upper().split(","):
        match = _HASH.fullmatch(item)
        if not match:
            items.append(item)
            continue
        low, high = _HASHED[index] if match[1] is None else (int(match[1]), int(match[2]))
        step = int(match[3] or 0)
        if not _BOUNDS[index][0] <= low <= high <= _BOUNDS[index][1] or (match[3] and not step):
            raise invalid(index, text)
        size = high - low + 1
        if step:
            items += map(str, range(low + number % min(step, size), high + 1, step))
        else:
            items.append(str(low + number % size))
    return ",".join(dict.fromkeys(items))


def hash_of(workspace: str, trigger: str, index: int) -> int:
    """A trigger's own number for a field: even over triggers, the same for ever."""
    digest = sha256(f"{workspace}\n{trigger}\n{FIELDS[index]}".encode()).digest()
    return int.from_bytes(digest[:8])
