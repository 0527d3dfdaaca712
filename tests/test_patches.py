"""Merge patches of triggers."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from declared import body, stored

from app.declared.bodies import parse_patch, parse_trigger
from app.declared.fields import MAX_DEPTH
from app.declared.inputs import Defaults, PatchInput, TriggerInput
from app.declared.masking import MASK
from app.errors import InvalidRequest
from app.models import Definition


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


@pytest.mark.parametrize(
    ("inner", "message"),
    [("1", "nested too deeply"), (json.dumps("x" * 3_000_000), "at most 2,097,152 bytes")],
    ids=["deep", "large"],
)
def test_a_patch_is_neither_so_deep_nor_so_large_that_merging_it_takes_long(inner: str, message: str) -> None:
    patch = '{"a":' * 800 + inner + "}" * 800
    with pytest.raises(InvalidRequest) as caught:
        parse_patch(f'{{"payload":{patch}}}'.encode(), stored())
    assert message in caught.value.faults[0].message


def test_a_patch_may_hold_the_deepest_payload() -> None:
    payload = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse_patch(f'{{"payload":{payload}}}'.encode(), stored()).payload == payload.encode()
