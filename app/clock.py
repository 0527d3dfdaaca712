"""Times at the edges: integer milliseconds inside and in Redis, RFC 3339 outside."""

from __future__ import annotations

import re
import time
from datetime import UTC, datetime, timedelta, tzinfo
from email.utils import parsedate_to_datetime
from functools import lru_cache

DAY_MS = 86_400_000

LONGEST_INTERVAL = 366 * 86_400  # seconds
INTERVAL_PATTERN = r"^(?=.)([0-9]{1,8}|([0-9]{1,3}d)?([0-9]{1,4}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?)\Z"
_interval = re.compile(r"(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s?)?\Z", re.ASCII).match
_is_interval = re.compile(INTERVAL_PATTERN).match

# RFC 3339, or without an offset the time on some wall clock.
MOMENT_PATTERN = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"([Zz]|[+-][0-9]{2}:[0-9]{2})?\Z"
)
_is_moment = re.compile(MOMENT_PATTERN).match

_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LAST_MS = 253_402_300_799_999  # 9999-12-31T23:59:59.999Z
LAST_ASKED_MS = 253_370_764_800_000  # 9999-01-01: of the calendar's last year, no zone's clock is asked


def steady() -> float:
    """Seconds on a clock that nobody sets; where there is one, one that goes on while the machine sleeps."""
    return time.clock_gettime(_STEADY)


@lru_cache(maxsize=1024)  # the slots of a burst are all the same
def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC with milliseconds: ``2026-01-31T09:00:00.000Z``."""
    whole, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def to_ms(moment: datetime) -> int:
    """An aware datetime as whole milliseconds since the epoch."""
    return (moment - _EPOCH) // timedelta(milliseconds=1)


def from_ms(ms: int, zone: tzinfo = UTC) -> datetime:
    """Milliseconds since the epoch as a datetime in a zone; in UTC where the year 10000 has begun."""
    moment = _EPOCH + timedelta(milliseconds=ms)
    try:
        return moment.astimezone(zone)
    except OverflowError:
        return moment


def day_of(ms: int) -> int:
    """The UTC day of a time, counted from the epoch: what the daily counters are keyed by."""
    return ms // DAY_MS


def parse_interval(given: int | str) -> int:
    """The seconds of an interval: a number, a string of digits, or ``1d``, ``1h30m``, ``45s``.

    Each unit (d, h, m, s) stands once at most, the larger before the smaller. Raises ``ValueError`` saying
    what is wrong.
    """
    if isinstance(given, str):
        match = _interval(given) if _is_interval(given) else None
        if match is None:
            raise ValueError(
                f"{given!r} is no interval: write seconds, or days, hours, minutes and seconds in this order,"
                f" each once, such as '90', '5m' or '1h30m'"
            )
        days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
        given = ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    if not 1 <= given <= LONGEST_INTERVAL:
        raise ValueError(f"an interval lasts from 1 second to 366 days, not {given} seconds")
    return given


def parse_moment(text: str, zone: tzinfo) -> int:
    """A moment, in ms since the epoch: RFC 3339, or without an offset the time on the wall clock of ``zone``.

    A local time that the clock skips means the moment right after the gap, one that it shows twice the
    first. Raises ``ValueError`` saying what is wrong.
    """
    if not _is_moment(text):
        raise ValueError(
            f"{text!r} is no moment: write RFC 3339, such as '2026-03-29T02:30:00Z' or '…+01:00',"
            f" or leave the offset out for local time in the trigger's time zone"
        )
    try:
        moment = datetime.fromisoformat(text.upper())
        ms = to_ms(moment) if moment.tzinfo else _local_ms(moment, zone)
    except (ValueError, OverflowError) as error:
        raise ValueError(f"{text!r} is no moment: {error}") from error
    if not 0 < ms <= LAST_MS:
        raise ValueError(f"{text!r} does not lie between the years 1970 and 9999")
    return ms


def _local_ms(naive: datetime, zone: tzinfo) -> int:
    first = to_ms(naive.replace(tzinfo=zone))
    second = to_ms(naive.replace(tzinfo=zone, fold=1))
    if first <= second:
        return first
    # In a gap fold 0 counts with the offset before it, fold 1 with that after it: the change lies between.
    low, high = second // 1000, -(-first // 1000)
    before = _offset(low, zone)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _offset(middle, zone) == before else (low, middle)
    return high * 1000


def _offset(seconds: int, zone: tzinfo) -> timedelta | None:
    return from_ms(seconds * 1000, zone).utcoffset()


def parse_http_date(text: str) -> int | None:
    """The moment of an HTTP date (RFC 9110, all three forms) in ms since the epoch; None for other text."""
    try:
        moment = parsedate_to_datetime(text)
        return to_ms(moment if moment.tzinfo else moment.replace(tzinfo=UTC))
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
