"""Checks of what clients send: every fault of a body at once, each with its path.

A good body takes one fast pass. Only a bad one takes the second, which looks at each field by itself,
because msgspec stops at its first error.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any, get_type_hints

import msgspec

from app.config import Settings
from app.cron import parse
from app.errors import Fault, InvalidRequest, InvalidSchedule
from app.models import METHODS, ReplaceInput, TriggerInput, is_id
from app.urls import parse_target
from app.zones import load_zone

MASK = "********"

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?\Z")

# These frame the message or steer the connection: they are the sender's, not the trigger's.
_FRAMING = frozenset(
    {
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
_OURS = ("webhook-id", "webhook-timestamp", "webhook-signature")

_decode = msgspec.json.Decoder(ReplaceInput).decode
_TYPES: dict[str, Any] = get_type_hints(TriggerInput, include_extras=True)
_REQUIRED = tuple(f.encode_name for f in msgspec.structs.fields(TriggerInput) if f.required)

FieldFaults = Iterator[tuple[str, str]]  # path below the field, message


def check_workspace_id(workspace: str) -> None:
    """Raise :class:`InvalidRequest` unless it is an id."""
    if not is_id(workspace):
        raise InvalidRequest("The workspace id is not valid.", [Fault("workspace_id", _ID_RULE)])


def parse_replace(body: bytes, settings: Settings) -> list[TriggerInput]:
    """The triggers of a replace's body; raises :class:`InvalidRequest` with every fault."""
    try:
        body.decode()
        try:
            triggers = _decode(body).triggers
        except msgspec.ValidationError:
            faults = sorted(set(_slow_faults(msgspec.json.decode(body), settings)))
        else:
            faults = list(_semantic_faults(triggers, settings))
            if not faults:
                return triggers
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest(
            "The body is not valid JSON.", [Fault("", f"malformed JSON: {error}")]
        ) from error
    except RecursionError as error:
        raise InvalidRequest("The body is nested too deeply.", [Fault("", "nested too deeply")]) from error
    count = f"{len(faults)} faults" if len(faults) > 1 else "one fault"
    raise InvalidRequest(f"The body has {count}; nothing was stored.", faults)


def _semantic_faults(triggers: list[TriggerInput], settings: Settings) -> Iterator[Fault]:
    yield from _set_faults([t.id for t in triggers], settings)
    for index, trigger in enumerate(triggers):
        for name, check in _CHECKS.items():
            value = getattr(trigger, name)
            if value is not None and value is not msgspec.UNSET:
                yield from _placed(index, name, check(value))


def _slow_faults(document: Any, settings: Settings) -> Iterator[Fault]:
    """Every fault of a body that is JSON, but not of the right shape."""
    if not isinstance(document, dict):
        yield Fault("", f"expected an object with 'triggers', got {_kind(document)}")
        return
    for name in document:
        if name != "triggers":
            yield Fault(name, _unknown(name, ["triggers"]))
    if "triggers" not in document:
        yield Fault("triggers", "required field is missing")
        return
    triggers = document["triggers"]
    if not isinstance(triggers, list):
        yield Fault("triggers", f"expected an array, got {_kind(triggers)}")
        return
    ids = [t.get("id") if isinstance(t, dict) else None for t in triggers]
    yield from _set_faults([i if isinstance(i, str) else None for i in ids], settings)
    for index, trigger in enumerate(triggers):
        if isinstance(trigger, dict):
            yield from _trigger_faults(index, trigger)
        else:
            yield Fault(f"triggers[{index}]", f"expected an object, got {_kind(trigger)}")


def _trigger_faults(index: int, trigger: dict[str, Any]) -> Iterator[Fault]:
    for name in _REQUIRED:
        if name not in trigger:
            yield Fault(f"triggers[{index}].{name}", "required field is missing")
    for name, value in trigger.items():
        if name not in _TYPES:
            yield Fault(f"triggers[{index}].{name}", _unknown(name, list(_TYPES)))
            continue
        if name == "payload":
            value = msgspec.Raw(msgspec.json.encode(value))
        elif name == "method":
            yield from _placed(index, name, _check_method(value))
            continue
        elif name == "id" and value is not None:
            yield from _placed(index, name, _check_id(value))
            continue
        else:
            faults = list(_type_faults(value, _TYPES[name]))
            yield from _placed(index, name, faults)
            if name == "headers" and isinstance(value, dict):
                value = {key: part for key, part in value.items() if isinstance(part, str)}
            elif faults:
                continue
        if name in _CHECKS and value is not None:
            yield from _placed(index, name, _CHECKS[name](value))


def _type_faults(value: Any, wanted: Any) -> FieldFaults:
    if isinstance(value, dict) and wanted == _TYPES["headers"]:  # the field with parts: each by itself
        for name, part in value.items():
            if not isinstance(part, str):
                yield f"[{name!r}]", f"expected a string, got {_kind(part)}"
        return
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        message = str(error).replace("`", "'")
        yield "", message[0].lower() + message[1:]


def _set_faults(ids: list[str | None], settings: Settings) -> Iterator[Fault]:
    if len(ids) > settings.max_triggers:
        limit = f"at most {settings.max_triggers} (CRONSPACE_MAX_TRIGGERS)"
        yield Fault("triggers", f"{len(ids)} triggers, but a set holds {limit}")
    seen: dict[str, int] = {}
    for index, given in enumerate(ids):
        trigger = str(index) if given is None else given
        if trigger in seen:
            first = seen[trigger]
            hint = (
                "; without an id a trigger's id is its index" if given is None or ids[first] is None else ""
            )
            yield Fault(f"triggers[{index}].id", f"the id {trigger!r} is that of triggers[{first}] too{hint}")
        seen.setdefault(trigger, index)


def _check_cron(expression: str) -> FieldFaults:
    try:
        parse(expression)
    except InvalidSchedule as error:
        yield "", str(error)


def _check_timezone(zone: str) -> FieldFaults:
    try:
        load_zone(zone)
    except InvalidSchedule as error:
        yield "", str(error)


def _check_method(method: Any) -> FieldFaults:
    if method not in METHODS:
        hint = f"; did you mean {method.upper()!r}?" if str(method).upper() in METHODS else ""
        yield "", f"{method!r} is not one of {', '.join(METHODS)}{hint}"


_ID_RULE = "an id is 1 to 128 letters, digits, '.', '_' or '-', and begins with a letter or a digit"


def _check_id(trigger: Any) -> FieldFaults:
    if not isinstance(trigger, str):
        yield "", f"expected a string, got {_kind(trigger)}"
    elif not is_id(trigger):
        yield "", _ID_RULE


def _check_url(url: str) -> FieldFaults:
    try:
        parse_target(url)
    except ValueError as error:
        yield "", str(error)


def _check_headers(headers: dict[str, str]) -> FieldFaults:
    for name, value in headers.items():
        lower = name.lower()
        if not _TOKEN.match(name):
            yield f"[{name!r}]", "a header name holds only letters, digits and !#$%&'*+-.^_`|~"
        elif lower in _FRAMING:
            yield f"[{name!r}]", "this header belongs to the connection and can't be set"
        elif lower in _OURS or lower.startswith("cronspace-"):
            yield f"[{name!r}]", "this header is set by Cronspace itself"
        if not _FIELD_VALUE.match(value):
            message = "a header value holds only printable ASCII, and neither begins nor ends with a space"
            yield f"[{name!r}]", message


def _check_payload(payload: msgspec.Raw) -> FieldFaults:
    text = bytes(payload)
    try:
        if text.startswith(b'"'):
            msgspec.json.decode(text, type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        yield "", "the string has an escape that is no Unicode character"


_CHECKS: dict[str, Callable[[Any], FieldFaults]] = {
    "cron": _check_cron,
    "timezone": _check_timezone,
    "url": _check_url,
    "headers": _check_headers,
    "payload": _check_payload,
}


def _placed(index: int, name: str, faults: Iterable[tuple[str, str]]) -> list[Fault]:
    return [Fault(f"triggers[{index}].{name}{below}", message) for below, message in faults]


def _unknown(name: str, valid: list[str]) -> str:
    near = [one for one in valid if name and one.startswith(name)]
    near = near or difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"the fields are {', '.join(sorted(valid))}"
    return f"unknown field; {hint}"


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")
