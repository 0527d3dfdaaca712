"""Presets, and expressions in words."""

from __future__ import annotations

from itertools import groupby

import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import examples, expressions

from app.errors import InvalidSchedule
from app.schedule.cron import parse
from app.schedule.fields import MACROS
from app.schedule.presets import PRESETS, describe


def test_there_are_at_least_thirty_presets_grouped_and_each_can_be_used() -> None:
    assert len(PRESETS) >= 30
    assert len({preset.name for preset in PRESETS}) == len(PRESETS)
    assert len({preset.expression for preset in PRESETS}) == len(PRESETS)
    groups = [group for group, _ in groupby(PRESETS, lambda preset: preset.group)]
    assert len(groups) == len(set(groups))
    for preset in PRESETS:
        parse(preset.expression)
        assert preset.description
        assert describe(preset.expression)


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("* * * * *", "Every minute"),
        ("@daily", "At 00:00, every day"),
        ("*/5 * * * *", "Every 5 minutes"),
        ("0,15,30,45 * * * *", "Every 15 minutes"),
        ("30 0 9 * * MON-FRI", "At 09:00:30, on Monday through Friday"),
        ("30 0 9 ? 1-3 *", "At 09:00:30, in January through March"),
        ("0 0 13 * 5", "At 00:00, on day 13 of the month, or on Friday"),
        ("0 0 */2 * 1", "At 00:00, every 2 days, but only on Monday"),
        ("0 0 1-31 * 1", "At 00:00, every day"),
        ("0 0 L * *", "At 00:00, on the last day of the month"),
        ("0 0 L,15 * *", "At 00:00, on day 15 of the month and on the last day of the month"),
        ("0 0 LW * *", "At 00:00, on the last weekday of the month"),
        ("0 0 15W * *", "At 00:00, on the weekday nearest day 15 of the month"),
        ("0 0 * * MON#2", "At 00:00, on the second Monday of the month"),
        ("0 0 * * FRIL", "At 00:00, on the last Friday of the month"),
        ("H * * * *", "At a minute of the trigger's own, every hour"),
        (
            "H H(1-5) * * 1",
            "At a minute of the trigger's own, at an hour of the trigger's own from 1 to 5, on Monday",
        ),
        ("0 9 H * *", "At 09:00, on a day of the month of the trigger's own"),
        ("H/15 9 * * *", "Every 15 minutes, first at a minute of the trigger's own, between 09:00 and 09:59"),
        ("H,30 9 * * *", "At the minute H,30, of which H is the trigger's own, between 09:00 and 09:59"),
    ],
)
def test_expressions_in_words(expression: str, words: str) -> None:
    assert describe(expression) == words


@examples(150)
@given(expressions)
def test_whatever_can_be_parsed_can_be_described(expression: str) -> None:
    try:
        parse(expression)
    except InvalidSchedule:
        with pytest.raises(InvalidSchedule):
            describe(expression)
        return
    words = describe(expression)
    assert words[0].isupper()
    assert not any(odd in words for odd in ("?", "None", ",,", ", ,", "  ", "{"))


@examples(100)
@given(st.lists(st.sampled_from(["H", "*", "H/3", "H(1-5)", "H(2-4)/2", "H,1", "3"]), min_size=5, max_size=6))
def test_hashes_can_be_described_in_any_field(fields: list[str]) -> None:
    assert describe(" ".join(fields))


@pytest.mark.parametrize("macro", MACROS)
def test_macros_can_be_described(macro: str) -> None:
    assert describe(macro).startswith(("At 00:00", "Every hour"))
