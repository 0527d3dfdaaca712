"""Schedules: their slots, what clock changes do to them, and what is counted rather than stepped over."""

from __future__ import annotations

import itertools
import random
import statistics
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import ZONES, examples, expressions, moments, zones

from app.clock import DAY_MS, day_of
from app.errors import InvalidSchedule
from app.models import Definition
from app.schedule import Difference, Schedule, compare, schedule_of
from app.schedule.cron import parse
from app.schedule.zones import load_zone, stretches

BERLIN = "Europe/Berlin"
HOUR_MS = 3_600_000


def ms(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp() * 1000)


def schedule(trigger: str = "t", anchor: int = 0, **fields: Any) -> Schedule:
    return schedule_of(Definition(url="http://target/", method="GET", **fields), "workspace", trigger, anchor)


def following(after: str, count: int, **fields: Any) -> list[str]:
    """The next slots as local times."""
    zone = load_zone(fields.get("timezone", "UTC"))
    slots = schedule(**fields).slots(ms(after), count)
    return [datetime.fromtimestamp(slot / 1000, zone).isoformat() for slot in slots]


def span(cron: str, begin: str, end: str, **fields: Any) -> list[str]:
    """All slots in [begin, end] in Berlin, as wall-clock times with the offset's hours."""
    slots = schedule(cron=cron, timezone=BERLIN, **fields).slots(ms(begin) - 1, 0, ms(end))
    local = [datetime.fromtimestamp(slot / 1000, load_zone(BERLIN)) for slot in slots]
    return [f"{moment:%H:%M}+{moment.utcoffset() // timedelta(hours=1)}" for moment in local]  # type: ignore[operator]


@st.composite
def schedules(draw: st.DrawFn, near: datetime) -> Schedule:
    """Any schedule, with bounds of which a window from ``near`` on may see something."""
    kind = draw(st.sampled_from(["cron", "cron", "cron", "interval", "at"]))
    start = int(near.timestamp()) * 1000
    fields: dict[str, Any] = {}
    if kind == "cron":
        fields["cron"] = draw(expressions)
        fields["timezone"] = draw(zones)
        fields["dst_gap"] = draw(st.sampled_from(["", "after", "skip"]))
        fields["dst_repeat"] = draw(st.sampled_from(["", "first", "second", "both"]))
    elif kind == "interval":
        fields["interval"] = draw(st.one_of(st.integers(1, 60), st.sampled_from([300, 900, 3600, 86_400])))
    else:
        fields["at"] = start + draw(st.integers(-10, DAY_MS))
    within = st.one_of(st.just(0), st.integers(-HOUR_MS, DAY_MS).map(lambda later: start + later))
    whole = within.map(lambda moment: moment // 1000 * 1000)
    fields["starts_at"], fields["ends_at"] = draw(st.one_of(within, whole)), draw(within)
    try:
        return schedule(
            anchor=start - draw(st.integers(0, 10_000)) * draw(st.sampled_from([1, 1000])), **fields
        )
    except InvalidSchedule:
        assume(False)
        raise


windows = moments.flatmap(
    lambda near: st.tuples(
        schedules(near),
        schedules(near),
        st.just(int(near.timestamp()) * 1000),
        st.one_of(
            st.integers(0, 3 * HOUR_MS), st.integers(0, 2 * DAY_MS), st.sampled_from([HOUR_MS, DAY_MS])
        ),
    )
)


# Slots


def test_presets_stand_for_expressions() -> None:
    assert following("2026-01-01T00:30:00+00:00", 1, cron="@hourly") == ["2026-01-01T01:00:00+00:00"]


def test_slots_reach_to_the_horizon_and_no_further_than_asked() -> None:
    start = ms("2026-01-01T00:00:00+00:00")
    every_second = schedule(cron="* * * * * *")
    assert len(every_second.slots(start, 3, start + 60_000)) == 60
    assert len(every_second.slots(start, 3, start + 60_000, 10)) == 10
    assert len(every_second.slots(start, 3)) == 3


def test_slots_lie_within_starts_at_and_ends_at_both_inclusive() -> None:
    first, last = ms("2026-01-01T10:00:00+00:00"), ms("2026-01-01T12:00:00+00:00")
    bounded = schedule(cron="0 * * * *", starts_at=first, ends_at=last)
    wanted = [first, first + HOUR_MS, last]
    assert bounded.slots(0, 9) == wanted
    assert bounded.slots(last, 9) == []
    assert bounded.count(0, last + DAY_MS) == 3
    assert bounded.previous(last + DAY_MS) == last
    assert bounded.previous(first) is None
    assert bounded.latest(9, last + DAY_MS, 0) == wanted
    assert [bounded.has(slot) for slot in (first - HOUR_MS, first, last, last + HOUR_MS)] == [
        False,
        True,
        True,
        False,
    ]


def test_a_one_off_has_one_slot_to_the_millisecond() -> None:
    once = schedule(at=1_234_567)
    assert once.slots(0, 5) == [1_234_567]
    assert once.slots(1_234_567, 5) == []
    assert once.count(0, DAY_MS) == 1
    assert once.previous(1_234_567) is None
    assert once.previous(1_234_568) == 1_234_567
    assert schedule(at=1_234_567, ends_at=1_000_000).slots(0, 5) == []


def test_an_interval_counts_from_its_trigger_s_creation() -> None:
    assert schedule(interval=60, anchor=1_234).slots(0, 3) == [61_234, 121_234, 181_234]
    assert schedule(interval=60, anchor=1_234).slots(100_000, 1) == [121_234]
    assert schedule(interval=60, anchor=1_234).previous(61_234) is None


def test_an_interval_counts_from_starts_at_where_there_is_one_and_that_is_a_slot() -> None:
    assert schedule(interval=60, anchor=1_234, starts_at=500_000).slots(0, 2) == [500_000, 560_000]


@examples(100)
@given(st.integers(1, 10**6), st.integers(0, 10**13), st.integers(0, 10**13))
def test_an_interval_keeps_its_phase_from_wherever_it_is_looked_at(
    step: int, anchor: int, after: int
) -> None:
    slots = schedule(interval=step, anchor=anchor).slots(after, 4)
    assert all(slot > max(after, anchor) and (slot - anchor) % (step * 1000) == 0 for slot in slots)
    assert slots[0] <= max(after, anchor) + step * 1000
    assert [b - a for a, b in itertools.pairwise(slots)] == [step * 1000] * 3


def test_an_interval_follows_elapsed_time_whatever_clocks_do() -> None:
    start = ms("2026-03-29T00:00:00+01:00")
    slots = schedule(interval=3600, anchor=start, timezone=BERLIN, dst_gap="skip").slots(start, 30)
    assert slots == [start + HOUR_MS * n for n in range(1, 31)]


def test_slots_before_1970_and_in_the_far_future() -> None:
    yearly = schedule(cron="0 0 1 1 *", timezone=BERLIN)
    assert yearly.previous(0) == ms("1970-01-01T00:00:00+01:00")
    assert yearly.previous(ms("1970-01-01T00:00:00+01:00")) == ms("1969-01-01T00:00:00+01:00")
    assert len(yearly.slots(ms("9990-01-01T00:00:00+00:00"), 100)) < 10  # the calendar ends
    assert schedule(cron="0 0 29 2 MON#5", timezone=BERLIN).count(0, ms("2070-01-01T00:00:00+00:00")) > 0


# Clock changes

GAP = ("2026-03-29T00:00:00+01:00", "2026-03-29T05:00:00+02:00")
REPEAT = ("2026-10-25T01:00:00+02:00", "2026-10-25T04:00:00+01:00")


def test_a_fixed_time_in_the_gap_fires_right_after_it() -> None:
    assert span("30 2 * * *", *GAP) == ["03:00+2"]


def test_several_times_in_one_gap_are_one_slot_also_with_one_at_its_end() -> None:
    assert span("0,20,40 2 * * *", *GAP) == ["03:00+2"]
    assert span("0,20,40 2,3 * * *", *GAP) == ["03:00+2", "03:20+2", "03:40+2"]


def test_a_fixed_time_in_the_repeated_hour_fires_once() -> None:
    assert span("30 2 * * *", *REPEAT) == ["02:30+2"]


def test_a_wildcard_follows_elapsed_time() -> None:
    assert span("*/30 2-3 * * *", *GAP) == ["03:00+2", "03:30+2"]
    assert span("*/30 2 * * *", *REPEAT) == ["02:00+2", "02:30+2", "02:00+1", "02:30+1"]


@pytest.mark.parametrize("cron", ["0,30 2 * * *", "*/30 2 * * *"])
@pytest.mark.parametrize(
    ("repeat", "wanted"),
    [
        ("first", ["02:00+2", "02:30+2"]),
        ("second", ["02:00+1", "02:30+1"]),
        ("both", ["02:00+2", "02:30+2", "02:00+1", "02:30+1"]),
    ],
)
def test_a_trigger_chooses_the_passes_of_a_repeated_hour(cron: str, repeat: str, wanted: list[str]) -> None:
    assert span(cron, *REPEAT, dst_repeat=repeat) == wanted


@pytest.mark.parametrize("cron", ["0,30 2 * * *", "*/30 2 * * *"])
@pytest.mark.parametrize(("gap", "wanted"), [("skip", []), ("after", ["03:00+2"])])
def test_a_trigger_chooses_what_a_gap_does(cron: str, gap: str, wanted: list[str]) -> None:
    assert span(cron, *GAP, dst_gap=gap) == wanted


def test_where_only_one_is_chosen_the_other_stays_as_it_is() -> None:
    assert span("30 2 * * *", *REPEAT, dst_gap="skip") == ["02:30+2"]
    assert span("*/30 2 * * *", *REPEAT, dst_gap="after") == ["02:00+2", "02:30+2", "02:00+1", "02:30+1"]
    assert span("30 2 * * *", *GAP, dst_repeat="both") == ["03:00+2"]
    assert span("*/30 2 * * *", *GAP, dst_repeat="first") == []


def test_the_second_pass_is_not_passed_over_on_the_way_to_a_rare_date() -> None:
    yearly = schedule(cron="*/30 2 25 10 *", timezone=BERLIN)
    begin, end = ms(REPEAT[0]) - 1, ms(REPEAT[1])
    passes = yearly.slots(begin, 0, end)
    assert len(passes) == 4
    assert yearly.latest(4, end + 300 * DAY_MS, begin - 300 * DAY_MS) == passes
    assert yearly.slots(begin - 300 * DAY_MS, 4) == passes


@examples(150)
@given(
    expressions.filter(lambda expression: len(expression.split()) == 5),
    st.sampled_from(ZONES[1:]),
    st.integers(1972, 2089),
    st.sampled_from(["after", "skip"]),
    st.sampled_from(["first", "second", "both"]),
    st.integers(0, 9),
)
def test_policies_mean_what_each_local_time_says(
    expression: str, zone: str, year: int, gap: str, repeat: str, which: int
) -> None:
    """The reference asks ``zoneinfo`` about every local minute around a clock change (PEP 495)."""
    tz = load_zone(zone)
    begin, end = (int(datetime(y, 1, 1, tzinfo=UTC).timestamp()) for y in (year, year + 1))
    changes = [s.begin for s in stretches(zone, begin, end) if s.shown != s.begin + s.offset]
    assume(changes)
    change = changes[which % len(changes)]
    low, high = change - 2 * 3600, change + 3 * 3600
    try:
        subject = schedule(cron=expression, timezone=zone, dst_gap=gap, dst_repeat=repeat)
    except InvalidSchedule:
        return
    cron = parse(expression)
    wanted = set()
    for minute in range(low - 26 * 3600, high + 26 * 3600, 60):
        if not cron.has(minute):
            continue
        naive = datetime.fromtimestamp(minute, UTC).replace(tzinfo=None)
        first, second = (int(naive.replace(tzinfo=tz, fold=fold).timestamp()) for fold in (0, 1))
        if datetime.fromtimestamp(first, tz).replace(tzinfo=None) != naive:
            wanted |= {change} if gap == "after" else set()
        else:
            wanted |= {"first": {first}, "second": {second}, "both": {first, second}}[repeat]
    found = subject.slots(low * 1000 - 1, 0, high * 1000)
    assert found == sorted(slot * 1000 for slot in wanted if low <= slot <= high)


# Counting


@examples(250)
@given(windows)
def test_what_is_counted_is_what_stepping_finds(
    window: tuple[Schedule, Schedule, int, int],
) -> None:
    subject, _, after, length = window
    until = after + length
    slots = subject.slots(after, 0, until)
    assert subject.count(after, until) == len(slots)
    assert subject.count_by_day(after, until) == Counter(map(day_of, slots))
    assert subject.latest(len(slots) + 1, until, after) == slots
    assert subject.latest(3, until, after) == slots[-3:]
    assert all(map(subject.has, slots[:50]))
    if slots:
        assert subject.previous(until + 1) == slots[-1]
        middle = len(slots) // 2
        assert subject.previous(slots[middle]) == (
            slots[middle - 1] if middle else subject.previous(after + 1)
        )
        earlier = subject.previous(slots[0])
        assert earlier is None or (earlier <= after and subject.has(earlier))


@examples(250)
@given(windows)
def test_a_comparison_finds_what_stepping_finds(window: tuple[Schedule, Schedule, int, int]) -> None:
    old, new, after, length = window
    until = after + length
    olds, news = (set(subject.slots(after, 0, until)) for subject in (old, new))
    added, lost = sorted(news - olds), sorted(olds - news)
    assert compare(old, new, after, until) == Difference(len(added), len(lost), added[:5], lost[:5])
    shared = old.count_shared(new, after, until)
    assert shared == new.count_shared(old, after, until) == len(olds & news)


@examples(60)
@given(expressions, expressions, moments, st.sampled_from(ZONES), st.sampled_from(ZONES))
def test_a_comparison_of_dense_schedules_in_two_zones(
    one: str, other: str, start: datetime, zone: str, other_zone: str
) -> None:
    after = int(start.timestamp()) * 1000
    until = after + DAY_MS + 12_345
    try:
        old = schedule(cron=" ".join(["*/10", *one.split()[-5:-3], "* * *"]), timezone=zone)
        new = schedule(cron=" ".join(["*/4", *other.split()[-5:-3], "* * *"]), timezone=other_zone)
    except InvalidSchedule:
        return
    olds, news = (set(subject.slots(after, 0, until)) for subject in (old, new))
    difference = compare(old, new, after, until)
    assert (difference.added, difference.lost) == (len(news - olds), len(olds - news))


def test_a_comparison_with_nothing_takes_all() -> None:
    hourly = schedule(cron="0 * * * *")
    first = [HOUR_MS * n for n in range(1, 6)]
    assert compare(None, hourly, 0, DAY_MS) == Difference(24, 0, first, [])
    assert compare(hourly, None, 0, DAY_MS, first=2) == Difference(0, 24, [], first[:2])
    assert compare(None, None, 0, DAY_MS) == Difference(0, 0, [], [])


def test_the_first_differences_are_found_behind_a_long_run_of_equal_slots() -> None:
    every, but_one = schedule(cron="* * * * * *"), schedule(cron="* 0-58 * * * *")
    assert compare(every, but_one, 0, DAY_MS, first=2) == Difference(0, 1440, [], [3_540_000, 3_541_000])
    until_noon = schedule(cron="* * * * * *", ends_at=DAY_MS // 2)
    difference = compare(until_noon, every, 0, 300 * DAY_MS, first=1)
    assert difference == Difference(300 * 86_400 - 43_200, 0, [DAY_MS // 2 + 1000], [])


@pytest.mark.parametrize("zone", ["UTC", BERLIN, "Africa/Casablanca"])
def test_years_are_counted_too(zone: str) -> None:
    begin, end = ms("1999-05-05T05:05:05+00:00"), ms("2031-08-08T08:08:08+00:00")
    for cron in ("30 2 * * *", "0 0 29 2 *", "*/30 1-3 */7 * MON", "0 12 LW * FRIL"):
        subject = schedule(cron=cron, timezone=zone)
        assert subject.count(begin, end) == len(subject.slots(begin, 0, end))


# Keys


def test_equal_schedules_are_one_and_have_equal_keys_whatever_the_trigger() -> None:
    assert schedule("a", cron="*/5 * * * *") is schedule("b", cron="*/5 * * * *")
    assert schedule("a", cron="0-59/5 * * * *").key != schedule("a", cron="1-59/5 * * * *").key
    same = [
        schedule("a", cron="@daily").key,
        schedule("b", cron="0 0 * * *", dst_gap="after").key,  # in UTC there is no gap
        schedule("c", cron="0 0 0 * * SUN-SAT").key,
    ]
    assert len(set(same)) == 1
    berlin = [schedule(cron="0 2 * * *", timezone=BERLIN, dst_gap=gap).key for gap in ("", "after", "skip")]
    assert berlin[0] == berlin[1] != berlin[2]


def test_keys_of_intervals_tell_phases_apart_and_starts() -> None:
    assert schedule(interval=60, anchor=5).key == schedule("b", interval=60, anchor=5).key
    assert schedule(interval=60, anchor=5).key != schedule(interval=60, anchor=6).key
    assert schedule(at=5).key != schedule(at=6).key
    assert schedule(at=5).key != schedule(interval=60, anchor=5).key


def test_a_hash_is_resolved_for_each_trigger() -> None:
    slots = {schedule(f"t{n}", cron="H H * * *").slots(0, 1)[0] for n in range(50)}
    assert len(slots) > 40
    assert schedule("a", cron="H * * * *").slots(0, 3) == schedule("a", cron="H * * * *").slots(0, 3)


# Speed. Bounds are generous: what they are to find is a wrong kind of growth.


def different(seed: int, count: int) -> list[str]:
    """Expressions that no one has seen before."""
    draw = random.Random(seed)

    def some(low: int, high: int) -> str:
        return ",".join(str(value) for value in sorted(draw.sample(range(low, high + 1), 2)))

    made = {f"{some(0, 59)} {some(0, 23)} {some(1, 28)} * {some(0, 6)}" for _ in range(count + count // 10)}
    return sorted(made)[:count]


@pytest.mark.parametrize("zone", ["UTC", BERLIN])
def test_ten_thousand_different_changes_are_compared_in_less_than_a_second(zone: str) -> None:
    after = ms("2026-03-28T12:00:00+00:00")
    times = []
    for run in range(3):
        olds, news = different(2 * run, 10_000), different(2 * run + 1, 10_000)
        stored = [schedule(cron=cron, timezone=zone) for cron in olds]
        began = time.process_time()
        for old, cron in zip(stored, news, strict=True):
            compare(old, schedule(cron=cron, timezone=zone), after, after + DAY_MS)
        times.append(time.process_time() - began)
    assert statistics.median(times) < 2.5  # measured: 0.5


def test_counting_takes_as_long_for_dense_schedules_as_for_rare_ones() -> None:
    after = ms("2026-03-28T12:00:00+00:00")
    subject = schedule(cron="* * * * * *", timezone=BERLIN)
    subject.count(after, after + 3650 * DAY_MS)
    began = time.process_time()
    for _ in range(1000):
        subject.count(after, after + DAY_MS)
    assert time.process_time() - began < 0.2  # measured: 0.01
    began = time.process_time()
    assert subject.count(after, after + 3650 * DAY_MS) == 3650 * 86_400
    assert time.process_time() - began < 0.02  # measured: 0.0001
