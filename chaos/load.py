"""What is to be sent: 100 slots a second, and when exactly each is due."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import cache
from typing import Any

from cronsim import CronSim
from msgspec import Struct

Slot = tuple[str, str, int]  # workspace, trigger, ms since the epoch

WORKSPACES = 10
# Ten slots a second: expressions, and intervals in s.
_OF_A_WORKSPACE = ["* * * * * *"] * 4 + ["*/2 * * * * *", "1-59/2 * * * * *"] * 2 + [1] * 4


class Planned(Struct, frozen=True):
    """A trigger as it is declared, by a cron expression with seconds or an interval in seconds.

    Its slots are those in [``first``, ``last``], in s since the epoch: ``starts_at`` and ``ends_at``.
    """

    workspace: str
    id: str
    when: str | int
    first: int
    last: int
    url: str  # of the target
    do: str = ""  # what is asked of it, as in target.py: do=slow&seconds=1
    fields: dict[str, Any] = {}

    def declared(self) -> dict[str, Any]:
        """The trigger as the API takes it."""
        return {
            "id": self.id,
            "cron" if isinstance(self.when, str) else "interval": self.when,
            "starts_at": _moment(self.first),
            "ends_at": _moment(self.last),
            "url": f"{self.url}/{self.workspace}/{self.id}{'?' * bool(self.do)}{self.do}",
            "method": "POST",
            "payload": {"event": "scheduled_task"},
            **self.fields,
        }

    def slots(self) -> list[int]:
        """When it is due, in ms: by cronsim, and by plain arithmetic where it is an interval."""
        return slots_between(self.when, self.first, self.last)


@cache
def slots_between(when: str | int, first: int, last: int) -> list[int]:
    """The slots of an expression or an interval in [first, last], both in s; the slots in ms."""
    if isinstance(when, int):
        return [slot * 1000 for slot in range(first, last + 1, when)]
    found = []
    for slot in CronSim(when, datetime.fromtimestamp(first - 1, UTC)):
        if slot.timestamp() > last:
            break
        found.append(round(slot.timestamp() * 1000))
    return found


def due_slots(load: Iterable[Planned]) -> set[Slot]:
    """Every slot of a load."""
    return {(one.workspace, one.id, slot) for one in load for slot in one.slots()}


def steady(url: str, first: int, seconds: int, do: str = "", **fields: Any) -> list[Planned]:
    """100 slots a second in ten workspaces, by expressions and by intervals, for so many seconds."""
    return [
        Planned(f"ws-{number}", f"t{index}", when, first, first + seconds - 1, url, do, fields)
        for number in range(WORKSPACES)
        for index, when in enumerate(_OF_A_WORKSPACE)
    ]


def by_workspace(load: Iterable[Planned]) -> dict[str, list[Planned]]:
    """The triggers of each workspace."""
    found: dict[str, list[Planned]] = defaultdict(list)
    for one in load:
        found[one.workspace].append(one)
    return dict(found)


def sleep_until(moment: float) -> None:
    """Wait for a moment, in s since the epoch."""
    time.sleep(max(0.0, moment - time.time()))


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
