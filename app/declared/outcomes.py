"""Which answers and failures a trigger names: ``503``, ``5xx``, ``500-599``, and kinds such as ``timeout``.

A list of them stands for a set. It is stored in one canonical form, so that equal sets are equal definitions:
single statuses, whole hundreds as ``5xx``, and what is left as ranges; then sorted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from app.models import FailureKind

# What a target, or the way to it, can cause. The other kinds are Cronspace's own doing.
TARGET_KINDS = (
    FailureKind.DNS,
    FailureKind.CONNECT,
    FailureKind.TLS,
    FailureKind.TIMEOUT,
    FailureKind.PROTOCOL,
)

STATUSES = range(100, 1000)
STATUS_PATTERN = r"^([1-9][0-9]{2}(-[1-9][0-9]{2})?|[1-9]xx)\Z"
_status = re.compile(STATUS_PATTERN).match


def parse_statuses(given: int | str) -> range:
    """The statuses that one item stands for; raises ``ValueError`` saying what is wrong."""
    text = str(given)
    if not _status(text):
        raise ValueError(f"{given!r} is no status: write 503, '5xx' or '500-599', between 100 and 999")
    if text.endswith("xx"):
        hundred = int(text[0]) * 100
        return range(hundred, hundred + 100)
    first, _, last = text.partition("-")
    found = range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError(f"the range {text!r} ends before it begins")
    return found


def statuses_of(items: Iterable[int | str]) -> frozenset[int]:
    """All statuses that a list stands for; kinds of failure in it are passed over."""
    return frozenset(status for item in items if item not in TARGET_KINDS for status in parse_statuses(item))


def kinds_of(items: Iterable[int | str]) -> frozenset[str]:
    """The kinds of failure in a list."""
    return frozenset(str(item) for item in items if item in TARGET_KINDS)


def canonical(items: Iterable[int | str]) -> tuple[str, ...]:
    """The one form of a set of statuses and kinds."""
    items = list(items)
    return tuple(sorted([*kinds_of(items), *_written(statuses_of(items))]))


def _written(statuses: frozenset[int]) -> list[str]:
    written = []
    for hundred in range(STATUSES.start, STATUSES.stop, 100):
        whole = range(hundred, hundred + 100)
        if statuses.issuperset(whole):
            written.append(f"{hundred // 100}xx")
            continue
        first = None
        for status in range(hundred, hundred + 101):
            if status in statuses and status in whole:
                first = status if first is None else first
            elif first is not None:
                written.append(str(first) if first == status - 1 else f"{first}-{status - 1}")
                first = None
    return written


# What counts as success, and what is tried again, where the trigger does not say.
USUAL_SUCCESS = canonical(["2xx"])
USUAL_RETRIES = canonical([408, 425, 429, "5xx", *TARGET_KINDS])

# The strategies' first delays, in seconds.
FIRST_DELAYS = {"exponential": 1.0, "linear": 5.0, "fixed": 60.0}
