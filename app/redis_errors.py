"""What kinds of failure Redis has, as the metrics tell them apart."""

from __future__ import annotations

from redis.exceptions import BusyLoadingError, ConnectionError, OutOfMemoryError, ReadOnlyError
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
