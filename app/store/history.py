"""What remains of slots: daily counters and timings, and the exceptional slots as runs.

It is recorded when slots fall due and when executions end, and does not depend on executions that are still
kept. Days are UTC days, counted from the epoch; a slot belongs to its own day.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import cast

from msgspec import Struct

from app.clock import day_of
from app.models import State
from app.store.executions import unpack_last_slots
from app.store.shard import Shard, reply, unpack
from app.timings import Timings, merge, timings_of, unpack_timings

Counted = dict[
    str, int
]  # due, and the final states with their reason: missed:deadline; unscheduled:succeeded


class Run(Struct, frozen=True, array_like=True):
    """Exceptional slots that followed each other; with the count 0 a span in which nothing was due."""

    first: int  # ms
    last: int
    count: int
    state: str  # a final state; paused, disabled, or changed (while what was due could not be fired)
    reason: str  # of a pause: its note


class Day(Struct, frozen=True):
    """What was counted and timed on a day, of a trigger or of all."""

    day: int
    counts: Counted
    timings: Timings


async def days(shard: Shard, workspace: str, trigger: str, wanted: Sequence[int]) -> list[Day]:
    """What was counted and timed on days, of a trigger or (with the id ``""``) of all; empty days too."""
    of = shard.keys.of
    recent = await _recent(shard, workspace, trigger)
    names = [f"{trigger}:{what}" for what in _ALL_WHATS]  # a day's hash holds those of every trigger
    async with shard.redis.pipeline(transaction=False) as pipe:
        for day in wanted:
            pipe.hmget(of(workspace, f"day:{day}"), names)
            pipe.hget(of(workspace, f"timings:{day}"), trigger)
        replies = await pipe.execute()
    found = []
    for index, day in enumerate(wanted):
        numbers, packed = replies[index * 2 : index * 2 + 2]
        counts = {
            what: int(number) for what, number in zip(_ALL_WHATS, numbers, strict=True) if number is not None
        }
        timings = [unpack_timings(packed)] if packed else []
        found.append(Day(day, counts, merge([*timings, timings_of(recent.get(day, []))])))
    return found


async def _recent(shard: Shard, workspace: str, trigger: str) -> dict[int, list[tuple[int, int]]]:
    """Durations and latenesses by day that are not yet in the timings: see store/lua/_end.lua, _count.lua."""
    of = shard.keys.of
    found: dict[int, list[tuple[int, int]]] = {}
    if trigger:
        stored = cast(bytes, await reply(shard.redis.hget(of(workspace, "last"), trigger)) or b"")
        for last in unpack_last_slots(stored):
            if last.state in (State.SUCCEEDED, State.FAILED):
                found.setdefault(day_of(last.slot), []).append((last.duration, last.lateness))
    else:
        packed = await shard.redis.get(of(workspace, "recent")) or b""
        for high, low, duration, lateness in struct.iter_unpack(">HIII", packed):
            found.setdefault(day_of((high << 32) + low), []).append((duration, lateness))
    return found


async def runs(shard: Shard, workspace: str, trigger: str) -> list[Run]:
    """A trigger's exceptional slots, newest first."""
    stored = await reply(shard.redis.hget(shard.keys.of(workspace, "exceptions"), trigger))
    return [Run(*one) for one in unpack(cast(bytes, stored))][::-1] if stored else []


# What a counter can be called after the trigger's id.
WHATS = (
    "due",
    "succeeded",
    "failed",
    "failed:unknown_outcome",
    "failed:worker_lost",
    "failed:unreadable",
    "cancelled:trigger_removed",
    "cancelled:replaced",
    "cancelled:requested",
    "skipped:overlap",
    "skipped:backlog_full",
    "missed:deadline",
    "missed:catch_up_window",
    "missed:data_loss",
)
_ALL_WHATS = (*WHATS, *(f"unscheduled:{what}" for what in WHATS[1:]))
