"""The chaos suite: scenarios in their short form, and that its account finds what is wrong."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import msgspec
import pytest

from chaos import report
from chaos.account import Account, Entry, Repeat, balance
from chaos.load import Planned, slots_between, steady
from chaos.outcome import Scenario
from chaos.scenarios import ALL
from chaos.scenarios.workers import kill_of
from chaos.target import Request
from lab.processes import ROOT

IN_TESTS = [one for one in ALL if one.in_tests]


@pytest.mark.parametrize("scenario", IN_TESTS, ids=lambda one: one.key)
def test_a_short_scenario_passes(scenario: Scenario) -> None:
    missing = scenario.needs()
    if missing:
        pytest.skip(missing)
    outcome = scenario.run(True)
    assert outcome.faults == [], outcome.figures
    assert outcome.account.due > 0


START = 1_800_000_000  # s since the epoch, a Friday, at a full minute and an even second
LOAD = [Planned("w", "t", "* * * * * *", START, START + 2, "http://target")]


def sent(slot: int, **changes: Any) -> Request:
    """A request that is as it should be, but for the changes."""
    at = START + slot
    good = Request(at + 0.01, "w", "t", f"w:t:{at * 1000}", 1, at * 1000, at + 0.02, True)
    return good._replace(**changes)


def account(requests: list[Request], due: int = 3, **ended: int) -> Account:
    """The account of three slots; the ledger says what is told, or that all succeeded."""
    entry = Entry(due, due - sum((ended or {"succeeded": 3}).values()), ended or {"succeeded": 3})
    return balance(LOAD, requests, {("w", "t"): entry})


GOOD = [sent(0), sent(1), sent(2)]


def test_what_is_as_it_should_be_has_no_faults() -> None:
    found = account(GOOD)
    assert (found.due, found.sent, found.lost, found.repeats) == (3, 3, [], [])
    assert found.faults() == []


@pytest.mark.parametrize(
    ("requests", "fault"),
    [
        (GOOD[:2], "1 lost"),
        ([*GOOD, sent(2)], "1 slots sent again"),
        ([*GOOD, sent(2, id="w:t:other")], "1 repeats with another webhook-id"),
        ([sent(0, attempt=2), *GOOD], "1 repeats with a lower attempt"),
        ([*GOOD[:2], sent(2, at=START + 1.9)], "1 requests before their slot"),
        ([*GOOD, sent(3)], "1 requests for no slot"),
        ([*GOOD[:2], sent(2, answered=False)], "1 requests cut off"),
    ],
)
def test_the_account_finds_what_came_wrongly(requests: list[Request], fault: str) -> None:
    assert any(fault in found for found in account(requests).faults())


@pytest.mark.parametrize(
    ("ledger", "fault"),
    [
        ({"due": 4, "succeeded": 3}, "4 slots due, there were 3"),
        ({"succeeded": 2}, "1 slots open"),
        ({"succeeded": 2, "missed:deadline": 1}, "2 slots sent, 3 arrived"),
    ],
)
def test_the_account_finds_where_the_ledger_differs(ledger: dict[str, int], fault: str) -> None:
    assert any(fault in found for found in account(GOOD, **ledger).faults())


def test_what_is_missed_is_lost_all_the_same_and_has_to_be_named_by_the_ledger() -> None:
    missed = {"succeeded": 2, "missed:deadline": 1}
    slot = (START + 2) * 1000
    named = Entry(3, 0, missed, [(slot, slot, "missed")])
    found = balance(LOAD, GOOD[:2], {("w", "t"): named})
    assert found.lost == [("w", "t", slot)]
    assert found.faults(lost=1) == []
    assert any("1 lost, not 0" in fault for fault in found.faults())
    another = msgspec.structs.replace(named, exceptions=[(slot - 1000, slot - 1000, "missed")])
    assert balance(LOAD, GOOD[:2], {("w", "t"): another}).disagreements


@pytest.mark.parametrize(
    ("ended", "answered", "in_flight"),
    [
        (START + 1.1, False, True),  # the connection went with the worker
        (START + 0.5, False, False),  # cut before the kill, by something else
        (START + 0.9, True, True),  # answered, and perhaps not yet recorded
        (START + 0.2, True, False),  # answered long before
        (None, False, False),  # the worker still waits for it
    ],
)
def test_what_was_in_flight_at_a_kill_is_told_from_what_was_not(
    ended: float | None, answered: bool, in_flight: bool
) -> None:
    before = sent(0, ended=ended, answered=answered)
    repeat = Repeat(before, sent(0, at=START + 3, attempt=2))
    assert (kill_of(repeat, [START + 1]) is not None) is in_flight
    assert kill_of(repeat, [START + 4]) is None


def test_the_load_is_a_hundred_slots_in_every_second() -> None:
    load = steady("http://target", START, 10)
    for second in range(START, START + 10):
        assert sum(second * 1000 in one.slots() for one in load) == 100


def test_slots_are_those_of_the_expression_and_of_the_interval() -> None:
    seconds = [slot // 1000 - START for slot in slots_between("1-59/2 * * * * *", START, START + 5)]
    assert seconds == [1, 3, 5]
    assert slots_between(2, START, START + 5) == [(START + plus) * 1000 for plus in (0, 2, 4)]


def test_the_page_is_what_the_kept_results_say() -> None:
    results = msgspec.json.decode(report.RESULTS.read_bytes(), type=report.Results)
    assert report.PAGE.read_text() == report.text(results, ALL)
    assert set(results.scenarios) == {one.key for one in ALL}


def test_an_unknown_scenario_is_refused() -> None:
    command = [sys.executable, "-m", "chaos", "--only", "killz"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "killz" in done.stderr
