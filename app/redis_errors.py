"""What kinds of failure Redis has, as the metrics tell them apart."""

from __future__ import annotations

from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ConnectionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import TimeoutError as RedisTimeoutError

_KINDS: dict[type[Exception], str] = {  # the first that fits
    RedisTimeoutError: "timeout",
    TimeoutError: "timeout",
    BusyLoadingError: "loading",
    ReadOnlyError: "read_only",
    OutOfMemoryError: "full",
    ConnectionError: "connection",
    OSError: "connection",
}
_OTHER = "refused"

KINDS = (*dict.fromkeys(_KINDS.values()), _OTHER)


def kind_of_error(error: Exception) -> str:
    """One of :data:`KINDS`; a script hides the class of what stopped it, so the text is looked at, too."""
    text = str(error)
    if "OOM" in text:
        return "full"
    if "READONLY" in text:
        return "read_only"
    return next((kind for class_, kind in _KINDS.items() if isinstance(error, class_)), _OTHER)


# It is full, can't write to its disk, has too few replicas.
_PASSING = ("OOM ", "MISCONF ", "NOREPLICAS ")


def is_state(error: Exception) -> bool:
    """Redis is away, full, a replica or the like, which passes; any other error that it answers is a fault
    of ours.
    """
    if isinstance(error, ResponseError):
        known = isinstance(error, OutOfMemoryError | ReadOnlyError | ClusterDownError)
        # Before Redis 7 a script's own words go before it, and a dash.
        return known or str(error).startswith(_PASSING) or any(f"-{one}" in str(error) for one in _PASSING)
    return isinstance(error, RedisError | OSError)
