"""The slots of cron schedules, held against cronsim; and the five differences that cron.py lists."""

from __future__ import annotations

import sys
from datetime import UTC, datetime, timedelta
from itertools import islice
from zoneinfo import ZoneInfo

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ZONES, examples, moments, oracle_expressions, zones

from app.errors import InvalidSchedule
from app.models import Definition, GapPolicy, RepeatPolicy
from app.schedule import Schedule, schedule_of
from app.schedule.zones import load_zone, stretches

COUNT = 6


def schedule(expression: str, zone: str, gap: GapPolicy = "", repeat: RepeatPolicy = "") -> Schedule:
    definition = Definition(
        cron=expression, timezone=zone, dst_gap=gap, dst_repeat=repeat, url="http://target/", method="GET"
    )
    return schedule_of(definition, "ws", "t", 0)


def slots_of(expression: str, zone: str, start: datetime, count: int = COUNT) -> list[int]:
    """The slots after a moment, in s since the epoch."""
    slots = schedule(expression, zone).slots(int(start.timestamp()) * 1000, count)
    return [slot // 1000 for slot in slots]


def elapsed(expression: str, zone: str, start: datetime) -> list[int]:
    """The slots when nothing is made of clock changes: what cronsim does with any six fields."""
    if len(expression.split()) == 6:
        slots = schedule(expression, zone, "skip", "both").slots(int(start.timestamp()) * 1000, COUNT)
        return [slot // 1000 for slot in slots]
    return slots_of(expression, zone, start)


class Bounded(CronSim):
    """cronsim can step for ever at a clock change off the full hour (difference 2)."""

    ticks = 0

    def tick(self, seconds: int = 1) -> None:
        self.ticks += 1
        if self.ticks > 100_000:
            raise TimeoutError
        super().tick(seconds)


def cronsim(expression: str, zone: str, start: datetime, count: int = COUNT) -> list[int]:
    found = islice(Bounded(expression, start.astimezone(ZoneInfo(zone))), count)
    return [int(slot.timestamp()) for slot in found]


def is_regular(zone: str, begin: int, end: int) -> bool:
    """Whether cronsim's hourly steps can pass the clock changes from a day before to a day after the times.

    They can't (difference 2) when a change is not on the full hour, nor when one leaves out a midnight.
    """
    for stretch in stretches(zone, begin - 86_400, end + 86_400):
        local = stretch.begin + stretch.offset
        if stretch.shown == local:
            continue  # no change, only a new year
        low, high = sorted((stretch.shown, local))
        if low % 3600 or high % 3600 or -(-low // 86_400) * 86_400 <= high:
            return False
    return True


def second_by_second(expression: str, zone: str, begin: int, end: int) -> list[int]:
    """The times in [begin, end), whole minutes, that match by cronsim's reading of the fields."""
    fields = CronSim(expression, datetime(2026, 1, 1))
    tz = load_zone(zone)
    found = []
    for minute in range(begin, end, 60):
        local = datetime.fromtimestamp(minute, tz)
        assert local.second == 0  # so in these zones and years
        if (
            local.minute in fields.minutes
            and local.hour in fields.hours
            and local.month in fields.months
            and fields.match_day(local.date())
        ):
            found += [minute + second for second in sorted(fields.seconds)]
    return found


@examples(400)
@given(oracle_expressions, zones, moments)
def test_slots_agree_with_cronsim_clock_changes_included(expression: str, zone: str, start: datetime) -> None:
    try:
        wanted = cronsim(expression, zone, start)
    except CronSimError:
        wanted = []
    except TimeoutError:
        assert zone in ("Pacific/Chatham", "America/St_Johns", "Australia/Lord_Howe")
        return
    if not wanted:  # the oracle refuses it, or finds no date that matches
        with pytest.raises(InvalidSchedule):
            elapsed(expression, zone, start)
        return
    if elapsed(expression, zone, start) != wanted:
        is_fixed = len(expression.split()) == 5 and not any(f[0] == "*" for f in expression.split()[:2])
        local = start.astimezone(ZoneInfo(zone))
        if is_fixed:  # difference 4
            assert local.utcoffset() != local.replace(fold=1 - local.fold).utcoffset()
        else:  # difference 2, which the next test holds against another reading
            assert not is_regular(zone, int(start.timestamp()), max(wanted))


@examples(300)
@given(oracle_expressions, st.sampled_from(ZONES), st.integers(1971, 2089), st.randoms())
def test_around_each_clock_change_slots_are_what_the_fields_say(
    expression: str, zone: str, year: int, random: object
) -> None:
    begin, end = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (year, year + 1))
    changes = [s.begin for s in stretches(zone, begin, end) if s.shown != s.begin + s.offset]
    assume(changes)
    change = random.choice(changes)  # type: ignore[attr-defined]
    low, high = change - 3 * 3600, change + 5 * 3600
    try:
        wanted = second_by_second(expression, zone, low, high)
    except CronSimError:
        return
    try:
        slots = schedule(expression, zone, "skip", "both").slots(low * 1000 - 1, 0, high * 1000 - 1)
    except InvalidSchedule:
        assert wanted == []
        return
    assert [slot // 1000 for slot in slots] == wanted


@pytest.mark.parametrize("zone", ZONES)
def test_a_fixed_time_around_every_clock_change_of_a_zone(zone: str) -> None:
    for year in range(1971, 2090, 3):
        begin, end = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (year, year + 1))
        for stretch in stretches(zone, begin, end):
            local = datetime.fromtimestamp(stretch.begin + stretch.offset, UTC)
            if stretch.shown == stretch.begin + stretch.offset or local.second:
                continue
            near = local + timedelta(minutes=-20)
            expression = f"{near.minute},{local.minute},{(local.minute + 10) % 60} 0-23/1 * * *"
            start = datetime.fromtimestamp(stretch.begin - 30 * 3600, UTC)
            assert slots_of(expression, zone, start, 150) == cronsim(expression, zone, start, 150), start


def test_difference_1_six_fields_with_a_fixed_time_follow_debians_rule_too() -> None:
    start = datetime.fromisoformat("2026-03-28T12:00:00+01:00")
    six, five = "0 30 2 * * *", "30 2 * * *"
    assert slots_of(six, "Europe/Berlin", start) == cronsim(five, "Europe/Berlin", start)
    assert slots_of(six, "Europe/Berlin", start) != cronsim(six, "Europe/Berlin", start)
    assert elapsed(six, "Europe/Berlin", start) == cronsim(six, "Europe/Berlin", start)


def test_difference_2_changes_off_the_hour_or_at_midnight_leave_no_time_out() -> None:
    for expression, zone, at in [
        ("* 3 * * *", "Pacific/Chatham", "2026-09-26T12:00:00+00:00"),  # 02:45 becomes 03:45
        ("* 0,2 24 * *", "Africa/Cairo", "2026-04-23T12:00:00+00:00"),  # no midnight on the 24th
        ("* 6 * * *", "Australia/Lord_Howe", "2027-04-03T12:00:00+00:00"),  # half an hour back
    ]:
        start = datetime.fromisoformat(at)
        begin = int(start.timestamp()) + 60
        by_fields = second_by_second(expression, zone, begin, begin + 40 * 3600)
        found = slots_of(expression, zone, start, len(by_fields))
        assert found == by_fields
        assert cronsim(expression, zone, start, len(by_fields)) != by_fields, zone


def test_difference_3_a_range_of_one_value_with_a_step_is_that_value() -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    assert slots_of("5-5/20 * * * *", "UTC", start) == cronsim("5 * * * *", "UTC", start)
    assert cronsim("5-5/20 * * * *", "UTC", start) == cronsim("5/20 * * * *", "UTC", start)


def test_difference_4_within_a_repeated_hour_no_slot_lies_before_the_moment() -> None:
    start = datetime.fromisoformat("2026-10-25T02:10:00+01:00")  # the second time
    (slot,) = slots_of("30 2 * * *", "Europe/Berlin", start, 1)
    assert slot == int(datetime.fromisoformat("2026-10-26T02:30:00+01:00").timestamp())
    assert cronsim("30 2 * * *", "Europe/Berlin", start, 1)[0] < start.timestamp()


@pytest.mark.parametrize(
    ("ours", "same"),
    [
        ("0 0 ? * MON", "0 0 * * MON"),
        ("0 0 * * FRIL", "0 0 * * 5L"),
        ("0 22-2 * * *", "0 22,23,0,1,2 * * *"),
        ("0 0 * * FRI-MON", "0 0 * * FRI,SAT,SUN,MON"),
        ("0 0 * NOV-FEB *", "0 0 * NOV,DEC,JAN,FEB *"),
        ("@weekly", "0 0 * * SUN"),
        ("0 0 14W 6 *", "0 0 15 6 *"),  # in 2026 the 14th is a Sunday
    ],
)
def test_difference_5_items_that_cronsim_does_not_know(ours: str, same: str) -> None:
    start = datetime(2026, 5, 1, tzinfo=UTC)
    with pytest.raises(CronSimError):
        CronSim(ours, start)
    assert slots_of(ours, "UTC", start, 1) == cronsim(same, "UTC", start, 1)


def test_only_the_listed_differences() -> None:
    text = sys.modules["app.schedule.cron"].__doc__ or ""
    assert sum(f"\n{number}. *" in text for number in range(1, 10)) == 5
