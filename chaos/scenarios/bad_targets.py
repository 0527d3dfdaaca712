"""Targets that misbehave, in every way that we know of, beside ones that do not."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import NamedTuple

from chaos.load import Planned, sleep_until, steady
from chaos.outcome import Outcome, Scenario, percentile, seconds
from chaos.rig import Rig
from chaos.target import Target

_LATER_SECONDS = 0.5  # what an attempt may take beyond its time-out
_GROWTH_MB = 5.0
_MANY = str(100_000)


class Size(NamedTuple):
    """How much of each way."""

    seconds: int
    each: int  # slots a second
    timeout: float  # s

    @property
    def due(self) -> int:
        """The slots of a way."""
        return self.seconds * self.each


class Bad(NamedTuple):
    """A way to misbehave, and how it has to be recorded: a kind of failure, or a status."""

    name: str
    url: str
    do: str
    recorded: str


def all_of(target: Target) -> list[Bad]:
    """All ways."""
    return [
        Bad("refuses", target.refusing_url, "", "connect"),
        Bad("hangs", target.url, "do=hang", "timeout"),
        Bad("drips", target.url, "do=drip", "timeout"),
        Bad("endless", target.url, "do=endless", "200"),
        Bad("bomb", target.url, "do=bomb", "200"),
        Bad("untrusted", target.untrusted_url, "", "tls"),
        Bad("plain", target.plain_tls_url, "", "tls"),
        Bad("garbage", target.url, "do=garbage", "protocol"),
        Bad("headers", target.url, "do=headers", "protocol"),
        Bad("closes", target.url, "do=close", "protocol"),
    ]


def misbehaving(short: bool) -> Outcome:
    """Ten slots a second for each way, beside 100 a second for a good target."""
    # The short form shares its machine with other tests: less at once, and more time.
    # The long one lasts until a worker, whose garbage collector looks seldom, has grown to what it keeps.
    size = Size(4, 2, 5.0) if short else Size(210, 10, 2.0)
    settings = {
        "CRONSPACE_MAX_CONCURRENCY": "0",
        "CRONSPACE_KEEP_FAILED": _MANY,
        "CRONSPACE_KEEP_SUCCEEDED": _MANY,
    }
    with Rig(settings=settings) as rig:
        ways = all_of(rig.target)
        load = rig.store_in_time(
            lambda first: [*steady(rig.target.url, first, size.seconds), *misbehave(ways, first, size)]
        )
        first, last = load[0].first, load[0].last
        good = [one for one in load if one.url == rig.target.url and not one.do]
        sleep_until(first + size.seconds / 4)
        before = usual_memory(rig, size.seconds / 4)
        sleep_until(last - size.seconds / 4)
        after = usual_memory(rig, size.seconds / 4)
        account = rig.settle(good)
        faults = account.faults() + rig.dead()
        figures = {"requests to bad targets": str(size.due * len(ways))}
        for way in ways:
            _wait_for_end(rig, way.name, size.due)
            text, found = _recorded(rig, way, size)
            figures[f"`{way.name}`"] = text
            faults += found
    growth = max(now - then for now, then in zip(after, before, strict=True))
    # In the first minute a worker grows with what it keeps: connections, prepared requests, garbage.
    if growth > _GROWTH_MB and not short:
        faults.append(f"a worker grew by {growth:.1f} MB")
    figures["a worker's memory in the second quarter, median"] = f"{max(before):.0f} MB"
    figures["its growth until the last quarter, largest"] = f"{growth:.1f} MB"
    figures["lateness at the good target, p99"] = seconds(percentile(account.late, 99))
    return Outcome(account, figures, faults)


def misbehave(ways: list[Bad], first: int, size: Size) -> list[Planned]:
    """The triggers of all ways."""
    last = first + size.seconds - 1
    fields = {"timeout_seconds": size.timeout, "max_retries": 0}
    return [
        Planned(way.name, f"t{number}", "* * * * * *", first, last, way.url, way.do, fields)
        for way in ways
        for number in range(size.each)
    ]


def _wait_for_end(rig: Rig, workspace: str, due: int) -> None:
    deadline = time.monotonic() + 20
    while rig.client.counted(workspace) != (due, 0) and time.monotonic() < deadline:
        time.sleep(0.1)


def _recorded(rig: Rig, way: Bad, size: Size) -> tuple[str, list[str]]:
    """How the executions of a way ended, to be read; and what should not be."""
    executions = rig.client.executions(way.name)
    kinds = Counter(
        execution["error"]["kind"] if execution["error"] else str(execution["status"])
        for execution in executions
    )
    longest = max((execution["duration_ms"] / 1000 for execution in executions), default=float("nan"))
    faults = []
    if kinds != {way.recorded: size.due}:
        faults.append(f"{way.name}: recorded as {dict(kinds)}, not as {size.due} times {way.recorded}")
    if longest > size.timeout + _LATER_SECONDS:
        faults.append(f"{way.name}: an attempt took {longest:.2f} s, with a time-out of {size.timeout:g} s")
    return f"{size.due:,} recorded as {way.recorded}, longest {longest:.2f} s", faults


def usual_memory(rig: Rig, lasting: float) -> list[float]:
    """The median of each worker's memory over a while: what is being read at a moment is not growth."""
    samples: list[list[float]] = [[] for _ in rig.workers]
    until = time.monotonic() + lasting
    while time.monotonic() < until:
        for own, worker in zip(samples, rig.workers, strict=True):
            own.append(resident_mb(worker.pid))
        time.sleep(0.2)
    return [median(own) for own in samples]


def resident_mb(pid: int) -> float:
    """A process's resident memory, in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


SCENARIOS = [
    Scenario(
        "Targets that misbehave",
        "Ten slots a second for each of ten ways, with a time-out of 2 s and no retry, beside 100 a second"
        " for a good target: refuse, hang, drip a byte a second, an endless body, a gzip bomb, a certificate"
        " that nobody trusts, no TLS where TLS is wanted, garbage, endless headers, half a body.",
        "Each request ends as the right kind of failure within its time-out; a body without end is read up"
        " to 1 MB and closed, a bomb is not unpacked: they are what their status says. Memory of the workers"
        " stays flat, and the good target's requests are on time.",
        misbehaving,
        in_tests=True,
    ),
]
