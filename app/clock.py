"""Times at the edges: integer milliseconds inside and in Redis, RFC 3339 outside."""

from datetime import UTC, datetime
from functools import lru_cache

DAY_MS = 86_400_000


@lru_cache(maxsize=1024)  # the slots of a burst are all the same
def rfc3339(ms: int) -> str:
    """Milliseconds since the epoch as RFC 3339 in UTC with milliseconds: ``2026-01-31T09:00:00.000Z``."""
    whole, rest = divmod(ms, 1000)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:03d}Z"


def to_ms(moment: datetime) -> int:
    """An aware datetime as whole milliseconds since the epoch."""
    return int(moment.timestamp() * 1000)


def day_of(ms: int) -> int:
    """The UTC day of a time, counted from the epoch: what the daily counters are keyed by."""
    return ms // DAY_MS
