"""`python -m bench.scaling`: how many workers the HPA makes of a load, minute by minute.

The targets and the behaviour are read from deploy/k8s/components/workers-by-load; the algorithm is the one
that Kubernetes documents (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/).
What a worker does is its places and the rate that `make bench` measured. Nothing is random: a run gives the
same table each time, and docs/operations.md shows it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct

SCALER = Path(__file__).parents[1] / "deploy/k8s/components/workers-by-load/scaling.yaml"

STEP = 0.5  # s
SYNC, SCRAPE = 15, 15  # s: Kubernetes' default, and how old a figure can be that Prometheus gives
TOLERANCE = 0.1  # Kubernetes' default
POD_STARTS = 20  # s until a new worker claims: assumed; the process itself takes about one of them
PLACES = 100  # CRONSPACE_MAX_JOBS
RATE = 9200.0  # requests/s of one worker at most: the row "burst, 10000 expressions"


class Phase(Struct, frozen=True):
    """A stretch of time with the same load."""

    minutes: int
    due: float  # slots/s
    answers: float  # s that a target takes
    at_once: int = 0  # slots that come due in the first moment


# A quiet hour's end, a full hour with thirty thousand slots at once and a busy quarter, and quiet again.
DAY = (
    Phase(5, due=40, answers=0.5),
    Phase(15, due=400, answers=2, at_once=30_000),
    Phase(20, due=40, answers=0.5),
)


class Moment(Struct, frozen=True):
    """What stands at a minute's end."""

    minute: int
    due: float
    in_flight: int
    waiting: int
    workers: int


class Scaler:
    """A HorizontalPodAutoscaler on external metrics with AverageValue targets."""

    def __init__(self, manifest: dict[str, Any]) -> None:
        spec = manifest["spec"]
        self._bounds = spec["minReplicas"], spec["maxReplicas"]
        self._targets = {
            one["external"]["metric"]["name"]: float(one["external"]["target"]["averageValue"])
            for one in spec["metrics"]
        }
        self._up, self._down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        self._wanted: deque[tuple[float, int]] = deque()  # what was wanted when
        self._had: deque[tuple[float, int]] = deque()  # how many there were when

    def decide(self, now: float, current: int, figures: dict[str, float]) -> int:
        """How many there should be."""
        wanted = max(self._of_one(current, figures[name], target) for name, target in self._targets.items())
        self._wanted.append((now, wanted))
        self._had.append((now, current))
        least, most = self._bounds
        at_least = min(self._since(now, self._up, wanted))
        at_most = max(self._since(now, self._down, wanted))
        chosen = min(max(current, at_least), at_most)
        if chosen > current:
            chosen = min(chosen, self._limit(now, current, self._up, +1))
        elif chosen < current:
            chosen = max(chosen, self._limit(now, current, self._down, -1))
        return min(max(chosen, least), most)

    @staticmethod
    def _of_one(current: int, total: float, target: float) -> int:
        if abs(total / (target * current) - 1) <= TOLERANCE:
            return current
        return math.ceil(total / target)

    def _since(self, now: float, rules: dict[str, Any], wanted: int) -> list[int]:
        window = rules["stabilizationWindowSeconds"]
        return [wanted, *(found for at, found in self._wanted if at > now - window)]

    def _limit(self, now: float, current: int, rules: dict[str, Any], sign: int) -> int:
        """The furthest that any of the policies lets it go from what there was a period ago."""
        reached = []
        for policy in rules["policies"]:
            before = next((had for at, had in self._had if at > now - policy["periodSeconds"]), current)
            by_pods = policy["type"] == "Pods"
            change = policy["value"] if by_pods else before * policy["value"] / 100
            reached.append(before + sign * change)
        return math.ceil(max(reached)) if sign > 0 else math.ceil(min(reached))


def simulate(scaler: Scaler, phases: Sequence[Phase]) -> Iterator[Moment]:
    """The load runs into the fleet; what the fleet reports moves the scaler; pods come after a while."""
    workers, waiting, now = 2, 0.0, 0.0
    running: deque[tuple[float, float]] = deque()  # when they end, how many
    coming: deque[tuple[float, int]] = deque()  # when there will be how many
    seen: deque[tuple[float, dict[str, float]]] = deque()
    asked = workers
    for phase in phases:
        waiting += phase.at_once
        for step in range(round(phase.minutes * 60 / STEP)):
            while running and running[0][0] <= now:
                running.popleft()
            while coming and coming[0][0] <= now:
                workers = coming.popleft()[1]
            waiting += phase.due * STEP
            free = workers * PLACES - sum(number for _, number in running)
            started = max(0.0, min(waiting, free, workers * RATE * STEP))
            running.append((now + phase.answers, started))
            waiting -= started
            in_flight = sum(number for _, number in running)
            figures = {
                "cronspace_in_flight_requests": in_flight,
                "cronspace_queue_depth": waiting,
                "cronspace_overdue_slots": 0.0,  # firing is fast: what has to wait, waits in the queue
            }
            seen.append((now, figures))
            if now % SYNC == 0 and seen[0][0] <= now - SCRAPE:
                while len(seen) > 1 and seen[1][0] <= now - SCRAPE:
                    seen.popleft()
                chosen = scaler.decide(now, asked, seen[0][1])
                if chosen < asked:
                    workers = min(workers, chosen)  # what runs there ends, or is handed back
                    coming.clear()
                elif chosen > asked:
                    coming.append((now + POD_STARTS, chosen))
                asked = chosen
            now += STEP
            if (step + 1) * STEP % 60 == 0:
                yield Moment(round(now / 60), phase.due, round(in_flight), round(waiting), workers)


def table(moments: Sequence[Moment]) -> str:
    """The minutes in which something changed, as a Markdown table."""
    lines = ["| minute | due/s | in flight | waiting | workers |", "|---|---|---|---|---|"]
    before: Moment | None = None
    for one in moments:
        told = (one.due, one.workers, one.waiting > 0)
        if before is None or told != (before.due, before.workers, before.waiting > 0) or one.waiting:
            lines.append(f"| {one.minute} | {one.due:g} | {one.in_flight} | {one.waiting} | {one.workers} |")
        before = one
    return "\n".join(lines)


def run() -> list[Moment]:
    """The simulation with what is shipped."""
    return list(simulate(Scaler(yaml.safe_load(SCALER.read_text())), DAY))


if __name__ == "__main__":
    print(table(run()))
