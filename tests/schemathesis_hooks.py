"""What schemathesis has to know beside the document: values of our formats, and rules between fields.

Loaded by the schemathesis process that ``test_openapi.py`` starts.
"""

from __future__ import annotations

import itertools
from typing import Any
from zoneinfo import available_timezones

import schemathesis
from hypothesis import strategies as st

from app.cursors import write_cursor
from app.declared.rules import OWNERS, SCHEDULES
from app.formats import FORMATS
from app.signing import format_secret

_CRONS = [
    "* * * * *",
    "*/5 9-17 * * 1-5",
    "0 0 1 1 *",
    "30 2 L * *",
    "0 0 * * 5#2",
    "*/10 * * * * *",
    "@daily",
]
_HOSTS = st.sampled_from(["example.com", "api.example.com:8443", "127.0.0.1:9", "[::1]:9"])
_URLS = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https"]),
    _HOSTS,
    st.text("abcxyz019-._~", max_size=12),
)
_VALUE = st.text([chr(code) for code in range(33, 127)], max_size=20)

VALUES = {
    "cron": st.sampled_from(_CRONS),
    "time-zone": st.sampled_from(sorted(available_timezones() - {"localtime"})),
    "http-url": _URLS,
    "given-moment": st.sampled_from(
        ["2030-03-29T02:30:00Z", "2031-01-01T00:00:00+02:00", "2032-02-29T12:00:00"]
    ),
    "cursor": st.integers(0, 10**13).map(lambda slot: write_cursor((slot, f"acme:t:{slot}"))),
    "webhook-secret": st.binary(min_size=24, max_size=64).map(format_secret),
    "egress-entry": st.sampled_from(["10.0.0.0/8", "::1", "hooks.example.com", ".example.com", "*"]),
    "http-header-name": st.text("ABCxyz019-_", min_size=1, max_size=12).map("X-{}".format),
    "http-header-value": _VALUE.filter(lambda value: set(value) != {"*"}),  # a mask stands for a stored value
}
assert set(VALUES) == set(FORMATS)

for name, values in VALUES.items():
    schemathesis.openapi.format(name, values)


_keys = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """What no schema of ours says: rules between fields, and what a call means after others.

    And 5.0 is a number to us, but no whole one.
    """
    if case.meta is None:
        return
    if not case.meta.generation.mode.is_positive:
        if case.body == b"":
            case.body = b"x"  # random bytes, but none: a body that may be left out is not wrong where it is
        return
    for name in list(case.headers or ()):
        if name.lower() == "if-match":
            case.headers[name] = "*"  # no set is at a revision made up
        elif name.lower() == "idempotency-key":
            case.headers[name] = f"{case.headers[name]}{next(_keys)}"[-255:]  # one for each call
    if case.operation.path.endswith("/audit") and "cursor" in (case.query or {}):
        case.query["cursor"] = write_cursor((10**12, "7"))  # of its own form
    if not isinstance(
        case.body, dict
    ):  # to be set, even to itself, makes a body that is left out a wrong one
        return
    case.body = body = _whole(case.body)
    path, method = case.operation.path, case.operation.method.upper()
    if "triggers" in body:
        for index, trigger in enumerate(body["triggers"]):
            if isinstance(trigger.get("id"), str):
                trigger["id"] = f"{trigger['id'][:100]}-{index}"
            _settle(trigger)
    elif path.endswith("/triggers/new"):
        _settle(body)
    elif path.endswith("/triggers/{trigger_id}") and method in ("PUT", "PATCH"):
        body.pop("id", None)  # the path has it
        _settle(body)
    elif path.endswith("/bulk") and (body.get("ids") is None) == (body.get("tags") is None):
        body["ids"], body["tags"] = ["nightly-report"], None
    elif path == "/api/keys":
        body.pop("expires_at", None)  # it must not be past
    elif path.endswith("/backfill"):
        body["from"], body["to"] = "2026-03-29T02:30:00Z", "2026-03-29T12:30:00+02:00"


def _settle(trigger: dict[str, Any]) -> None:
    """One schedule, and nothing beside it that goes only with another."""
    given = [name for name in SCHEDULES if trigger.get(name) is not None] or ["cron"]
    trigger.setdefault(given[0], "* * * * *")
    if trigger[given[0]] is None:
        trigger[given[0]] = "* * * * *"
    for name in given[1:]:
        trigger[name] = None
    if isinstance(trigger.get("interval"), str):
        trigger["interval"] = "1h30m"  # the pattern does not bound the sum
    for name in ("retry_on", "success_codes"):
        if isinstance(trigger.get(name), list):  # a range begins before it ends
            trigger[name] = ["-".join(sorted(str(one).split("-"))) for one in trigger[name]]
    if given[0] == "at":
        trigger["at"] = "2032-02-29T12:00:00Z"  # not past
    for name, owners in OWNERS.items():
        if not any(trigger.get(owner) for owner in owners):
            trigger.pop(name, None)
    if trigger.get("overlap_policy") != "queue":
        trigger.pop("queue_limit", None)
    for name in (
        "ends_at",
        "retry_delay_seconds",
        "retry_max_delay_seconds",
    ):  # each has another as its bound
        trigger.pop(name, None)


def _whole(value: Any) -> Any:
    """To JSON schema, 5.0 is an integer; to our types it is a float, and refused where a count is wanted."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
