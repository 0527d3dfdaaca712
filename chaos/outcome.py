"""What a scenario gives."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from msgspec import Struct

from chaos.account import Account


class Outcome(Struct):
    """The account, figures beside it, and what should not have been: without any of that it has passed."""

    account: Account
    figures: dict[str, str]
    faults: list[str]


class Scenario(NamedTuple):
    """One thing that breaks. ``made`` says how, ``shows`` what has to be so."""

    name: str
    made: str
    shows: str
    run: Callable[[bool], Outcome]  # takes whether it is to be short
    needs: Callable[[], str] = lambda: ""  # why it can't be run here; empty: it can
    in_tests: bool = False  # its short form is short enough for every run of the tests

    @property
    def key(self) -> str:
        """Its name on the command line."""
        return self.run.__name__


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values don't exceed; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 10) // 1000) - 1)]


def seconds(value: float) -> str:
    """A duration in s, to be read."""
    return f"{value:.2f} s"
