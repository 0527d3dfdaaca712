"""Stretches of constant offset."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from strategies import ZONES, examples, moments, zones

from app.errors import InvalidSchedule
from app.schedule.zones import load_zone, stretch_at, stretches


def seconds(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp())


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="IANA"):
        load_zone("Mars/Phobos")
    with pytest.raises(InvalidSchedule):
        load_zone("../../etc/passwd")


@examples(150)
@given(zones, moments)
def test_the_stretch_at_a_moment_has_its_offset(zone: str, moment: datetime) -> None:
    second = int(moment.timestamp())
    stretch = stretch_at(zone, second)
    assert stretch.begin <= second < stretch.end
    for inside in (stretch.begin, second, stretch.end - 1):
        if zone != "UTC":
            offset = datetime.fromtimestamp(inside, load_zone(zone)).utcoffset()
            assert offset is not None
            assert offset.total_seconds() == stretch.offset


@pytest.mark.parametrize("zone", ZONES[1:])
def test_stretches_join_without_a_hole(zone: str) -> None:
    begin, end = seconds("1971-01-01T00:00:00+00:00"), seconds("2090-01-01T00:00:00+00:00")
    found = list(stretches(zone, begin, end))
    assert found[0].begin == begin
    assert found[-1].end == end
    for one, following in pairwise(found):
        assert one.end == following.begin
        change = following.offset - one.offset
        assert following.shown == one.end + one.offset or change == 0
        assert min(change, 0) == min(0, one.again - (one.end + one.offset))


def test_what_a_gap_and_a_repeated_hour_look_like() -> None:
    after_gap = stretch_at("Europe/Berlin", seconds("2026-03-29T03:00:00+02:00"))
    assert datetime.fromtimestamp(after_gap.shown, UTC).hour == 2
    assert datetime.fromtimestamp(after_gap.begin + after_gap.offset, UTC).hour == 3
    repeated = stretch_at("Europe/Berlin", seconds("2026-10-25T02:00:00+01:00"))
    assert datetime.fromtimestamp(repeated.shown, UTC).hour == 3
    assert datetime.fromtimestamp(repeated.begin + repeated.offset, UTC).hour == 2


def test_a_change_at_the_turn_of_a_year_is_seen_from_both() -> None:
    # Portugal went from UTC+1 to UTC at the end of September, Apia left out the 30 December 2011.
    stretch = stretch_at("Pacific/Apia", seconds("2011-12-31T00:00:00+14:00"))
    assert stretch.begin + stretch.offset - stretch.shown == 86_400
    following = stretch_at("Pacific/Apia", seconds("2012-01-02T00:00:00+14:00"))
    assert following.shown == following.begin + following.offset
