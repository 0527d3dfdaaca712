"""Cron expressions, held against cronsim as an independent oracle."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import given, settings
from hypothesis import strategies as st

from app.errors import InvalidSchedule
from app.schedule import load_zone, parse


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def following(expression: str, after: str, count: int = 3, zone: str = "UTC") -> list[str]:
    slots = parse(expression).slots(zone, ms(after), count)
    return [datetime.fromtimestamp(slot / 1000, ZoneInfo(zone)).isoformat() for slot in slots]


def field(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high)
    return st.one_of(
        st.just("*"),
        number.map(str),
        st.integers(1, high).map(lambda step: f"*/{step}"),
        st.tuples(number, number).map(lambda ends: f"{min(ends)}-{max(ends)}"),
        st.lists(number, min_size=2, max_size=3).map(lambda many: ",".join(map(str, many))),
    )


expressions = st.tuples(
    field(0, 59),
    field(0, 23),
    st.one_of(field(1, 28), st.sampled_from(["L", "LW"])),
    field(1, 12),
    st.one_of(field(0, 6), st.sampled_from(["5L", "MON#2", "1#5", "MON-FRI"])),
).map(" ".join)

# Lord Howe shifts by half an hour, where cronsim's hourly steps leave the minutes it should match: there
# ours follow Debian's cron, and the oracle does not.
zones = st.sampled_from(
    [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "America/St_Johns",
        "Africa/Cairo",
        "Pacific/Apia",
    ]
)
moments = st.one_of(
    st.datetimes(datetime(2020, 1, 1), datetime(2035, 1, 1)),
    st.sampled_from([(3, 28), (3, 29), (3, 7), (3, 8), (10, 25), (10, 31), (11, 1), (4, 24)]).flatmap(
        lambda day: st.tuples(st.integers(2020, 2034), st.integers(0, 23)).map(
            lambda when: datetime(when[0], *day, when[1])
        )
    ),
)


@settings(max_examples=200, deadline=None)
@given(expressions, zones, moments)
def test_slots_agree_with_cronsim_clock_changes_included(
    expression: str, zone: str, moment: datetime
) -> None:
    start = moment.replace(microsecond=0, tzinfo=UTC)
    try:
        oracle = CronSim(expression, start.astimezone(ZoneInfo(zone)))
        wanted = [int(slot.timestamp()) * 1000 for slot in islice(oracle, 6)]
    except CronSimError:
        wanted = []
    if not wanted:  # the oracle refuses it, or finds no date that matches
        with pytest.raises(InvalidSchedule):
            parse(expression)
        return
    assert parse(expression).slots(zone, int(start.timestamp()) * 1000, 6) == wanted


def test_six_fields_have_the_seconds_first() -> None:
    assert following("30 0 9 * * *", "2026-01-01T00:00:00+00:00", 1) == ["2026-01-01T09:00:30+00:00"]


def test_presets_stand_for_expressions() -> None:
    assert following("@hourly", "2026-01-01T00:30:00+00:00", 1) == ["2026-01-01T01:00:00+00:00"]


def test_a_step_over_all_days_is_anded_with_the_weekday() -> None:
    found = following("0 0 */5 * 1", "2026-01-01T00:00:00+00:00", 3)
    assert [datetime.fromisoformat(slot).strftime("%a %d") for slot in found] == [
        "Mon 26",
        "Mon 16",
        "Mon 16",
    ]


def test_a_fixed_time_in_the_gap_fires_right_after_it() -> None:
    found = following("30 2 * * *", "2026-03-28T12:00:00+01:00", 2, "Europe/Berlin")
    assert found == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]


def test_several_fixed_times_in_one_gap_are_one_slot() -> None:
    found = following("0,20,40 2 * * *", "2026-03-29T00:00:00+01:00", 2, "Europe/Berlin")
    assert found == ["2026-03-29T03:00:00+02:00", "2026-03-30T02:00:00+02:00"]


def test_a_fixed_time_in_the_repeated_hour_fires_once() -> None:
    found = following("30 2 * * *", "2026-10-25T00:00:00+02:00", 2, "Europe/Berlin")
    assert found == ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]


def test_a_wildcard_follows_elapsed_time_through_the_repeated_hour() -> None:
    found = following("*/30 * * * *", "2026-10-25T02:00:00+02:00", 4, "Europe/Berlin")
    assert found == [
        "2026-10-25T02:30:00+02:00",
        "2026-10-25T02:00:00+01:00",
        "2026-10-25T02:30:00+01:00",
        "2026-10-25T03:00:00+01:00",
    ]


def test_a_half_hour_shift_moves_no_minute() -> None:
    found = following("0 6 * * *", "2027-04-03T00:00:00+00:00", 2, "Australia/Lord_Howe")
    assert [slot[11:16] for slot in found] == ["06:00", "06:00"]


def test_the_nearest_weekday_stays_within_its_month() -> None:
    found = following("0 0 1W * *", "2026-07-20T00:00:00+00:00", 2)
    assert [slot[:10] for slot in found] == ["2026-08-03", "2026-09-01"]


def test_an_equal_range_is_one_value() -> None:
    assert following("5-5 * * * *", "2026-01-01T00:00:00+00:00", 1) == ["2026-01-01T00:05:00+00:00"]


def test_slots_reach_to_the_horizon_and_no_further_than_asked() -> None:
    cron = parse("* * * * * *")
    start = ms("2026-01-01T00:00:00+00:00")
    assert len(cron.slots("UTC", start, 3, start + 60_000)) == 60
    assert len(cron.slots("UTC", start, 3, start + 60_000, 10)) == 10


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("0 0 31 2 *", "day of month '31' never comes"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("61 * * * *", "minute field '61'"),
        ("0 25 * * *", "hour field '25'"),
        ("0 0 * * 8", "day of week field '8'"),
        ("*/0 * * * *", "minute field '*/0'"),
        ("* * * *", "has 4"),
        ("", "has 0"),
        ("@fortnightly", "unknown preset"),
        ("R * * * *", "random"),
        ("H(0-9)/3 * * * *", "random or hashed"),
        ("a b c d e", "minute field 'a'"),
        ("0 0 \u0661 * *", "not ASCII"),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_field(expression: str, part: str) -> None:
    with pytest.raises(InvalidSchedule, match=part.replace("*", r"\*")):
        parse(expression)


def test_an_unknown_zone_is_refused() -> None:
    with pytest.raises(InvalidSchedule, match="IANA"):
        load_zone("Mars/Phobos")
    with pytest.raises(InvalidSchedule):
        load_zone("../../etc/passwd")
