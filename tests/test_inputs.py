"""What a client may declare: each field, what fits together, to the definition and back, patches."""

from __future__ import annotations

import json
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from helpers import define
from hypothesis import assume, given
from hypothesis import strategies as st

from app.clock import parse_interval, parse_moment, rfc3339
from app.config import Settings
from app.declared.bodies import parse_patch, parse_replace, parse_trigger
from app.declared.inputs import Defaults, PatchInput, TriggerFields, TriggerInput, shown
from app.declared.masking import MASK, View, unmask
from app.declared.outcomes import TARGET_KINDS, canonical, kinds_of, statuses_of
from app.errors import Fault, InvalidRequest
from app.models import Definition

GOOD: dict[str, Any] = {"cron": "* * * * *", "url": "http://127.0.0.1/x", "method": "POST"}
BERLIN = ZoneInfo("Europe/Berlin")


def body(**fields: Any) -> bytes:
    return json.dumps({**GOOD, **fields}).encode()


def stored(defaults: Defaults | None = None, **fields: Any) -> Definition:
    return parse_trigger(body(**fields)).to_definition(defaults or Defaults())


def faults_of(given: bytes) -> list[Fault]:
    with pytest.raises(InvalidRequest) as caught:
        parse_trigger(given)
    return caught.value.faults


def fault_of(given: bytes) -> tuple[str, str]:
    (fault,) = faults_of(given)
    return fault.path, fault.message


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


items = st.one_of(
    st.integers(100, 999),
    st.integers(100, 999).map(str),
    st.integers(1, 9).map("{}xx".format),
    st.tuples(st.integers(100, 999), st.integers(100, 999)).map(lambda two: f"{min(two)}-{max(two)}"),
)
kinds = st.sampled_from(TARGET_KINDS).map(str)


@given(st.lists(items | kinds, min_size=1, max_size=8))
def test_the_one_form_means_the_same_and_stays(given_items: list[int | str]) -> None:
    found = canonical(given_items)
    assert statuses_of(found) == statuses_of(given_items)
    assert kinds_of(found) == kinds_of(given_items)
    assert canonical(found) == found == tuple(sorted(found))


def test_what_is_usual_anyway_is_the_same_as_leaving_it_out() -> None:
    usual = [408, 425, 429, "500-599", "dns", "connect", "tls", "timeout", "protocol"]
    assert stored(retry_on=usual, success_codes=["200-299"]) == stored()


@pytest.mark.parametrize(
    ("fields", "path", "message"),
    [
        # cron, interval, at
        ({"cron": None}, "cron", "exactly one"),
        ({"interval": 60}, "interval", "'cron' is set too"),
        ({"at": "2030-01-01T00:00:00Z"}, "at", "exactly one of cron, interval and at"),
        ({"interval": [], "cron": None}, "interval", "expected 'int | str'"),
        ({"at": 5, "cron": None}, "at", "expected 'str'"),
        # what goes together
        ({"cron": None, "interval": 60, "dst_policy": {"gap": "skip"}}, "dst_policy", "elapsed"),
        ({"cron": None, "at": "2030-01-01T00:00:00Z", "max_runs": 2}, "max_runs", "one-off"),
        (
            {"cron": None, "at": "2030-01-01T00:00:00Z", "starts_at": "2029-01-01T00:00:00Z"},
            "starts_at",
            "one-off",
        ),
        ({"queue_limit": 2}, "queue_limit", "'queue' only"),
        ({"queue_limit": 2, "overlap_policy": "skip"}, "queue_limit", "'queue' only"),
        ({"catch_up_window_seconds": 60}, "catch_up_window_seconds", "catch_up_missed only"),
        ({"catch_up_window_seconds": 60, "catch_up_missed": False}, "catch_up_window_seconds", "only"),
        (
            {"starts_at": "2026-03-01T00:00:00Z", "ends_at": "2026-02-01T00:00:00Z"},
            "ends_at",
            "before starts_at",
        ),
        (
            {
                "starts_at": "2026-03-01T00:30:00Z",
                "ends_at": "2026-03-01T01:00:00",
                "timezone": "Europe/Berlin",
            },
            "ends_at",
            "before",
        ),
        ({"retry_delay_seconds": 60, "retry_max_delay_seconds": 30}, "retry_max_delay_seconds", "60 s"),
        ({"retry_delay_seconds": 7200}, "retry_max_delay_seconds", "3600 unless given"),
        ({"retry_strategy": "fixed", "retry_max_delay_seconds": 30}, "retry_max_delay_seconds", "strategy"),
        # sizes
        ({"url": "https://example.com/" + "x" * 8180}, "url", "8192 characters"),
        ({"headers": {f"X-{number}": "1" for number in range(101)}}, "headers", "at most 100"),
        ({"headers": {"X-Long": "x" * 32_768}}, "headers", "32,768 bytes"),
        ({"payload": "x" * 1_048_576}, "payload", "more than 1,048,576"),
        ({"payload": {"list": [1] * 600_000}}, "payload", "more than 1,048,576"),
        ({"name": "x" * 257}, "name", "<= 256"),
        ({"description": "x" * 4097}, "description", "<= 4096"),
        # values
        ({"tags": ["x"] * 21}, "tags", "<= 20"),
        ({"tags": ["a", "", "b"]}, "tags[1]", ">= 1"),
        ({"tags": ["a", 5]}, "tags[1]", "expected 'str'"),
        ({"tags": ["x" * 65]}, "tags[0]", "<= 64"),
        ({"tags": "x"}, "tags", "expected 'array'"),
        ({"max_runs": 0}, "max_runs", ">= 1"),
        ({"jitter_seconds": 3601}, "jitter_seconds", "<= 3600"),
        ({"start_deadline_seconds": 0}, "start_deadline_seconds", "> 0"),
        ({"overlap_policy": "skipp"}, "overlap_policy", "did you mean 'skip'"),
        ({"overlap_policy": 5}, "overlap_policy", "allow, skip, queue, replace"),
        ({"queue_limit": 0, "overlap_policy": "queue"}, "queue_limit", ">= 1"),
        ({"catch_up_missed": "some"}, "catch_up_missed", "false, true, all, latest"),
        ({"catch_up_missed": 1}, "catch_up_missed", "not one of"),
        ({"catch_up_missed": True, "catch_up_window_seconds": 9}, "catch_up_window_seconds", ">= 10"),
        ({"catch_up_missed": True, "catch_up_window_seconds": 2_678_401}, "catch_up_window_seconds", "<= "),
        ({"delivery": "exactly_once"}, "delivery", "at_least_once, at_most_once"),
        ({"max_retries": 101}, "max_retries", "<= 100"),
        ({"retry_strategy": "expo"}, "retry_strategy", "exponential, linear, fixed"),
        ({"retry_delay_seconds": -1}, "retry_delay_seconds", ">= 0"),
        ({"retry_jitter": 1.1}, "retry_jitter", "<= 1"),
        ({"retry_on": []}, "retry_on", ">= 1"),
        ({"retry_on": ["tiemout"]}, "retry_on[0]", "did you mean 'timeout'"),
        ({"retry_on": [503, "worker_lost"]}, "retry_on[1]", "dns, connect, tls, timeout, protocol"),
        ({"retry_on": ["599-500"]}, "retry_on[0]", "ends before"),
        ({"retry_on": [99]}, "retry_on[0]", ">= 100"),
        ({"retry_on": [True]}, "retry_on[0]", "expected"),
        ({"success_codes": ["2xx", "2XX"]}, "success_codes[1]", "5xx"),
        ({"success_codes": ["timeout"]}, "success_codes[0]", "no status"),
        ({"success_codes": 200}, "success_codes", "expected 'array'"),
        ({"dst_policy": "skip"}, "dst_policy", "expected 'object'"),
        ({"dst_policy": {"gap": "skipp"}}, "dst_policy.gap", "did you mean 'skip'"),
        ({"dst_policy": {"repeat": "last"}}, "dst_policy.repeat", "first, second, both"),
        ({"dst_policy": {"gaps": "skip"}}, "dst_policy.gaps", "did you mean 'gap'"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "headers['x-a']", "'X-A' again"),
        ({"retry": 5}, "retry", "did you mean 'retry_"),
        # variables
        ({"url": "http://x/{{atempt}}"}, "url", "did you mean 'attempt'"),
        ({"url": "http://{{trigger}}/"}, "url", "path and the query only"),
        ({"headers": {"X": "{{x"}}, "headers['X']", "never closed"),
        ({"payload": {"a": ["{{nothing}}"]}}, "payload", "unknown variable 'nothing'"),
        ({"payload": {"{{triger}}": 1}}, "payload", "did you mean 'trigger'"),
        ({"payload": "{{"}, "payload", "never closed"),
    ],
)
def test_a_fault_is_told_with_its_path_whichever_way_it_is_found(
    fields: dict[str, Any], path: str, message: str
) -> None:
    found = fault_of(body(**fields))
    assert found[0] == path
    assert message in found[1]
    # In a set, and next to a fault that only the slow pass finds, it is the same.
    with pytest.raises(InvalidRequest) as caught:
        parse_replace(json.dumps({"triggers": [GOOD, {**GOOD, **fields, "enabled": 5}]}).encode(), Settings())
    assert Fault(f"triggers[1].{found[0]}", found[1]) in caught.value.faults
    assert len(caught.value.faults) == 2


def test_one_triggers_faults_are_all_told_at_once_without_an_index() -> None:
    bad = body(url="x", cron="x", retry_on=["x"], nam="x", tags=[1, 2], ends_at="x", queue_limit=3)
    paths = [fault.path for fault in faults_of(bad)]
    assert paths == ["cron", "ends_at", "nam", "queue_limit", "retry_on[0]", "tags[0]", "tags[1]", "url"]


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b"{", b"5", b"\xff", b"{" * 200_000])
def test_what_is_no_object_is_refused(text: bytes) -> None:
    for parse in (parse_trigger, lambda given: parse_patch(given, define())):
        with pytest.raises(InvalidRequest) as caught:
            parse(text)
        assert caught.value.faults


def test_a_name_that_stands_twice_with_one_bad_value_is_a_fault() -> None:
    assert faults_of(b'{"method": 5, "method": "GET", "cron": "* * * * *", "url": "http://x/"}')


def test_null_means_not_set_for_every_optional_field() -> None:
    optional = {name: None for name in TriggerInput.__struct_fields__ if name not in GOOD}
    assert stored(**optional) == stored()
    assert (
        stored(cron=None, interval=60)
        == parse_trigger(b'{"interval": "1m", "url": "http://127.0.0.1/x", "method": "POST"}').to_definition()
    )


def test_what_is_left_out_takes_the_workspaces_default_and_what_is_given_does_not() -> None:
    mine = Defaults(timezone="Asia/Tokyo", timeout_seconds=7.0, max_retries=0)
    one = stored(mine, starts_at="2026-01-01T09:00:00")
    assert (one.timezone, one.timeout_seconds, one.max_retries) == ("Asia/Tokyo", 7.0, 0)
    assert rfc3339(one.starts_at) == "2026-01-01T00:00:00.000Z"
    other = stored(mine, timezone="UTC", timeout_seconds=30, max_retries=3)
    assert other == stored()


def test_the_workspaces_zone_decides_whether_an_end_lies_before_its_start() -> None:
    span = body(starts_at="2026-03-01T00:30:00Z", ends_at="2026-03-01T01:00:00")
    assert parse_trigger(span)
    with pytest.raises(InvalidRequest):
        parse_trigger(span, Defaults(timezone="Europe/Berlin"))


def test_equal_meanings_are_equal_definitions() -> None:
    assert stored(catch_up_missed=True) == stored(catch_up_missed="all")
    assert stored(catch_up_missed=False, tags=[], headers={}, name="", payload=None) == stored()
    assert stored(tags=["b", "a", "b"]) == stored(tags=["b", "a"])
    assert stored(overlap_policy="queue") == stored(overlap_policy="queue", queue_limit=1)
    assert stored(dst_policy={"gap": None}) == stored(dst_policy={}) == stored()
    assert (
        stored(payload={"a": "\\{{{{"})
        == parse_trigger(
            body(payload="P").replace(b'"P"', rb'{"a" : "\\\u007b\u007B{\u007b"}')
        ).to_definition()
    )


def test_an_escaped_brace_begins_a_variable_like_a_plain_one() -> None:
    hidden = body(payload="P").replace(b'"P"', rb'{"a":"\u007b\u007bnothing}}"}')
    assert fault_of(hidden)[0] == "payload"
    literal = body(payload="P").replace(
        b'"P"', rb'{"a":"\\u007b\\u007bnothing}}"}'
    )  # a backslash, then u007b
    assert parse_trigger(literal).to_definition().payload == rb'{"a":"\\u007b\\u007bnothing}}"}'


# There and back.

seconds = st.floats(0.001, 3600, allow_nan=False)
moments = st.integers(1, 253_402_300_799_999).map(rfc3339)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
).map(lambda value: json.loads(json.dumps(value).replace("{{", "{ {")))
schedules = st.one_of(
    st.fixed_dictionaries(
        {"cron": st.sampled_from(["* * * * *", "0 9 * * 1-5", "@daily"])},
        optional={
            "dst_policy": st.fixed_dictionaries(
                {},
                optional={
                    "gap": st.sampled_from([None, "after", "skip"]),
                    "repeat": st.sampled_from(["first", "second", "both"]),
                },
            ),
            "max_runs": st.integers(1, 1_000_000_000),
            "ends_at": moments,
        },
    ),
    st.fixed_dictionaries(
        {"interval": st.integers(1, 31_622_400) | st.just("1h30m")}, optional={"starts_at": moments}
    ),
    st.fixed_dictionaries({"at": moments}),
)
further = st.fixed_dictionaries(
    {"url": st.just("http://x/{{attempt}}"), "method": st.sampled_from(["GET", "POST"])},
    optional={
        "name": st.text(max_size=256),
        "description": st.text(max_size=50),
        "tags": st.lists(st.text(min_size=1, max_size=64), max_size=20),
        "enabled": st.booleans(),
        "timezone": st.sampled_from(["UTC", "Europe/Berlin", "Asia/Kathmandu"]),
        "jitter_seconds": st.integers(0, 3600),
        "start_deadline_seconds": seconds,
        "headers": st.dictionaries(st.sampled_from(["A", "B", "Token"]), st.just("x y")),
        "payload": json_values,
        "timeout_seconds": seconds,
        "overlap_policy": st.sampled_from(["allow", "skip", "queue", "replace"]),
        "catch_up_missed": st.sampled_from([False, True, "all", "latest"]),
        "delivery": st.sampled_from(["at_least_once", "at_most_once"]),
        "max_retries": st.integers(0, 100),
        "retry_strategy": st.sampled_from(["exponential", "linear", "fixed"]),
        "retry_delay_seconds": seconds,
        "retry_max_delay_seconds": st.floats(3600, 86_400),
        "retry_jitter": st.floats(0, 1),
        "retry_on": st.lists(items | kinds, min_size=1, max_size=5),
        "success_codes": st.lists(items, min_size=1, max_size=5),
        "disable_on_gone": st.booleans(),
        "queue_limit": st.integers(1, 1000),
        "catch_up_window_seconds": st.integers(10, 2_678_400),
    },
)


@st.composite
def definitions(draw: st.DrawFn) -> Definition:
    fields = draw(schedules) | draw(further)
    if fields.get("overlap_policy") != "queue":
        fields.pop("queue_limit", None)
    if not fields.get("catch_up_missed"):
        fields.pop("catch_up_window_seconds", None)
    return parse_trigger(msgspec.json.encode(fields)).to_definition()


@given(definitions())
def test_what_is_shown_is_accepted_back_unchanged(definition: Definition) -> None:
    text = msgspec.json.encode(shown(definition, View.ALL))
    elsewhere = Defaults(timezone="Asia/Tokyo", timeout_seconds=1.0, max_retries=99)
    assert parse_trigger(text).to_definition(elsewhere) == definition
    assert msgspec.json.decode(text, type=TriggerFields).url == definition.url
    assert parse_patch(b"{}", definition, elsewhere) == definition
    masked = msgspec.json.decode(msgspec.json.encode(shown(definition)))
    del masked["payload"]  # a patch takes nulls in it for what is to be removed
    assert parse_patch(msgspec.json.encode(masked), definition, elsewhere) == definition
    for view in View:  # whoever copies from an answer and puts it back changes nothing
        given = parse_trigger(msgspec.json.encode(shown(definition, view))).to_definition(elsewhere)
        assert unmask(given, definition) == (definition, [])


def test_credentials_are_shown_masked() -> None:
    definition = stored(headers={"Authorization": "Bearer x", "X-Plain": "y"})
    assert shown(definition).headers == {"Authorization": MASK, "X-Plain": "y"}
    assert shown(definition, View.ALL).headers == definition.headers


# Merge patches.


def patched(current: Definition, **fields: Any) -> Definition:
    return parse_patch(json.dumps(fields).encode(), current, id="mine")


def test_a_patch_changes_what_it_names_and_null_unsets() -> None:
    current = stored(name="A", max_retries=9, timezone="Europe/Berlin", headers={"A": "1", "B": "2"})
    assert patched(current, name="B") == stored(
        name="B", max_retries=9, timezone="Europe/Berlin", headers={"A": "1", "B": "2"}
    )
    assert patched(
        current, name=None, max_retries=None, timezone=None, headers={"A": None, "C": "3"}
    ) == stored(headers={"B": "2", "C": "3"})
    mine = Defaults(max_retries=1)
    assert parse_patch(b'{"max_retries": null}', current, mine).max_retries == 1


def test_an_object_as_payload_is_merged_and_what_is_not_touched_stays_to_the_letter() -> None:
    current = parse_trigger(
        body(payload="P").replace(b'"P"', b'{"n":1.0,"big":12345678901234567890123,"in":{"a":1,"b":2}}')
    ).to_definition()
    after = patched(current, payload={"in": {"b": None, "c": [1]}})
    assert after.payload == b'{"n":1.0,"big":12345678901234567890123,"in":{"a":1,"c":[1]}}'
    assert patched(current, payload=[1, {"a": None}]).payload == b'[1,{"a":null}]'
    assert patched(current, payload=None).payload == b""


def test_a_patch_can_change_the_kind_of_schedule() -> None:
    current = stored(dst_policy={"gap": "skip"}, max_runs=5)
    assert patched(current, interval="5m") == stored(cron=None, interval=300, max_runs=5)
    assert patched(current, at="2030-01-01T00:00:00Z") == stored(cron=None, at="2030-01-01T00:00:00Z")
    with pytest.raises(InvalidRequest) as caught:
        patched(current, interval="5m", cron="* * * * *")
    assert [fault.path for fault in caught.value.faults] == ["interval"]


def test_what_only_meant_something_beside_what_a_patch_changes_goes_with_it() -> None:
    current = stored(overlap_policy="queue", queue_limit=5, catch_up_missed=True, catch_up_window_seconds=60)
    assert patched(current, overlap_policy="skip", catch_up_missed=False) == stored(overlap_policy="skip")
    assert patched(current, overlap_policy=None).queue_limit == 1
    with pytest.raises(InvalidRequest) as caught:
        patched(current, overlap_policy="skip", queue_limit=3)
    assert [fault.path for fault in caught.value.faults] == ["queue_limit"]


@pytest.mark.parametrize(
    ("patch", "path"),
    [
        ({"cron": "nonsense"}, "cron"),
        ({"cron": None}, "cron"),
        ({"url": None}, "url"),
        ({"method": "BREW"}, "method"),
        ({"headers": {"A b": "1"}}, "headers['A b']"),
        ({"headers": {"a": "1"}}, "headers['a']"),
        ({"headers": {"New": MASK}}, "headers['New']"),
        ({"tags": ["", "b"]}, "tags[0]"),
        ({"corn": "x"}, "corn"),
        ({"id": "other"}, "id"),
    ],
)
def test_a_patched_trigger_is_checked_as_a_whole(patch: dict[str, Any], path: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        patched(stored(headers={"A": "1"}), **patch)
    assert [fault.path for fault in caught.value.faults] == [path]


def test_a_patch_may_carry_the_triggers_own_id() -> None:
    assert patched(stored(), id="mine", name="N") == stored(name="N")
    assert parse_patch(b'{"id": "mine", "name": "N"}', stored(), id="mine") == stored(name="N")


def test_a_patchs_schema_asks_for_no_field() -> None:
    fields = msgspec.structs.fields(PatchInput)
    assert not any(field.required for field in fields)
    assert [field.name for field in fields] == list(TriggerInput.__struct_fields__)


def test_every_field_is_described_in_the_schema() -> None:
    _, components = msgspec.json.schema_components([TriggerInput, PatchInput, TriggerFields])
    for name in ("TriggerInput", "TriggerFields"):
        for field, schema in components[name]["properties"].items():
            parts = [schema, *schema.get("anyOf", [])]
            assert any("description" in part for part in parts), field
    assert components["TriggerInput"]["additionalProperties"] is False


def test_every_example_in_the_schema_is_accepted() -> None:
    _, components = msgspec.json.schema_components([TriggerInput])
    beside: dict[str, dict[str, Any]] = {
        "interval": {"cron": None},
        "at": {"cron": None},
        "queue_limit": {"overlap_policy": "queue"},
        "catch_up_window_seconds": {"catch_up_missed": True},
    }
    tried = 0
    for field, schema in components["TriggerInput"]["properties"].items():
        for part in [schema, *schema.get("anyOf", [])]:
            for example in part.get("examples", []):
                stored(**{field: example, **beside.get(field, {})})
                tried += 1
    assert tried > 20
