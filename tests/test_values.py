"""Values that can be written in several ways: intervals, moments, lists of statuses."""

from __future__ import annotations

from typing import Any
from zoneinfo import ZoneInfo

import pytest
from declared import body, fault_of, faults_of, kinds, statuses, stored
from hypothesis import assume, given
from hypothesis import strategies as st

from app.clock import parse_interval, parse_moment, rfc3339
from app.declared.inputs import shown
from app.declared.outcomes import canonical, kinds_of, statuses_of

BERLIN = ZoneInfo("Europe/Berlin")


# Intervals and moments.


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (1, 1),
        (31_622_400, 31_622_400),
        ("300", 300),
        ("5m", 300),
        ("1h30m", 5400),
        ("2d", 172_800),
        ("1d1h1m1s", 90_061),
        ("90s", 90),
        ("366d", 31_622_400),
        ("0d5m", 300),
    ],
)
def test_an_interval_is_a_number_digits_or_units(text: int | str, seconds: int) -> None:
    assert parse_interval(text) == seconds
    assert stored(cron=None, interval=text).interval == seconds


@pytest.mark.parametrize(
    "text",
    [
        *(0, -5, 31_622_401, True, 1.5, [], {}),
        *("0", "367d", "", "m", "1.5h", "5 m", "30m1h", "5m5m", "5M", "1w", "-5m", "5m\n", "\u0665m", "5m30"),
        "9" * 5000,
    ],
)
def test_any_other_interval_is_refused(text: Any) -> None:
    path, _ = fault_of(body(cron=None, interval=text))
    assert path == "interval"


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2026-03-29T02:30:00Z", "2026-03-29T02:30:00.000Z"),
        ("2026-03-29t02:30:00.1234567z", "2026-03-29T02:30:00.123Z"),
        ("2026-03-29 02:30:00+05:30", "2026-03-28T21:00:00.000Z"),
        ("2026-01-15T12:00:00", "2026-01-15T11:00:00.000Z"),
        ("2026-03-29T02:00:00", "2026-03-29T01:00:00.000Z"),  # in the gap: right after it
        ("2026-03-29T02:59:59.999", "2026-03-29T01:00:00.000Z"),
        ("2026-03-29T03:00:00", "2026-03-29T01:00:00.000Z"),
        ("2026-10-25T02:30:00", "2026-10-25T00:30:00.000Z"),  # shown twice: the first
        ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_a_moment_is_rfc_3339_or_local_time(text: str, moment: str) -> None:
    assert rfc3339(parse_moment(text, BERLIN)) == moment
    definition = stored(cron=None, at=text, timezone="Europe/Berlin")
    assert shown(definition).at == moment


@pytest.mark.parametrize(
    ("zone", "text", "moment"),
    [
        ("Australia/Lord_Howe", "2026-10-04T02:15:00", "2026-10-03T15:30:00.000Z"),  # half an hour
        ("Pacific/Apia", "2011-12-30T12:00:00", "2011-12-30T10:00:00.000Z"),  # a whole day
    ],
)
def test_odd_gaps_end_where_they_end(zone: str, text: str, moment: str) -> None:
    assert rfc3339(parse_moment(text, ZoneInfo(zone))) == moment


@given(st.datetimes(), st.sampled_from(["Europe/Berlin", "America/St_Johns", "Pacific/Apia", "UTC"]))
def test_a_local_time_that_the_clock_shows_is_shown_at_that_moment(naive: Any, zone: str) -> None:
    naive = naive.replace(microsecond=0, year=max(1971, min(naive.year, 9000)) if naive.day < 29 else 2024)
    local = naive.replace(tzinfo=ZoneInfo(zone))
    assume(local.astimezone(ZoneInfo("UTC")).astimezone(ZoneInfo(zone)).replace(tzinfo=None) == naive)
    ms = parse_moment(naive.isoformat(), ZoneInfo(zone))
    assert ms == local.timestamp() * 1000


@pytest.mark.parametrize(
    "text",
    [
        *("", "tomorrow", "2026-03-29", "2026-13-01T00:00:00Z", "2026-02-30T00:00:00Z"),
        *("2026-03-29T02:30:00Z\n", "20260329T023000Z", "2026-W13-7T00:00:00Z", "2026-03-29T24:30:00Z"),
        *("2026-03-29T02:30:00+25:00", "1969-12-31T23:59:59Z", "1970-01-01T00:00:00Z"),
        *("0001-01-01T00:00:00+14:00", "2026-03-29T02:30:00 Z"),
    ],
)
def test_any_other_moment_is_refused(text: str) -> None:
    for field in ("starts_at", "ends_at"):
        path, message = fault_of(body(**{field: text}))
        assert path == field
        assert repr(text) in message


@pytest.mark.parametrize(
    ("text", "zone"), [("1970-01-01T05:00:00", "Asia/Tokyo"), ("9999-12-31T23:00:00", "America/New_York")]
)
def test_a_local_time_is_held_against_the_calendar_in_its_zone(text: str, zone: str) -> None:
    assert stored(starts_at=text).starts_at > 0
    assert fault_of(body(starts_at=text, timezone=zone))[0] == "starts_at"
    both = faults_of(body(starts_at="x", timezone="Mars"))
    assert [fault.path for fault in both] == ["starts_at", "timezone"]


# Statuses and kinds.


@pytest.mark.parametrize(
    ("items", "canonical_items"),
    [
        ([503], ("503",)),
        (["503", 503, "503"], ("503",)),
        (["5xx"], ("5xx",)),
        (["500-599"], ("5xx",)),
        ([502, 500, 501], ("500-502",)),
        (["400-599"], ("4xx", "5xx")),
        (["450-510", 404], ("404", "450-499", "500-510")),
        (["500-550", "540-599"], ("5xx",)),
        (["timeout", "5xx", "dns", 429], ("429", "5xx", "dns", "timeout")),
        (["100-999"], tuple(f"{n}xx" for n in range(1, 10))),
    ],
)
def test_lists_of_statuses_have_one_form(items: list[int | str], canonical_items: tuple[str, ...]) -> None:
    assert canonical(items) == canonical_items


@given(st.lists(statuses | kinds, min_size=1, max_size=8))
def test_the_one_form_means_the_same_and_stays(items: list[int | str]) -> None:
    found = canonical(items)
    assert statuses_of(found) == statuses_of(items)
    assert kinds_of(found) == kinds_of(items)
    assert canonical(found) == found == tuple(sorted(found))


def test_what_is_usual_anyway_is_the_same_as_leaving_it_out() -> None:
    usual = [408, 425, 429, "500-599", "dns", "connect", "tls", "timeout", "protocol"]
    assert stored(retry_on=usual, success_codes=["200-299"]) == stored()
