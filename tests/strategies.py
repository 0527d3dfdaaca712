"""What property tests of schedules draw from: expressions, zones and moments."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st

# CRONSPACE_EXAMPLES=20 draws twenty times as many.
_TIMES = int(os.environ.get("CRONSPACE_EXAMPLES", "1"))


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples for a property test."""
    return settings(max_examples=count * _TIMES, deadline=None)


ZONES = [
    "UTC",
    "Africa/Cairo",
    "Africa/Casablanca",
    "America/Havana",
    "America/New_York",
    "America/Sao_Paulo",
    "America/Scoresbysund",
    "America/St_Johns",
    "Antarctica/Troll",
    "Asia/Beirut",
    "Asia/Kathmandu",
    "Asia/Kolkata",
    "Asia/Tehran",
    "Atlantic/Azores",
    "Australia/Lord_Howe",
    "Europe/Berlin",
    "Europe/Dublin",
    "Europe/London",
    "Pacific/Apia",
    "Pacific/Chatham",
    "Pacific/Kwajalein",
]

_MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
_WEEKDAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]


def _item(low: int, high: int, names: list[str]) -> st.SearchStrategy[str]:
    def name(number: int) -> str:
        return names[number - low] if names and number % 2 and number - low < len(names) else str(number)

    ends = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    spans = ends.filter(lambda two: two[0] < two[1]).map(lambda two: f"{name(two[0])}-{name(two[1])}")
    steps = st.integers(1, high)
    return st.one_of(
        st.integers(low, high).map(name),
        st.integers(low, high).map(name),
        spans,
        st.builds("{}/{}".format, spans, steps),
        st.builds("{}/{}".format, st.integers(low, high).map(name), steps),
        st.builds("*/{}".format, steps),
    )


def _field(low: int, high: int, names: list[str] | None = None, *others: str) -> st.SearchStrategy[str]:
    item = _item(low, high, names or [])
    if others:
        item = st.one_of(item, item, st.sampled_from(others))
    lists = st.lists(item, min_size=2, max_size=3).map(",".join)
    return st.one_of(st.just("*"), item, item, lists)


_TIME = (_field(0, 59), _field(0, 23))
_DAYS = ("L", "LW")
_NTHS = ("5L", "0L", "MON#2", "1#5", "7#3", "SAT#1")
_DATE = (_field(1, 31, None, *_DAYS), _field(1, 12, _MONTHS), _field(0, 7, _WEEKDAYS, *_NTHS))
_OPEN_DATE = (st.just("*"), st.just("*"), st.just("*"))

# What cronsim reads, too. Half of them are for any day: rare dates seldom meet a clock change.
oracle_expressions = st.one_of(
    st.tuples(*_TIME, *_OPEN_DATE),
    st.tuples(*_TIME, *_DATE),
    st.tuples(_field(0, 59), *_TIME, *_OPEN_DATE),
    st.tuples(_field(0, 59), *_TIME, *_DATE),
).map(" ".join)

# What ours reads beyond that.
_OURS = (_field(1, 31, None, *_DAYS, "15W", "1W", "31W"), _DATE[1], _field(0, 7, _WEEKDAYS, *_NTHS, "FRIL"))
expressions = st.one_of(
    oracle_expressions,
    st.tuples(*_TIME, *_OURS).map(" ".join),
    st.tuples(st.just("0"), *_TIME, st.just("?"), *_OURS[1:]).map(" ".join),
)
zones = st.sampled_from(ZONES)

_CHANGES = [
    (3, 8),
    (3, 14),
    (3, 28),
    (3, 29),
    (4, 3),
    (4, 24),
    (9, 26),
    (10, 4),
    (10, 25),
    (10, 31),
    (11, 1),
    (12, 29),
]
moments = st.one_of(
    st.datetimes(datetime(1971, 1, 1), datetime(2090, 1, 1)),
    st.builds(
        lambda year, day, hour: datetime(year, *day, hour),
        st.integers(1971, 2089),
        st.sampled_from(_CHANGES),
        st.integers(0, 23),
    ),
).map(lambda moment: moment.replace(microsecond=0, tzinfo=UTC))
