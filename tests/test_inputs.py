"""What a client may declare: each field, what fits together, to the definition and back."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from declared import GOOD, body, fault_of, faults_of, kinds, statuses, stored
from helpers import define
from hypothesis import given
from hypothesis import strategies as st

from app.clock import rfc3339
from app.config import Settings
from app.declared.bodies import parse_patch, parse_replace, parse_trigger
from app.declared.fields import MAX_DEPTH
from app.declared.inputs import Defaults, PatchInput, TriggerFields, TriggerInput, shown
from app.declared.masking import MASK, View, unmask
from app.errors import MOST_FAULTS, Fault, InvalidRequest
from app.models import Definition
from app.schedule.fields import MAX_CRON


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
        ({"name": "a\r\nb"}, "name", "expected one line without control characters"),
        ({"tags": ["a", "\x1b[2J"]}, "tags[1]", "expected one line without control characters"),
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
one_line = st.characters(exclude_categories=("Cc", "Cs", "Zl", "Zp"))
further = st.fixed_dictionaries(
    {"url": st.just("http://x/{{attempt}}"), "method": st.sampled_from(["GET", "POST"])},
    optional={
        "name": st.text(one_line, max_size=256),
        "description": st.text(max_size=50),
        "tags": st.lists(st.text(one_line, min_size=1, max_size=64), max_size=20),
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
        "retry_on": st.lists(statuses | kinds, min_size=1, max_size=5),
        "success_codes": st.lists(statuses, min_size=1, max_size=5),
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


# What a body may cost. A body of 8 MB took minutes and gigabytes before there were these bounds.


@pytest.mark.parametrize(
    "given",
    [
        b'{"triggers":[%s]}' % b",".join([b'{"ti":1,"ur":1,"met":1}'] * 500),
        b'{"triggers":[{%s}]}' % b",".join(b'"ti%d":1' % number for number in range(5000)),
        b'{"triggers":[%s]}' % body(headers={f"X-{number}": number for number in range(5000)}),
        b'{"triggers":[%s]}' % b",".join([body(retry_on=["tiemout"] * 100)] * 50),
    ],
    ids=["triggers", "unknown fields", "headers", "items"],
)
def test_so_many_faults_of_a_body_are_told_and_no_more(given: bytes) -> None:
    with pytest.raises(InvalidRequest, match="1000 faults or more") as caught:
        parse_replace(given, Settings())
    assert 0 < len(caught.value.faults) <= MOST_FAULTS


@pytest.mark.parametrize("trigger", [b"{}", b"1", b'{"cron":"* * * * *","url":"http://x/","method":"PUT"}'])
def test_the_triggers_of_a_set_that_is_too_large_are_not_looked_at(trigger: bytes) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_replace(b'{"triggers":[%s]}' % b",".join([trigger] * 3), Settings(max_triggers=2))
    assert [fault.path for fault in caught.value.faults] == ["triggers"]
    assert "3 triggers, but a set holds at most 2" in caught.value.faults[0].message


@pytest.mark.parametrize("kind", ["[]", "{}"])
def test_a_payload_is_nested_so_deep_and_no_deeper(kind: str) -> None:
    def nested(depth: int) -> bytes:
        start = "[" if kind == "[]" else '{"a\\"[{":'
        payload = f'{start * depth}"{MASK}"{kind[1] * depth}'
        return body(payload="P").replace(b'"P"', payload.encode())

    deepest = parse_trigger(nested(MAX_DEPTH)).to_definition()
    assert unmask(deepest, deepest) == (deepest, [])  # without running out of stack
    path, message = fault_of(nested(MAX_DEPTH + 1))
    assert path.endswith("payload")
    assert "more than 100 levels" in message


def test_a_payload_of_many_values_side_by_side_is_not_deep() -> None:
    parse_trigger(body(payload=[{"a": ["[" * 200]}] * 500))


def test_a_cron_expression_is_no_longer_than_anybody_needs() -> None:
    every = [range(60), range(60), range(24), range(1, 32), range(1, 13), range(7)]
    longest = " ".join(",".join(map(str, values)) for values in every)
    parse_trigger(body(cron=longest))
    path, message = fault_of(body(cron="1," * MAX_CRON + "1 * * * *"))
    assert path.endswith("cron")
    assert f"length <= {MAX_CRON}" in message
