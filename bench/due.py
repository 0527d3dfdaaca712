"""Triggers that are due at a moment of our choosing, and what is counted at the target."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from itertools import islice, product
from typing import NamedTuple

from bench.target import Arrival

_START_SECONDS = 2.0  # a worker is up within this, before what it is to do is due

PAYLOAD = b'{"event":"scheduled_task","data":{}}'
HEADERS = {"Authorization": "Bearer YOUR_TOKEN", "Content-Type": "application/json"}


class Due(NamedTuple):
    """A trigger, and the one slot of it that falls into a measurement."""

    workspace: str
    id: str
    pattern: str  # cron with seconds, UTC
    slot: int  # s since the epoch
    path: str  # at the target: no two have the same, and it begins with a slash


class Faults(NamedTuple):
    """What went wrong at the target, in requests. All zero: each came once, and none before its slot."""

    missing: int
    repeated: int
    early: int
    unknown: int


def one_pattern(slot: int) -> str:
    """A cron expression that fires at ``slot`` (s since the epoch) and not again for a month."""
    at = datetime.fromtimestamp(slot, UTC)
    return f"{at.second} {at.minute} {at.hour} {at.day} * *"


def different_patterns(slot: int, count: int) -> list[str]:
    """As many different expressions that all fire at ``slot``, and not again within three minutes.

    No value is twice in a list: BullMQ's parser refuses that.
    """
    at = datetime.fromtimestamp(slot, UTC)

    def patterns() -> Iterator[str]:
        days = (day for day in range(1, 29) if day != at.day)
        hours = [hour for hour in range(24) if hour != at.hour]
        minutes = [(at.minute + later) % 60 for later in range(4, 60)]
        for day, hour, minute in product(days, hours, minutes):
            yield f"{at.second} {at.minute},{minute} {at.hour},{hour} {at.day},{day} * *"

    found = list(islice(patterns(), count))
    if len(found) < count:
        raise ValueError(f"there are no {count} different patterns")
    return found


def make_due(slots: Sequence[int], patterns: Sequence[str], workspaces: int) -> list[Due]:
    """Triggers in equal numbers per workspace; the n-th is due at ``slots[n]`` by ``patterns[n]``."""
    each = -(-len(slots) // workspaces)
    return [
        Due(f"ws-{index // each}", str(index % each), pattern, slot, f"/{index // each}/{index % each}")
        for index, (slot, pattern) in enumerate(zip(slots, patterns, strict=True))
    ]


def find_faults(arrivals: Sequence[Arrival], dues: Sequence[Due]) -> Faults:
    """Compare what came with what was due."""
    slots = {due.path: due.slot for due in dues}
    counts = Counter(arrival.path for arrival in arrivals)
    return Faults(
        missing=len(slots.keys() - counts.keys()),
        repeated=sum(count - 1 for count in counts.values()),
        early=sum(arrival.at < slots.get(arrival.path, 0) for arrival in arrivals),
        unknown=sum(path not in slots for path in counts),
    )


def load_in_time(lead: float, load: Callable[[int], list[Due]]) -> list[Due]:
    """Call ``load`` with a slot ``lead`` seconds from now, and again with twice that until it is in time.

    In time leaves a worker the time to start. ``load`` stores triggers that are due from this slot on, in
    the place of those of the call before, and returns them.
    """
    while True:
        slot = int(time.time() + lead) + 1
        dues = load(slot)
        if time.time() < slot - _START_SECONDS:
            return dues
        lead *= 2
