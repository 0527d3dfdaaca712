"""What the API reports of the whole fleet, out of what it read from Redis."""

from __future__ import annotations

from collections.abc import Mapping
from typing import get_args

from msgspec import Struct

from app.telemetry import metrics
from app.telemetry.figures import Figures
from app.witness import HoldKind


class Reading(Struct, frozen=True, kw_only=True):
    """What was read. Times in ms, memory in bytes."""

    totals: Mapping[str, int] | None  # since ever: due, takeovers, each final state with its reason; or None
    triggers: Mapping[str, int]  # by where they stand; empty while the first count is under way
    executions: Mapping[str, int]  # by state; the same
    of_each: Mapping[str | None, Mapping[str, int]]  # workspace (None: all others) → executions by state
    workspaces: int
    unread: int  # shards that could not be asked: what else is here is of the others
    held: Mapping[str, int]  # why nothing is fired → shards
    last_loss: int  # when Redis was noticed to have lost data last; 0: never
    ready: int
    queue_wait: int
    overdue: int
    ticker_lag: int
    running: int
    capacity: int
    alive: int
    silent: int
    used_memory: int
    max_memory: int


def fleet_figures(reading: Reading) -> Figures:
    """The figures, made anew each time: what is gone is not reported any more.

    Without totals no counters are: one that went back would count anew all that it had counted.
    """
    counted = reading.totals is not None
    figures = Figures(one for one in metrics.OF_FLEET if counted or one.kind != "counter")
    for what, number in (reading.totals or {}).items():
        _count(figures, what, number)
    for metric, numbers in ((metrics.TRIGGERS, reading.triggers), (metrics.EXECUTIONS, reading.executions)):
        for state, number in numbers.items():
            if state != "total":
                figures.set(metric, number, state)
    for workspace, numbers in reading.of_each.items():
        for state, number in numbers.items():
            figures.set(metrics.WORKSPACE_EXECUTIONS, number, workspace or metrics.OTHER_WORKSPACES, state)
    figures.set(metrics.WORKERS, reading.alive, "alive")
    figures.set(metrics.WORKERS, reading.silent, "silent")
    for kind in get_args(HoldKind):
        figures.set(metrics.SHARDS_HELD, reading.held.get(kind, 0), kind)
    for metric, value in (
        (metrics.WORKSPACES, reading.workspaces),
        (metrics.SHARDS_UNREAD, reading.unread),
        (metrics.LAST_DATA_LOSS, reading.last_loss / 1000),
        (metrics.QUEUE_DEPTH, reading.ready),
        (metrics.QUEUE_WAIT, reading.queue_wait / 1000),
        (metrics.OVERDUE, reading.overdue),
        (metrics.TICKER_LAG, reading.ticker_lag / 1000),
        (metrics.IN_FLIGHT, reading.running),
        (metrics.PLACES, reading.capacity),
        (metrics.REDIS_MEMORY, reading.used_memory),
        (metrics.REDIS_MEMORY_LIMIT, reading.max_memory),
    ):
        figures.set(metric, value)
    return figures


def _count(figures: Figures, what: str, number: int) -> None:
    if what == "due":
        figures.set(metrics.DUE, number)
    elif what == "takeovers":
        figures.set(metrics.TAKEOVERS, number)
    else:  # of slots, and of what a person asked for
        state, _, reason = what.removeprefix("unscheduled:").partition(":")
        figures.add(metrics.ENDED, state, reason, by=number)
