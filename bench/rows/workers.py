"""More workers against a slow target: requests per second per worker, compared with a single one."""

from __future__ import annotations

from bench.due import Due, find_faults, load_in_time, make_due, one_pattern
from bench.lab import Lab
from bench.load import store_due
from bench.result import Context, Figure, Row
from bench.sides import Burst

PLACES, DELAY = 10, 0.1  # s until the target answers


def run(context: Context) -> Row:
    """Every number of workers gets the same work per worker, so that all run for the same time."""
    numbers, each = ((1, 2), 20) if context.small else ((1, 2, 4, 8), 1000)
    rates: dict[int, float] = {}
    once: dict[int, bool] = {}
    for workers in numbers:
        rates[workers], once[workers] = rate(workers, workers * each, 3.0 if context.small else 8.0)
    first, *more = numbers
    figures = [
        Figure(
            name=f"{workers} workers, per worker",
            unit="requests/s",
            ours=rates[workers] / workers,
            better="higher",
            peers={"1 worker": rates[first]},
            goal_ratio=0.9 if workers == 8 else None,
            goal_peer="1 worker",
            once=once[workers],
            peers_once={"1 worker": once[first]},
        )
        for workers in more
    ]
    sizes = {"requests_per_worker": each, "places": PLACES, "target_seconds": DELAY}
    return Row(figures, sizes)


def rate(workers: int, count: int, lead: float) -> tuple[float, bool]:
    """Requests per second of that many workers together, from the slot until the last answer."""
    with Lab() as lab:
        redis, target = lab.redis(), lab.target(DELAY)

        def load(slot: int) -> list[Due]:
            dues = make_due([slot] * count, [one_pattern(slot)] * count, max(1, count // 100))
            store_due(redis.url(), dues, target.url)
            return dues

        dues = load_in_time(lead, load)
        for _ in range(workers):
            lab.worker(redis.url(), PLACES, CRONSPACE_MAX_CONCURRENCY="0")
        arrivals = target.wait_for(count, 90)
    burst = Burst(arrivals, dues, dues[0].slot - DELAY)
    return burst.rate(), not any(find_faults(arrivals, dues))
