"""Triggers due each second: how long after its slot a request arrives, in ms."""

from __future__ import annotations

from bench.due import Due, make_due, one_pattern
from bench.result import Context, Figure, Row, percentile
from bench.sides import Ours, Side, fire

PLACES = 50


def run(context: Context) -> Row:
    """Each trigger has one slot, so that its arrival tells which; all are stored before the first is due."""
    each, seconds = (20, 2) if context.small else (100, 30)

    def plan(slot: int) -> list[Due]:
        slots = [slot + second for second in range(seconds) for _ in range(each)]
        # One workspace per 10 triggers: max_concurrency is 10 by default, and is not what is measured.
        return make_due(slots, [one_pattern(at) for at in slots], len(slots) // 10)

    sides: list[Side] = [Ours(), *([context.bullmq] if context.bullmq else [])]
    late: dict[str, list[float]] = {}
    once: dict[str, bool] = {}
    for side in sides:
        burst = fire(side, plan, 3.0 if context.small else side.lead, places=PLACES)
        slots = {due.path: due.slot for due in burst.dues}
        late[side.name] = [(one.at - slots[one.path]) * 1000 for one in burst.arrivals if one.path in slots]
        once[side.name] = burst.once()
    peers = [side.name for side in sides[1:]]
    figures = [
        Figure(
            name=f"lateness, p{percent}",
            unit="ms",
            ours=percentile(late["ours"], percent),
            better="lower",
            peers={peer: percentile(late[peer], percent) for peer in peers},
            goal=30 if percent == 99 else None,
            goal_ratio=1 if percent == 99 else None,
            goal_peer="bullmq",
            once=once["ours"],
            peers_once={peer: once[peer] for peer in peers},
        )
        for percent in (50, 99)
    ]
    sizes = {"each_second": each, "seconds": seconds, "places": PLACES}
    return Row(figures, sizes, [context.bullmq_note] if context.bullmq_note else [])
