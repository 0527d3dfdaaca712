"""Ranges in queries: of moments, and of days."""

from __future__ import annotations

from datetime import date, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.fields import TriggerId, about
from app.clock import day_of, to_ms
from app.errors import Fault, InvalidRequest

Instant = Annotated[datetime, Meta(tz=True)]
Day = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}\Z",
        examples=["2026-01-31"],
        extra_json_schema={"format": "date"},
        extra={"rule": "expected a day such as 2026-01-31"},
    ),
]

_EPOCH_ORDINAL = date(1970, 1, 1).toordinal()


class DaysQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """UTC days."""

    first: Annotated[
        Day | None, about("The first UTC day; of what is longer ago than it is kept, nothing is told.")
    ] = msgspec.field(name="from", default=None)
    last: Annotated[Day | None, about("The last UTC day; today, if left out.")] = msgspec.field(
        name="to", default=None
    )


class TriggerDaysQuery(DaysQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """UTC days of a trigger or of all."""

    trigger: Annotated[TriggerId | None, about("Only this trigger, which may be gone; else all.")] = None


def days_of(query: DaysQuery, now_ms: int, keep_days: int, usual: int) -> range:
    """The days of a query, counted from the epoch: ``usual`` ones up to today unless it says otherwise.

    Never more than are kept.
    """
    today = day_of(now_ms)
    last = today if query.last is None else _day(query.last, "to")
    last = min(last, today)
    first = last - usual + 1 if query.first is None else _day(query.first, "from")
    return range(max(first, last - keep_days, 0), last + 1)


def shown_day(day: int) -> str:
    """A day as answers show it."""
    return date.fromordinal(_EPOCH_ORDINAL + day).isoformat()


def ms_of(moment: datetime | None) -> int | None:
    """A moment of a query in ms."""
    return None if moment is None else to_ms(moment)


def _day(text: str, name: str) -> int:
    try:
        return date.fromisoformat(text).toordinal() - _EPOCH_ORDINAL
    except ValueError as error:
        fault = Fault(name, f"there is no such day: {error}")
        raise InvalidRequest("The request is not valid; nothing was done.", [fault]) from error
