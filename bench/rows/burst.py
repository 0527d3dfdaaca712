"""Many triggers due at the same second, one worker process: requests per second until the last arrived."""

from __future__ import annotations

import sys
from statistics import median

from bench.due import Due, different_patterns, make_due, one_pattern
from bench.lab import Lab
from bench.result import Context, Figure, Row
from bench.sides import Burst, Ours, Plan, Side, StockArq, fire

PLACES = 50


def run(context: Context) -> Row:
    """Rounds interleaved, so that what else the machine does meets all sides; medians of the rounds."""
    count, workspaces, rounds = (200, 10, 1) if context.small else (10_000, 100, 3)

    def same(slot: int) -> list[Due]:
        return make_due([slot] * count, [one_pattern(slot)] * count, workspaces)

    def different(slot: int) -> list[Due]:
        return make_due([slot] * count, different_patterns(slot, count), workspaces)

    scheduling: list[Side] = [Ours(), *([context.bullmq] if context.bullmq else [])]
    plans: dict[str, Plan] = {"one expression": same, f"{count} expressions": different}
    rates: dict[tuple[str, str], list[float]] = {}
    once: dict[tuple[str, str], bool] = {}

    def note(plan: str, side: str, rate: float, was_once: bool) -> None:
        rates.setdefault((plan, side), []).append(rate)
        once[plan, side] = once.get((plan, side), True) and was_once

    for _ in range(rounds):
        for name, plan in plans.items():
            for side in scheduling:
                burst = fire(side, plan, 3.0 if context.small else side.lead, places=PLACES)
                note(name, side.name, burst.rate(), burst.once())
        # These two know no expressions: what they do is the same in both.
        arq = StockArq()
        burst = fire(arq, same, 3.0 if context.small else arq.lead, places=PLACES)
        bare = send_bare(count)
        for name in plans:
            note(name, arq.name, burst.rate(), burst.once())
            note(name, "bare", bare.rate(), bare.once())

    peers = [*(side.name for side in scheduling[1:]), "arq", "bare"]
    figures = [
        Figure(
            name=f"burst, {name}",
            unit="requests/s",
            ours=median(rates[name, "ours"]),
            better="higher",
            peers={peer: median(rates[name, peer]) for peer in peers},
            goal_ratio=3,
            goal_peer="bullmq",
            once=once[name, "ours"],
            peers_once={peer: once[name, peer] for peer in peers},
        )
        for name in plans
    ]
    notes = [context.bullmq_note] if context.bullmq_note else []
    rounded = {f"{plan}: {side}": [round(rate) for rate in found] for (plan, side), found in rates.items()}
    return Row(
        figures, {"count": count, "workspaces": workspaces, "places": PLACES, "rounds": rounded}, notes
    )


def send_bare(count: int) -> Burst:
    """The same requests without any queue."""
    with Lab() as lab:
        target = lab.target()
        command = [sys.executable, "-m", "bench.peers.bare", target.url, str(count), str(PLACES)]
        process = lab.process("bare", command)
        process.wait_for_text("\n")
        began = float(process.log.read_text().split()[0])
        arrivals = target.wait_for(count, 90)
    return Burst(arrivals, make_due([int(began)] * count, [""] * count, 1), began)
