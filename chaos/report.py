"""The page that tells what was shown: docs/reliability.md, written from the results of the last runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from chaos.outcome import Outcome, Scenario
from lab.machine import Machine
from lab.processes import ROOT

PAGE = ROOT / "docs" / "reliability.md"
RESULTS = ROOT / "chaos" / "results.json"
_HEAD = ROOT / "chaos" / "head.md"


class Result(Struct):
    """What a scenario gave, as it is kept."""

    day: str
    seconds: float
    load: float  # the machine's load average when it began: what others did at the same time
    due: int
    sent: int
    lost: int
    ended: dict[str, int]  # by the ledger
    repeated: int
    other_ids: int
    figures: dict[str, str]
    faults: list[str]


class Results(Struct):
    """The last result of each scenario, by its key."""

    machine: Machine
    scenarios: dict[str, Result]


def result_of(outcome: Outcome, day: str, seconds: float, load: float) -> Result:
    """What is kept of an outcome."""
    account = outcome.account
    return Result(
        day=day,
        seconds=round(seconds, 1),
        load=round(load, 1),
        due=account.due,
        sent=account.sent,
        lost=len(account.lost),
        ended=dict(sorted(account.ended.items())),
        repeated=len(account.repeats),
        other_ids=account.other_ids,
        figures=outcome.figures,
        faults=outcome.faults,
    )


def read(path: Path) -> dict[str, Result]:
    """The results of earlier runs."""
    return msgspec.json.decode(path.read_bytes(), type=Results).scenarios if path.exists() else {}


def write(results: Results, scenarios: Sequence[Scenario], path: Path = RESULTS, page: Path = PAGE) -> None:
    """Keep the results, and write the page."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(results), indent=2) + b"\n")
    page.write_text(text(results, scenarios))


def text(results: Results, scenarios: Sequence[Scenario]) -> str:
    """The page."""
    kept = {one.key: results.scenarios[one.key] for one in scenarios if one.key in results.scenarios}
    lines = [
        "## The table",
        "",
        "| scenario | due | sent | lost | missed, skipped | repeated | ledger | |",
        "|---|---|---|---|---|---|---|---|",
    ]
    shown = [one for one in scenarios if one.key in kept]
    lines += [_row(one, kept[one.key]) for one in shown]
    lines += ["", _measured_on(results.machine), ""]
    for one in shown:
        lines += _section(one, kept[one.key])
    return _HEAD.read_text() + "\n".join(lines)


def _row(scenario: Scenario, result: Result) -> str:
    unsent = sum(count for end, count in result.ended.items() if end.startswith(("missed", "skipped")))
    agrees = "differs" if any("the ledger has" in fault for fault in result.faults) else "agrees"
    cells = [
        f"[{scenario.name}](#{_anchor(scenario.name)})",
        *(f"{number:,}" for number in (result.due, result.sent, result.lost, unsent, result.repeated)),
        agrees,
        "**failed**" if result.faults else "passed",
    ]
    return f"| {' | '.join(cells)} |"


def _section(scenario: Scenario, result: Result) -> list[str]:
    lines = [f"## {scenario.name}", "", scenario.made, "", f"To show: {scenario.shows}", ""]
    lines += ["| measured | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in result.figures.items()]
    lines += [f"| the ledger's ends | {_ends(result.ended)} |"]
    busy = f"load average of the machine before: {result.load:g}"
    lines += [f"| run | {result.day}, {result.seconds:.0f} s, `--only {scenario.key}`; {busy} |", ""]
    if result.faults:
        lines += ["Not as it should be:", "", *(f"- {fault}" for fault in result.faults), ""]
    return lines


def _ends(ended: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {end}" for end, count in ended.items())


def _measured_on(machine: Machine) -> str:
    return "Measured on: " + ", ".join(f"{name} {value}" for name, value in machine.items() if value) + "."


def _anchor(heading: str) -> str:
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in "-_ ")
    return kept.replace(" ", "-")
