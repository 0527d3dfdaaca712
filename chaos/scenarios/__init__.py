"""One file for each group of scenarios; ``ALL`` has them in the order of the report."""

from __future__ import annotations

from chaos.outcome import Scenario
from chaos.scenarios import bad_targets, clocks, crowds, data_loss, failover, redis_away, scarce, workers

ALL: list[Scenario] = [
    *workers.SCENARIOS,
    *redis_away.SCENARIOS,
    *failover.SCENARIOS,
    *data_loss.SCENARIOS,
    *clocks.SCENARIOS,
    *scarce.SCENARIOS,
    *bad_targets.SCENARIOS,
    *crowds.SCENARIOS,
]
