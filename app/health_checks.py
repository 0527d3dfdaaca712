"""Whether the whole is well: facts go in, and what is wrong comes out in words that say what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from msgspec import Struct

from app.counts import shards_by, shards_named

Status = Literal["ok", "degraded", "down"]

LAG_NOTED_MS, LAG_DOWN_MS = 5_000, 60_000
WAIT_NOTED_MS = 10_000
_NEARLY_FULL = 0.9


class Finding(Struct, frozen=True):
    """Something that is wrong, and how bad that is."""

    status: Status
    reason: str


class Facts(Struct, frozen=True, kw_only=True):
    """What is judged. Times in ms, of the worst Redis where there are several."""

    takes_writes: str  # empty, or why not
    role: str
    warnings: Sequence[str]  # what else is wrong with how Redis is run
    fullness: float  # the share of maxmemory that is in use, where it is most; 0 where there is no bound
    holds: Sequence[str]  # why nothing is fired, where firing is held; sentences
    alive: int  # workers
    unserved: Sequence[int]  # shards without a worker that is alive
    unread: Mapping[int, str]  # shards that could not be asked, and why; what else is here is of the others
    silent: Sequence[tuple[str, int]]  # names of those that nobody has come for, and for how long
    keyless: Sequence[str]  # workers that meet what they have no key for
    ticker_lag: int
    queue_wait: int
    running: int
    capacity: int


def unreachable(why: str) -> list[Finding]:
    """What is wrong when nothing can be asked."""
    return [Finding("down", f"Redis can't be reached: {why}")]


def examine(facts: Facts) -> list[Finding]:
    """Everything that is wrong, the worst first."""
    held = [
        Finding("down", f"firing is held: {hold} POST /api/system/resume goes on") for hold in facts.holds
    ]
    found = [*held, *_of_redis(facts), *_of_workers(facts)]
    return sorted(found, key=lambda one: one.status != "down")


def verdict(findings: Sequence[Finding]) -> Status:
    """The status of the whole: that of its worst finding."""
    worst = {one.status for one in findings}
    return "down" if "down" in worst else "degraded" if worst else "ok"


def _of_redis(facts: Facts) -> list[Finding]:
    found = [
        Finding("down", f"the Redis of {shards} can't be reached: {why}: nothing of it is sent")
        for why, shards in shards_by(facts.unread).items()
    ]
    if facts.takes_writes:
        found.append(Finding("down", f"Redis refuses writes: {facts.takes_writes}"))
    if facts.role != "master":
        found.append(Finding("down", f"REDIS_URL leads to a {facts.role}, not to the primary"))
    found += [Finding("degraded", warning) for warning in facts.warnings]
    if facts.fullness > _NEARLY_FULL:
        found.append(Finding("degraded", f"Redis uses {facts.fullness:.0%} of its maxmemory"))
    return found


def _of_workers(facts: Facts) -> list[Finding]:
    found = []
    if not facts.alive:
        found.append(Finding("down", "no worker is alive: nothing is sent"))
    elif facts.unserved:
        found.append(
            Finding("down", f"no worker serves {shards_named(facts.unserved)}: nothing of it is sent")
        )
    for name, silence in facts.silent:
        found.append(Finding("degraded", f"worker {name} has been silent for {silence / 1000:.0f} s"))
    found += [
        Finding(
            "degraded",
            f"worker {name} can't decrypt what it is to send, which waits an hour at most for one that can:"
            " give it the CRONSPACE_ENCRYPTION_KEYS that the others have; its log names the workspaces",
        )
        for name in facts.keyless
    ]
    lag = facts.ticker_lag
    if lag > LAG_NOTED_MS:
        status: Status = "down" if lag > LAG_DOWN_MS else "degraded"
        found.append(Finding(status, f"a slot has been waiting {lag / 1000:.0f} s to be fired"))
    if facts.queue_wait > WAIT_NOTED_MS:
        busy = "; all places are in use: start more workers" if facts.running >= facts.capacity else ""
        wait = facts.queue_wait / 1000
        found.append(Finding("degraded", f"an execution has been ready for {wait:.0f} s{busy}"))
    return found
