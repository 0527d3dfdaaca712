"""Expressions to choose from by name, and any expression in words. Pure.

The words are cron-descriptor's. It is given each field as this project reads it, written in one plain way,
because it reads some texts otherwise. What joins the two day fields is said here: for it that is always "or".
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import groupby

from cron_descriptor import DescriptionTypeEnum, ExpressionDescriptor, Options
from msgspec import Struct

from app.schedule.cron import parse
from app.schedule.dates import DateRule
from app.schedule.fields import HOUR, MINUTE, MONTH, MONTH_DAY, SECOND, WEEKDAY, Field, has_hash, read, split


class Preset(Struct, frozen=True):
    """An expression that people often need; ``group`` is the heading to show it under."""

    name: str
    expression: str
    description: str
    group: str


_GROUPS = {
    "seconds": [
        ("every-second", "* * * * * *", "Every second"),
        ("every-5-seconds", "*/5 * * * * *", "Every 5 seconds"),
        ("every-10-seconds", "*/10 * * * * *", "Every 10 seconds"),
        ("every-15-seconds", "*/15 * * * * *", "Every 15 seconds"),
        ("every-30-seconds", "*/30 * * * * *", "Every 30 seconds"),
    ],
    "minutes": [
        ("every-minute", "* * * * *", "Every minute"),
        ("every-2-minutes", "*/2 * * * *", "Every 2 minutes"),
        ("every-5-minutes", "*/5 * * * *", "Every 5 minutes"),
        ("every-10-minutes", "*/10 * * * *", "Every 10 minutes"),
        ("every-15-minutes", "*/15 * * * *", "Every 15 minutes"),
        ("every-20-minutes", "*/20 * * * *", "Every 20 minutes"),
        ("every-30-minutes", "*/30 * * * *", "Every 30 minutes"),
    ],
    "hours": [
        ("hourly", "0 * * * *", "Every hour, on the hour"),
        ("every-2-hours", "0 */2 * * *", "Every 2 hours, on the hour"),
        ("every-3-hours", "0 */3 * * *", "Every 3 hours, on the hour"),
        ("every-4-hours", "0 */4 * * *", "Every 4 hours, on the hour"),
        ("every-6-hours", "0 */6 * * *", "Every 6 hours, on the hour"),
        ("every-8-hours", "0 */8 * * *", "Every 8 hours, on the hour"),
        ("every-12-hours", "0 */12 * * *", "At midnight and at noon"),
    ],
    "days": [
        ("daily", "0 0 * * *", "Every day at midnight"),
        ("daily-at-6", "0 6 * * *", "Every day at 06:00"),
        ("daily-at-9", "0 9 * * *", "Every day at 09:00"),
        ("daily-at-noon", "0 12 * * *", "Every day at noon"),
        ("daily-at-18", "0 18 * * *", "Every day at 18:00"),
        ("twice-daily", "0 9,17 * * *", "Every day at 09:00 and 17:00"),
    ],
    "working hours": [
        ("weekdays-at-9", "0 9 * * MON-FRI", "Monday to Friday at 09:00"),
        ("weekdays-at-18", "0 18 * * MON-FRI", "Monday to Friday at 18:00"),
        ("working-hours-hourly", "0 9-17 * * MON-FRI", "Monday to Friday, every hour from 09:00 to 17:00"),
        (
            "working-hours-every-15-minutes",
            "*/15 9-16 * * MON-FRI",
            "Monday to Friday, every 15 minutes from 09:00 to 16:45",
        ),
        ("weekends-at-10", "0 10 * * SAT,SUN", "Saturday and Sunday at 10:00"),
    ],
    "weeks": [
        ("weekly", "0 0 * * SUN", "Every Sunday at midnight"),
        ("mondays-at-9", "0 9 * * MON", "Every Monday at 09:00"),
        ("fridays-at-17", "0 17 * * FRI", "Every Friday at 17:00"),
    ],
    "months": [
        ("monthly", "0 0 1 * *", "On the first day of every month at midnight"),
        ("month-middle", "0 0 15 * *", "On the 15th of every month at midnight"),
        ("month-end", "0 0 L * *", "On the last day of every month at midnight"),
        ("first-working-day", "0 9 1W * *", "On the first weekday of every month at 09:00"),
        ("last-working-day", "0 9 LW * *", "On the last weekday of every month at 09:00"),
        ("first-monday", "0 9 * * MON#1", "On the first Monday of every month at 09:00"),
        ("last-friday", "0 17 * * FRIL", "On the last Friday of every month at 17:00"),
    ],
    "quarters and years": [
        ("quarterly", "0 0 1 */3 *", "On the first day of every quarter at midnight"),
        ("half-yearly", "0 0 1 1,7 *", "On 1 January and 1 July at midnight"),
        ("yearly", "0 0 1 1 *", "On 1 January at midnight"),
        ("year-end", "0 0 31 12 *", "On 31 December at midnight"),
    ],
    "spread": [
        ("hourly-spread", "H * * * *", "Every hour, at a minute of the trigger's own"),
        (
            "every-15-minutes-spread",
            "H/15 * * * *",
            "Every 15 minutes, from a minute of the trigger's own on",
        ),
        ("daily-spread", "H H * * *", "Every day, at a time of the trigger's own"),
        ("nightly-spread", "H H(0-5) * * *", "Every night before 06:00, at a time of the trigger's own"),
        ("weekly-spread", "H H * * H", "Every week, on a day and at a time of the trigger's own"),
    ],
}

PRESETS = tuple(Preset(*preset, group) for group, presets in _GROUPS.items() for preset in presets)

_ALL = tuple(read(index, "*").mask for index in range(6))
_OPTIONS = Options(locale_code="en_US", use_24hour_time_format=True)
_PARTS = {
    SECOND: DescriptionTypeEnum.SECONDS,
    MINUTE: DescriptionTypeEnum.MINUTES,
    HOUR: DescriptionTypeEnum.HOURS,
    MONTH_DAY: DescriptionTypeEnum.DAYOFMONTH,
    MONTH: DescriptionTypeEnum.MONTH,
    WEEKDAY: DescriptionTypeEnum.DAYOFWEEK,
}
_UNITS = ("second", "minute", "hour", "day of the month", "month", "day of the week")
_PLURALS = ("seconds", "minutes", "hours", "days of the month", "months", "days of the week")
_PREPOSITIONS = ("at", "at", "at", "on", "in", "on")


@lru_cache(maxsize=1024)
def describe(expression: str) -> str:
    """An expression in English; raises :class:`app.errors.InvalidSchedule` as ``parse`` does."""
    parse(expression)
    texts = split(expression)
    time, dates = _time(texts), f"{_days(texts)}{_part(MONTH, texts[MONTH])}"
    words = f"{time}{dates}" if dates or not time.startswith("At ") else f"{time}, every day"
    return words[0].upper() + words[1:]


def _time(texts: list[str]) -> str:
    """The time of day."""
    if any(map(has_hash, texts[:MONTH_DAY])):
        parts = [_part(index, texts[index]).removeprefix(", ") for index in (SECOND, MINUTE, HOUR)]
        return ", ".join(part for part in parts if part)
    plain = [_plain(index, read(index, texts[index]).mask) for index in (SECOND, MINUTE, HOUR)]
    words = _say(DescriptionTypeEnum.TIMEOFDAY, plain)
    return words.replace(", every hour", "").replace(", every minute", "")


def _days(texts: list[str]) -> str:
    """The dates, with what joins the two day fields."""
    both = texts[MONTH_DAY][0] in "*?" or texts[WEEKDAY][0] in "*?"
    by_date, by_weekday = _part(MONTH_DAY, texts[MONTH_DAY]), _part(WEEKDAY, texts[WEEKDAY])
    if by_date and by_weekday:
        return f"{by_date}, {'but only' if both else 'or'} {by_weekday.removeprefix(', ')}"
    if both:
        return by_date + by_weekday
    return ""  # one is open although it was not written with a star: any date


def _part(index: int, text: str) -> str:
    """What a field says, with a comma before it; empty when it is open."""
    if has_hash(text):
        return f", {_hashed(index, text)}"
    field = read(index, text)
    if index == SECOND and field.mask == 1:
        return ""
    if field.mask == _ALL[index]:
        return f", every {_UNITS[index]}" if index < MONTH_DAY else ""
    items = []
    for item in _items(index, field):
        fields = ["*"] * 6
        fields[index] = item
        words = _say(_PARTS[index], fields).removeprefix(", ").removeprefix("only ")
        if not words.startswith(("on ", "in ", "at ", "every ", "between ")) and index >= MONTH_DAY:
            words = f"{_PREPOSITIONS[index]} {words}"
        items.append(words)
    return f", {' and '.join(items)}"


def _items(index: int, field: Field) -> Iterator[str]:
    """A field as cron-descriptor is to read it: the numbers, and each of the rules."""
    if field.mask:
        yield _plain(index, field.mask)
    yield from (_rule(index, rule) for rule in sorted(field.rules))


def _rule(index: int, rule: DateRule) -> str:
    kind, number = rule
    if index == MONTH_DAY:
        return {"last": "L", "last weekday": "LW"}.get(kind, f"{number}W")
    return f"{number}L" if kind == "last" else f"{number}#{kind}"


def _plain(index: int, mask: int) -> str:
    """The values of a field in the plainest way: a star, a step, a range, or a list of numbers and ranges."""
    if mask == _ALL[index]:
        return "*"
    values = [value for value in range(mask.bit_length()) if mask >> value & 1]
    if index < MONTH and len(values) > 1:
        step = values[1] - values[0]
        if step > 1 and values == list(range(values[0], values[-1] + 1, step)):
            lowest = (_ALL[index] & -_ALL[index]).bit_length() - 1
            if values[0] == lowest and values[-1] + step >= _ALL[index].bit_length():
                return f"*/{step}"
            if len(values) > 2:
                return f"{values[0]}-{values[-1]}/{step}"
    runs = [[value for _, value in run] for _, run in groupby(enumerate(values), lambda at: at[1] - at[0])]
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(map(str, run)) for run in runs)


def _hashed(index: int, text: str) -> str:
    """What a field with ``H`` says."""
    unit, preposition, text = _UNITS[index], _PREPOSITIONS[index], text.upper()
    if "," in text:
        return f"{preposition} the {unit} {text}, of which H is the trigger's own"
    item, _, step = text.partition("/")
    article = "an" if index == HOUR else "a"
    own = f"{preposition} {article} {unit} of the trigger's own"
    if item != "H":
        low, _, high = item[2:-1].partition("-")
        own += f" from {low} to {high}"
    return f"every {step} {_PLURALS[index]}, first {own}" if step else own


def _say(part: DescriptionTypeEnum, fields: list[str]) -> str:
    """cron-descriptor's words for a part of an expression; with seven fields it knows which is which."""
    written = " ".join((fields + ["*"] * 7)[:7])
    words: str = ExpressionDescriptor(written, _OPTIONS).get_description(part)
    return words
