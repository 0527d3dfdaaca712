"""The simulation of the autoscaler: workers follow what waits, do not flap, and go again."""

from __future__ import annotations

import pytest
import yaml

from bench.scaling import PLACES, SCALER, Phase, Scaler, run, simulate

MANIFEST = yaml.safe_load(SCALER.read_text())


def test_workers_follow_a_burst_up_at_once_and_down_late() -> None:
    moments = run()
    counts = [one.workers for one in moments]
    assert max(counts[:5]) == 2
    worked_off = next(one.minute for one in moments if one.minute > 5 and one.waiting == 0)
    assert worked_off <= 8  # 30,000 at once, beside 400 a second
    peak = counts.index(max(counts))
    assert counts[: peak + 1] == sorted(counts[: peak + 1])  # up without going down between
    assert counts[peak:] == sorted(counts[peak:], reverse=True)  # and down without going up
    full_hour = [one.workers for one in moments if one.due == 400 and one.minute > worked_off]
    assert min(full_hour) * PLACES >= 800  # never fewer than what is on its way needs
    assert counts[-1] == 2


def test_a_steady_load_ends_at_a_steady_number_of_workers() -> None:
    moments = list(simulate(Scaler(MANIFEST), [Phase(30, due=300, answers=2)]))
    assert [one.workers for one in moments[-10:]] == [9] * 10  # 600 on their way, 70 for each
    assert moments[-1].waiting == 0


def test_the_bounds_hold() -> None:
    moments = list(simulate(Scaler(MANIFEST), [Phase(10, due=300, answers=10), Phase(20, due=0, answers=1)]))
    counts = [one.workers for one in moments]
    assert max(counts) == MANIFEST["spec"]["maxReplicas"]
    assert counts[-1] == MANIFEST["spec"]["minReplicas"]


@pytest.mark.parametrize(("in_flight", "workers"), [(280, 4), (300, 4), (330, 5), (20, 2)])
def test_a_small_difference_changes_nothing(in_flight: int, workers: int) -> None:
    """Kubernetes leaves things as they are within a tenth of the target."""
    figures = {
        "cronspace_in_flight_requests": in_flight,
        "cronspace_queue_depth": 0,
        "cronspace_overdue_slots": 0,
    }
    scaler = Scaler(MANIFEST)
    current = 4
    for now in range(0, 1800, 15):
        current = scaler.decide(now, current, {name: float(value) for name, value in figures.items()})
    assert current == workers
