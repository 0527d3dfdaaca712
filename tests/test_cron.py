"""Reading cron expressions: what is refused, which dates match, and what H makes of ids."""

from __future__ import annotations

import time
from calendar import monthrange
from collections import Counter
from datetime import UTC, date, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from strategies import examples

from app.errors import InvalidSchedule
from app.schedule.cron import parse
from app.schedule.fields import read


def dates_of(expression: str, after: str, count: int) -> list[str]:
    """The next matching dates from a day on."""
    dates = parse(expression).dates
    epoch = date(1970, 1, 1).toordinal()
    found, day = [], date.fromisoformat(after).toordinal() - epoch
    for _ in range(count):
        following = dates.next(day)
        assert following is not None
        found.append(f"{date.fromordinal(following + epoch):%Y-%m-%d}")
        day = following + 1
    return found


def first_time(expression: str) -> str:
    """The first match in 2026."""
    local = next(parse(expression).walk(int(datetime(2026, 1, 1, tzinfo=UTC).timestamp())))
    return f"{datetime.fromtimestamp(local, UTC):%Y-%m-%d %H:%M:%S}"


@pytest.mark.parametrize(
    ("expression", "part"),
    [
        ("0 0 31 2 *", "day of month '31' never comes"),
        ("0 0 30 2 *", "never comes"),
        ("0 0 31 4,6,9,11 *", "never comes"),
        ("0 0 31W 2 ?", "never comes"),
        ("0 0 H(30-31) 2 *", "never comes"),
        ("0 0 31 H *", "never comes"),
        ("61 * * * *", "minute field '61'"),
        ("0 25 * * *", "hour field '25'"),
        ("0 0 * * 8", "day of week field '8'"),
        ("0 0 * * 8L", "day of week field '8L'"),
        ("0 0 * * MON#6", "day of week field 'MON#6'"),
        ("0 0 * * L", "day of week field 'L'"),
        ("0 0 32W * *", "day of month field '32W'"),
        ("0 0 0 * *", "day of month field '0'"),
        ("0 0 * 13 *", "month field '13'"),
        ("0 0 * FOO *", "month field 'FOO'"),
        ("*/0 * * * *", "minute field '*/0'"),
        ("5-5/0 * * * *", "minute field '5-5/0'"),
        ("5, * * * *", "minute field '5,'"),
        ("? * * * *", "minute field '?'"),
        ("L * * * *", "minute field 'L'"),
        ("-5 * * * *", "minute field '-5'"),
        ("* * * *", "has 4"),
        ("* * * * * * *", "has 7"),
        ("", "has 0"),
        ("@fortnightly", "unknown preset"),
        ("a b c d e", "minute field 'a'"),
        ("0 0 \u0661 * *", "not ASCII"),
        ("H(50-70) * * * *", r"minute field 'H\(50-70\)'"),
        ("H(9-3) * * * *", "minute field"),
        ("H/0 * * * *", "minute field 'H/0'"),
        ("H5 * * * *", "minute field 'H5'"),
        ("H-5 * * * *", "minute field 'H-5'"),
    ],
)
def test_what_can_not_be_used_is_refused_with_the_field(expression: str, part: str) -> None:
    for _ in range(2):  # the second answer comes from the cache
        with pytest.raises(InvalidSchedule, match=part.replace("*", r"\*").replace("?", r"\?")):
            parse(expression)


@pytest.mark.parametrize("field", ["R", "r", "R/15", "R(0-9)", "5,R"])
def test_random_fields_are_refused_with_what_to_use_instead(field: str) -> None:
    with pytest.raises(InvalidSchedule, match="use H in place of R"):
        parse(f"{field} * * * *")


fields_like = st.text(alphabet="0123456789*/-,LW#?H()", min_size=1, max_size=9)
cron_like = st.one_of(
    st.text(alphabet="0123456789*/-,LW#?HR() MONFRIJAN@", max_size=24),
    st.lists(fields_like, min_size=5, max_size=6).map(" ".join),
    st.text(max_size=40),
    st.text(max_size=2).map(lambda text: text * 5000),
)


@examples(300)
@given(cron_like)
@example("*/0 * * * *")
@example("0-99999999999999999999 * * * *")
@example("1," * 50_000 + "1 * * * *")
@example("@" * 10_000)
@example("\ud800 * * * *")
def test_whatever_is_written_is_read_or_refused_in_bounded_time(text: str) -> None:
    begun = time.process_time()
    try:
        cron = parse(text)
    except InvalidSchedule:
        pass
    else:
        assert next(cron.of("ws", "t").walk(0)) >= 0
    assert time.process_time() - begun < 1


def test_six_fields_have_the_seconds_first() -> None:
    assert first_time("30 0 9 * * *") == "2026-01-01 09:00:30"


def test_case_and_space_do_not_matter() -> None:
    assert parse("  0  0 * jan  Mon-fri ").key == parse("0 0 * JAN MON-FRI").key


@pytest.mark.parametrize(
    ("index", "text", "values"),
    [
        (1, "5-5", [5]),
        (1, "5-5/2", [5]),
        (1, "50/5", [50, 55]),
        (1, "*/25", [0, 25, 50]),
        (1, "3,1,2,1-3", [1, 2, 3]),
        (1, "10-40/15", [10, 25, 40]),
        (2, "22-2", [0, 1, 2, 22, 23]),
        (4, "NOV-FEB", [1, 2, 11, 12]),
        (4, "JAN/5", [1, 6, 11]),
        (5, "7", [0]),
        (5, "FRI-7", [0, 5, 6]),
        (5, "MON/3", [0, 1, 4]),
        (5, "FRI-MON", [0, 1, 5, 6]),
        (5, "0-7", [0, 1, 2, 3, 4, 5, 6]),
        (5, "SUN-SUN", [0]),
    ],
)
def test_what_a_field_means(index: int, text: str, values: list[int]) -> None:
    assert [value for value in range(60) if read(index, text).mask >> value & 1] == values


@pytest.mark.parametrize(
    ("expression", "wanted"),
    [
        ("0 0 */5 * 1", ["2026-01-26", "2026-02-16", "2026-03-16"]),  # ANDed: the field begins with a star
        ("0 0 13 * 5", ["2026-01-02", "2026-01-09", "2026-01-13"]),  # ORed
        ("0 0 ? * 1", ["2026-01-05", "2026-01-12", "2026-01-19"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31"]),
        ("0 0 L,15 * *", ["2026-01-15", "2026-01-31", "2026-02-15"]),
        ("0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 0 1W * *", ["2026-01-01", "2026-02-02", "2026-03-02"]),
        ("0 0 31W * *", ["2026-01-30", "2026-03-31", "2026-05-29"]),
        ("0 0 15W,LW * *", ["2026-01-15", "2026-01-30", "2026-02-16"]),
        ("0 0 * * MON#5", ["2026-03-30", "2026-06-29", "2026-08-31"]),
        ("0 0 * * MON#1,FRIL,3#2", ["2026-01-05", "2026-01-14", "2026-01-30"]),
        ("0 0 * * MON-TUE#1", ["2026-01-05", "2026-01-06", "2026-02-02"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29", "2036-02-29"]),
        ("0 0 29 FEB */6", ["2032-02-29", "2048-02-29", "2060-02-29"]),  # SUN or SAT
    ],
)
def test_dates(expression: str, wanted: list[str]) -> None:
    assert dates_of(expression, "2026-01-01", 3) == wanted


@examples(200)
@given(st.integers(1, 31), st.integers(1971, 2089), st.integers(1, 12))
def test_the_nearest_weekday_is_near_and_within_its_month(day: int, year: int, month: int) -> None:
    length = monthrange(year, month)[1]
    dates = parse(f"0 0 {day}W * *").dates
    first = (date(year, month, 1) - date(1970, 1, 1)).days
    found = [n + 1 for n in range(length) if dates.has(first + n)]
    if day > length:
        assert found == []
        return
    weekdays = [n for n in range(1, length + 1) if date(year, month, n).weekday() < 5]
    nearest = min(
        weekdays, key=lambda n: (abs(n - day), (n > day) == (date(year, month, day).weekday() == 5))
    )
    assert found == [nearest]


@examples(100)
@given(
    st.sampled_from(["* * *", "13 * 5", "*/2 2 *", "29 2 *", "LW 3,6 1#2", "1 1 *"]),
    st.integers(-9999, 50_000),
)
def test_dates_are_counted_and_found_as_one_by_one(fields: str, day: int) -> None:
    dates = parse(f"0 0 {fields}").dates
    matching = [n for n in range(day, day + 1000) if dates.has(n)]
    assert dates.count(day, day + 1000, dates) == len(matching)
    if matching:
        assert (dates.next(day), dates.previous(day + 999)) == (matching[0], matching[-1])


def test_a_hash_is_stable_for_ever() -> None:
    assert parse("H H * * *").of("acme", "backup").expression == "0 52 15 * * *"


def test_a_hash_differs_per_trigger_workspace_and_field() -> None:
    cron = parse("H H * * *")
    found = {cron.of(workspace, trigger).expression for workspace in "abc" for trigger in "0123456789"}
    assert len(found) >= 28
    minutes_are_hours = sum(
        cron.of("ws", str(n)).expression.split()[1] == cron.of("ws", str(n)).expression.split()[2]
        for n in range(600)
    )
    assert minutes_are_hours < 40


@pytest.mark.parametrize(
    ("field", "kinds"),
    [("H * * * *", 60), ("0 H * * *", 24), ("0 0 H * *", 28), ("0 0 1 H *", 12), ("0 0 * * H", 7)],
)
def test_a_hash_spreads_triggers_evenly(field: str, kinds: int) -> None:
    cron, each = parse(field), 200
    counts = Counter(cron.of("acme", f"trigger-{n}").expression for n in range(kinds * each))
    assert len(counts) == kinds
    chi_squared = sum((count - each) ** 2 / each for count in counts.values())
    assert chi_squared < kinds + 5 * (2 * kinds) ** 0.5


@pytest.mark.parametrize(
    ("field", "minutes"),
    [
        ("H", [{n} for n in range(60)]),
        ("H(0-2)", [{0}, {1}, {2}]),
        ("H/20", [{n, n + 20, n + 40} for n in range(20)]),
        ("H(0-29)/10", [{n, n + 10, n + 20} for n in range(10)]),
        ("H(10-12)/50", [{10}, {11}, {12}]),
        ("h(0-1),30", [{0, 30}, {1, 30}]),
    ],
)
def test_what_a_hash_may_become(field: str, minutes: list[set[int]]) -> None:
    cron = parse(f"{field} * * * *")
    found = []
    for n in range(600):
        mask = cron.of("ws", str(n)).masks[1]
        values = {value for value in range(60) if mask >> value & 1}
        assert values in minutes
        if values not in found:
            found.append(values)
    assert len(found) == len(minutes)


def test_without_seconds_a_hash_leaves_them_at_0() -> None:
    assert all(parse("H H * * *").of("ws", str(n)).masks[0] == 1 for n in range(20))
    assert len({parse("H 0 0 * * *").of("ws", str(n)).masks[0] for n in range(50)}) > 20


def test_new_expressions_of_known_items_are_read_in_microseconds() -> None:
    texts = [f"{a},{b} {a % 24},{b % 24} {b % 28 + 1} * {a % 7}" for a in range(60) for b in range(60)]
    for text in texts[:100]:
        parse(text)
    began = time.process_time()
    for text in texts:
        parse(text)
    assert time.process_time() - began < 0.5  # measured: 0.06; croniter alone takes 0.35


def test_what_h_stands_for_is_written_once() -> None:
    every = ",".join(["H(0-59)/1"] * 100)
    assert len(parse(f"{every} {every} * * * *").of("acme", "nightly").expression) < 400
