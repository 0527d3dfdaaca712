"""The benchmark works: each row runs, small, and what it sends arrives once. How fast is not asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.due import Due, different_patterns, find_faults, make_due, one_pattern
from bench.result import Figure, percentile
from bench.rows import ROWS
from bench.sides import find_bullmq
from bench.target import Arrival
from lab.processes import ROOT, clean_environment

pytestmark = pytest.mark.xdist_group("bench")

BULLMQ = ["bullmq"] if find_bullmq(install=False)[0] else []


def run_row(row: str, folder: Path) -> dict[str, Any]:
    """Run one row, small; its part of the file."""
    out = folder / "results.json"
    done = subprocess.run(
        [sys.executable, "-m", "bench", "--small", "--rows", row, "--out", str(out)],
        cwd=ROOT,
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(out.read_text())
    assert report["small"] is True
    assert report["machine"]["cores"] >= 1
    assert list(report["rows"]) == [row]
    result: dict[str, Any] = report["rows"][row]
    for figure in result["figures"]:
        assert figure["name"] in done.stdout  # the table has it
        assert set(figure["ratios"]) <= set(figure["peers"])
    return result


def assert_figures(row: dict[str, Any], names: Sequence[str], peers: Sequence[str]) -> None:
    """The row has these figures, all of them positive, with these peers."""
    assert [figure["name"] for figure in row["figures"]] == names
    for figure in row["figures"]:
        assert figure["ours"] > 0
        assert set(figure["peers"]) == set(peers)
        assert all(value > 0 for value in figure["peers"].values())


def assert_once(row: dict[str, Any]) -> None:
    """All sides sent each request once, and none before its slot."""
    for figure in row["figures"]:
        assert figure["once"] is True
        assert all(figure["peers_once"].values())


def test_burst(tmp_path: Path) -> None:
    row = run_row("burst", tmp_path)
    assert_figures(row, ["burst, one expression", "burst, 200 expressions"], [*BULLMQ, "arq", "bare"])
    assert_once(row)
    assert row["sizes"]["count"] == 200
    assert bool(row["notes"]) == (not BULLMQ)


def test_sealing(tmp_path: Path) -> None:
    row = run_row("sealing", tmp_path)
    assert_figures(row, ["encryption, a worker's CPU", "encryption, a stored trigger"], ["plain"])
    assert_once(row)


def test_lateness(tmp_path: Path) -> None:
    row = run_row("lateness", tmp_path)
    assert_figures(row, ["lateness, p50", "lateness, p99"], BULLMQ)
    assert_once(row)


def test_memory(tmp_path: Path) -> None:
    row = run_row("memory", tmp_path)
    trigger, execution = row["figures"]
    assert trigger["name"] == "memory per trigger"
    assert trigger["ours"] > 0
    assert set(trigger["peers"]) == set(BULLMQ)
    assert execution["name"] == "memory per kept execution"
    assert execution["once"] is True
    assert row["sizes"]["kept_executions"] == 200


def test_replace(tmp_path: Path) -> None:
    row = run_row("replace", tmp_path)
    assert_figures(row, ["replace of 50, p50"], [])
    assert row["sizes"]["triggers"] == 50
    assert row["sizes"]["replaces"] == 3


def test_scale(tmp_path: Path) -> None:
    row = run_row("scale", tmp_path)
    assert_figures(row, ["scale, 2,000 stored"], ["200 stored"])
    assert_once(row)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_idle(tmp_path: Path) -> None:
    row = run_row("idle", tmp_path)
    memory, cpu = row["figures"]
    assert memory["ours"] > 0
    assert cpu["ours"] >= 0
    assert set(memory["peers"]) == set(cpu["peers"]) == set(BULLMQ)


def test_workers(tmp_path: Path) -> None:
    row = run_row("workers", tmp_path)
    assert_figures(row, ["2 workers, per worker"], ["1 worker"])
    assert_once(row)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_fleet(tmp_path: Path) -> None:
    row = run_row("fleet", tmp_path)
    assert [figure["name"] for figure in row["figures"]] == [
        "1 idle worker: Redis commands",
        "1 idle worker: Redis CPU",
        "2 idle workers: Redis commands",
        "2 idle workers: Redis CPU",
    ]
    assert all(figure["ours"] > 0 for figure in row["figures"][::2])


def test_units(tmp_path: Path) -> None:
    row = run_row("units", tmp_path)
    assert len(row["figures"]) == 10
    timings = row["figures"].pop(8)
    assert timings["name"] == "ledger, timings of a trigger's day"
    assert timings["ours"] == 0  # so few slots are not packed into a day yet
    assert_figures(row, [figure["name"] for figure in row["figures"]], [])
    assert row["sizes"]["fired"] == row["sizes"]["sent"] == row["sizes"]["hours"] * row["sizes"]["triggers"]


def test_each_row_has_its_test() -> None:
    assert all(f"test_{row}" in globals() for row in ROWS)


def test_an_unknown_row_is_refused() -> None:
    command = [sys.executable, "-m", "bench", "--rows", "brust"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "brust" in done.stderr


SLOT = 1_800_000_000


def test_patterns_differ_and_have_no_value_twice() -> None:
    patterns = different_patterns(SLOT, 10_000)
    assert len(set(patterns)) == 10_000
    for pattern in patterns:
        for field in pattern.split():
            values = field.split(",")
            assert len(values) == len(set(values))


def test_triggers_are_shared_out_over_workspaces() -> None:
    dues = make_due([SLOT] * 6, [one_pattern(SLOT)] * 6, 3)
    assert [(due.workspace, due.id) for due in dues] == [(f"ws-{n // 2}", str(n % 2)) for n in range(6)]
    assert len({due.path for due in dues}) == 6


@pytest.mark.parametrize(
    ("arrivals", "faults"),
    [
        ([Arrival(SLOT, "/a"), Arrival(SLOT + 1.0, "/b")], (0, 0, 0, 0)),
        ([Arrival(SLOT, "/a")], (1, 0, 0, 0)),
        ([Arrival(SLOT, "/a"), Arrival(SLOT, "/a"), Arrival(SLOT + 1.0, "/b")], (0, 1, 0, 0)),
        ([Arrival(SLOT, "/a"), Arrival(SLOT + 0.999, "/b")], (0, 0, 1, 0)),
        ([Arrival(SLOT, "/a"), Arrival(SLOT + 1.0, "/b"), Arrival(SLOT, "/c")], (0, 0, 0, 1)),
    ],
)
def test_what_went_wrong_is_counted(arrivals: list[Arrival], faults: tuple[int, ...]) -> None:
    dues = [Due("w", "a", "", SLOT, "/a"), Due("w", "b", "", SLOT + 1, "/b")]
    assert find_faults(arrivals, dues) == faults


def test_goals_are_judged_in_their_direction() -> None:
    fast = Figure(name="x", unit="y", ours=31, better="higher", peers={"p": 10}, goal_ratio=3, goal_peer="p")
    assert fast.met() is True
    late = Figure(
        name="x", unit="y", ours=20, better="lower", peers={"p": 15}, goal=30, goal_ratio=1, goal_peer="p"
    )
    assert late.met() is False
    alone = Figure(name="x", unit="y", ours=31, better="higher", goal_ratio=3, goal_peer="p")
    assert alone.met() is None  # without the peer nothing can be said


def test_percentiles() -> None:
    values = [float(value) for value in range(1, 101)]
    assert (percentile(values, 50), percentile(values, 99), percentile([7.0], 99)) == (50, 99, 7)
