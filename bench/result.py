"""What a row of the benchmark gives: figures with their goals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import Struct

from bench.sides import BullMQ


class Context(Struct, frozen=True):
    """What every row gets."""

    small: bool  # tiny sizes: to see that it works, not how fast
    bullmq: BullMQ | None
    bullmq_note: str  # why there is none


class Figure(Struct, kw_only=True):
    """One thing measured: ours, the peers', and whether the goal is met.

    Either ``goal`` bounds our own figure, or ``goal_ratio`` bounds ours divided by the peer's ``goal_peer``;
    ``better`` says in which direction.
    """

    name: str
    unit: str
    ours: float
    better: Literal["higher", "lower"]
    peers: dict[str, float] = {}
    goal: float | None = None
    goal_ratio: float | None = None
    goal_peer: str = ""
    once: bool | None = None  # ours: each request came once, and none before its slot
    peers_once: dict[str, bool] = {}

    def ratios(self) -> dict[str, float]:
        """Ours divided by each peer's."""
        return {name: self.ours / peer for name, peer in self.peers.items() if peer}

    def met(self) -> bool | None:
        """Whether every goal is met; None: there is none, or what it compares with was not measured."""
        verdicts = []
        if self.goal is not None:
            verdicts.append(self._good(self.ours, self.goal))
        ratio = self.ratios().get(self.goal_peer)
        if self.goal_ratio is not None and ratio is not None:
            verdicts.append(self._good(ratio, self.goal_ratio))
        return all(verdicts) if verdicts else None

    def _good(self, value: float, bound: float) -> bool:
        return value >= bound if self.better == "higher" else value <= bound

    def goal_text(self) -> str:
        """The goals, to be read."""
        sign = "≥" if self.better == "higher" else "≤"
        parts = []
        if self.goal is not None:
            parts.append(f"{sign} {self.goal:g}")
        if self.goal_ratio is not None:
            parts.append(f"{sign} {self.goal_ratio:g} x {self.goal_peer}")
        return ", ".join(parts)

    def as_json(self) -> dict[str, Any]:
        """All of it, for the file."""
        return {
            "name": self.name,
            "unit": self.unit,
            "ours": round(self.ours, 3),
            "peers": {name: round(value, 3) for name, value in self.peers.items()},
            "ratios": {name: round(value, 3) for name, value in self.ratios().items()},
            "goal": self.goal_text(),
            "met": self.met(),
            "once": self.once,
            "peers_once": self.peers_once,
        }


class Row(Struct):
    """A row's figures, with how they were measured and what could not be."""

    figures: list[Figure]
    sizes: dict[str, Any]
    notes: list[str] = []


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that so many per cent of the values don't exceed; NaN of none."""
    if not values:
        return float("nan")
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * int(percent * 10) // 1000) - 1)]
