"""What encryption costs: a worker's CPU for each execution, and Redis's memory, with keys and without."""

from __future__ import annotations

import base64
import os
import time
from statistics import median

from bench.due import Due, find_faults, load_in_time, make_due, one_pattern
from bench.lab import Lab
from bench.load import store_due
from bench.result import Context, Figure, Row
from bench.rows.idle import cpu_seconds

PLACES = 50
_SETTLES = 1.0  # s from the last arrival until its outcome is recorded


def run(context: Context) -> Row:
    """Rounds interleaved, so that what else the machine does meets both; medians of the rounds."""
    count, rounds = (200, 1) if context.small else (10_000, 5)
    sides = {"plain": "", "sealed": base64.b64encode(os.urandom(32)).decode()}
    cpu: dict[str, list[float]] = {name: [] for name in sides}
    stored: dict[str, list[float]] = {name: [] for name in sides}
    once = dict.fromkeys(sides, True)
    for _ in range(rounds):
        for name, keys in sides.items():
            micros, bytes_, was_once = burst(count, keys, 3.0 if context.small else 6.0)
            cpu[name].append(micros)
            stored[name].append(bytes_)
            once[name] = once[name] and was_once
    figures = [
        Figure(
            name=what,
            unit=unit,
            ours=median(values["sealed"]),
            better="lower",
            peers={"plain": median(values["plain"])},
            once=once["sealed"],
            peers_once={"plain": once["plain"]},
        )
        for what, unit, values in (
            ("encryption, a worker's CPU", "µs/execution", cpu),
            ("encryption, a stored trigger", "bytes", stored),
        )
    ]
    rounded = {name: [round(one) for one in found] for name, found in cpu.items()}
    return Row(figures, {"count": count, "places": PLACES, "rounds": rounded})


def burst(count: int, keys: str, lead: float) -> tuple[float, float, bool]:
    """A worker's CPU in µs an execution, Redis's bytes a trigger, and whether each request came once."""
    with Lab() as lab:
        redis, target = lab.redis(), lab.target()
        empty = redis.used_memory()

        def load(slot: int) -> list[Due]:
            dues = make_due([slot] * count, [one_pattern(slot)] * count, max(1, count // 100))
            store_due(redis.url(), dues, target.url, keys)
            return dues

        dues = load_in_time(lead, load)
        stored = (redis.used_memory() - empty) / count
        worker = lab.worker(redis.url(), PLACES, CRONSPACE_ENCRYPTION_KEYS=keys)
        before = cpu_seconds(worker.pid)
        arrivals = target.wait_for(count, 90)
        time.sleep(_SETTLES)
        micros = 1e6 * (cpu_seconds(worker.pid) - before) / count
    return micros, stored, not any(find_faults(arrivals, dues))
