"""The health score: its bounds, and that what gets better never lowers it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.health_score import consecutive_failures, health_score
from app.models import State

STATES = st.lists(
    st.sampled_from([State(s) for s in ("succeeded", "failed", "cancelled", "skipped", "missed")])
)
COUNTS = st.integers(0, 2000)
LATENESS = st.none() | st.floats(0, 1e7)
GOOD, BAD = State.SUCCEEDED, State.FAILED


def score(last: list[State], due: int = 100, absent: int = 0, late: float | None = 0) -> int:
    found = health_score(last, due=due, absent=absent, lateness_p95=late)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("last", "given", "wanted"),
    [
        ([GOOD] * 50, {}, 100),
        ([GOOD], {}, 100),
        ([BAD] * 50, {"absent": 100, "late": 60_000.0}, 0),
        ([BAD] * 50, {}, 30),  # in time and never missed, but nothing works
        ([BAD] + [GOOD] * 49, {}, 89),
        ([GOOD] * 49 + [BAD], {}, 100),  # long ago
        ([GOOD] * 50, {"absent": 50}, 90),
        ([GOOD] * 50, {"late": 60_000.0}, 90),
        ([GOOD] * 50, {"late": 7746.0}, 95),  # half way from a second to a minute, as factors go
        ([State.CANCELLED, GOOD], {}, 100),
    ],
)
def test_scores_that_a_person_would_give(last: list[State], given: dict[str, Any], wanted: int) -> None:
    assert score(last, **given) == wanted


@pytest.mark.parametrize("last", [[], [State.SKIPPED, State.MISSED, State.CANCELLED]])
def test_without_a_run_there_is_no_score(last: list[State]) -> None:
    assert health_score(last, due=9, absent=9, lateness_p95=None) is None


@given(STATES, COUNTS, COUNTS, LATENESS)
def test_it_lies_between_0_and_100(last: list[State], due: int, absent: int, late: float | None) -> None:
    found = health_score(last, due=due, absent=absent, lateness_p95=late)
    assert (found is None) == (not {GOOD, BAD} & set(last))
    assert found is None or 0 <= found <= 100


@given(STATES, COUNTS, COUNTS, LATENESS, st.data())
def test_a_failure_turned_into_a_success_never_lowers_it(
    last: list[State], due: int, absent: int, late: float | None, data: st.DataObject
) -> None:
    last = [*last, BAD]
    where = data.draw(st.sampled_from([i for i, state in enumerate(last) if state == BAD]))
    better = [*last[:where], GOOD, *last[where + 1 :]]
    assert score(better, due, absent, late) >= score(last, due, absent, late)


@given(STATES, st.integers(1, 2000), st.integers(1, 2000), LATENESS, st.data())
def test_a_missed_slot_that_succeeds_instead_never_lowers_it(
    last: list[State], due: int, absent: int, late: float | None, data: st.DataObject
) -> None:
    last = [*last, GOOD, State.MISSED]
    where = data.draw(st.sampled_from([i for i, state in enumerate(last) if state == State.MISSED]))
    better = [*last[:where], GOOD, *last[where + 1 :]]
    assert score(better, due, absent - 1, late) >= score(last, due, absent, late)


@given(STATES, COUNTS, COUNTS, st.floats(0, 1e7), st.floats(0, 1e7))
def test_an_earlier_start_never_lowers_it(
    last: list[State], due: int, absent: int, one: float, other: float
) -> None:
    last = [*last, GOOD]
    assert score(last, due, absent, min(one, other)) >= score(last, due, absent, max(one, other))


def test_failures_in_a_row_are_counted_over_what_was_not_sent() -> None:
    assert consecutive_failures([]) == 0
    assert consecutive_failures([GOOD, BAD]) == 0
    assert consecutive_failures([BAD, State.SKIPPED, BAD, GOOD, BAD]) == 2
