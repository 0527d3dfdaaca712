"""What a client declares, good and bad: what tests of fields and patches begin with."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import strategies as st

from app.declared.bodies import parse_trigger
from app.declared.inputs import Defaults
from app.declared.outcomes import TARGET_KINDS
from app.errors import Fault, InvalidRequest
from app.models import Definition

GOOD: dict[str, Any] = {"cron": "* * * * *", "url": "http://127.0.0.1/x", "method": "POST"}

# What lists of statuses are drawn from.
statuses = st.one_of(
    st.integers(100, 999),
    st.integers(100, 999).map(str),
    st.integers(1, 9).map("{}xx".format),
    st.tuples(st.integers(100, 999), st.integers(100, 999)).map(lambda two: f"{min(two)}-{max(two)}"),
)
kinds = st.sampled_from(TARGET_KINDS).map(str)


def body(**fields: Any) -> bytes:
    """A good trigger with these fields, as JSON."""
    return json.dumps({**GOOD, **fields}).encode()


def stored(defaults: Defaults | None = None, **fields: Any) -> Definition:
    """The definition that it becomes."""
    return parse_trigger(body(**fields)).to_definition(defaults or Defaults())


def faults_of(given: bytes) -> list[Fault]:
    """What is wrong with a body, all of it."""
    with pytest.raises(InvalidRequest) as caught:
        parse_trigger(given)
    return caught.value.faults


def fault_of(given: bytes) -> tuple[str, str]:
    """The one thing that is wrong with it: its path, and what is said."""
    (fault,) = faults_of(given)
    return fault.path, fault.message
