"""Each field of a trigger by itself: first its type, then what its value means.

A fault is a path below the field (``['X-Key']``, ``[3]``, ``.gap``; empty for the field itself) and a
message.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import Annotated, Any, get_args, get_type_hints

import msgspec
from msgspec import Meta

from app.clock import parse_interval
from app.declared import variables
from app.declared.fields import (
    MAX_DEPTH,
    MAX_HEADERS,
    MAX_PAYLOAD,
    MOST_CODES,
    MOST_HEADERS,
    MOST_TAGS,
    DstPolicy,
    Status,
    Tag,
)
from app.declared.inputs import TriggerInput, stored_payload
from app.declared.outcomes import TARGET_KINDS, parse_statuses
from app.errors import InvalidSchedule, nearest, unknown_name
from app.formats import in_words
from app.models import METHODS, Delivery, OverlapPolicy, RetryStrategy, is_id
from app.schedule.cron import parse
from app.schedule.zones import load_zone
from app.urls import parse_target

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+\Z")
_FIELD_VALUE = re.compile(r"(?:[!-~](?:[\t -~]*[!-~])?)?\Z")

_STRING = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"')
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_INNERMOST = re.compile(rb"\[\]|\{\}")

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

FieldFaults = Iterator[tuple[str, str]]

TYPES: dict[str, Any] = get_type_hints(TriggerInput, include_extras=True)
REQUIRED = tuple(f.encode_name for f in msgspec.structs.fields(TriggerInput) if f.required)

_CHOICES: dict[str, tuple[Any, ...]] = {
    "method": METHODS,
    "overlap_policy": get_args(OverlapPolicy),
    "delivery": get_args(Delivery),
    "retry_strategy": get_args(RetryStrategy),
    "catch_up_missed": (False, True, "all", "latest"),
}
# The type of one item, and of the list whatever is in it: so that each item is told by itself.
_LISTS: dict[str, tuple[Any, Any]] = {
    "tags": (Tag, Annotated[list[Any], Meta(max_length=MOST_TAGS)]),
    "retry_on": (Status | str, Annotated[list[Any], Meta(min_length=1, max_length=MOST_CODES)]),
    "success_codes": (Status | str, Annotated[list[Any], Meta(min_length=1, max_length=MOST_CODES)]),
}

# Their own checks say more about a text than a pattern that it does not match.
_TEXTS = frozenset({"interval", "at", "starts_at", "ends_at", "url"})


def type_faults(name: str, value: Any) -> FieldFaults:
    """What keeps a field's value, as decoded JSON, from being of the right type."""
    if value is None and name not in REQUIRED:
        return
    if name in _CHOICES:
        yield from _choice_faults(value, _CHOICES[name])
    elif name == "id":
        yield from _id_faults(value)
    elif name == "headers" and isinstance(value, dict):
        for header, part in value.items():
            if not isinstance(part, str):
                yield f"[{header!r}]", f"expected a string, got {kind(part)}"
    elif name == "dst_policy" and isinstance(value, dict):
        yield from _dst_faults(value)
    elif name in _LISTS and isinstance(value, list):
        of_item, of_list = _LISTS[name]
        for index, item in enumerate(value):
            yield from ((f"[{index}]", message) for message in _misfits(item, of_item))
        yield from (("", message) for message in _misfits(value, of_list))
    elif not (name in _TEXTS and isinstance(value, str)) and name != "payload":
        yield from (("", fault) for fault in _misfits(value, TYPES[name]))


def kind(value: Any) -> str:
    """What a decoded JSON value is, in words."""
    if value is None:
        return "null"
    names = {dict: "an object", list: "an array", str: "a string", bool: "a boolean"}
    return names.get(type(value), "a number")


def _misfits(value: Any, wanted: Any) -> Iterator[str]:
    try:
        msgspec.convert(value, wanted)
    except msgspec.ValidationError as error:
        message = in_words(str(error)).replace(" | null", "").replace("`", "'")
        yield message[0].lower() + message[1:]


def _choice_faults(value: Any, choices: tuple[Any, ...]) -> FieldFaults:
    if not any(value is one or (isinstance(one, str) and value == one) for one in choices):
        texts = {one.lower(): one for one in choices if isinstance(one, str)}
        near = nearest(value.lower(), texts, cutoff=0.7) if isinstance(value, str) else None
        hint = f"; did you mean {texts[near]!r}?" if near else ""
        names = ", ".join(str(one).lower() if isinstance(one, bool) else one for one in choices)
        yield "", f"{value!r} is not one of {names}{hint}"


_ID_RULE = "an id is 1 to 128 letters, digits, '.', '_' or '-', and begins with a letter or a digit"


def _id_faults(trigger: Any) -> FieldFaults:
    if not isinstance(trigger, str):
        yield "", f"expected a string, got {kind(trigger)}"
    elif not is_id(trigger):
        yield "", _ID_RULE


_DST = {"gap": ("after", "skip"), "repeat": ("first", "second", "both")}


def _dst_faults(given: dict[str, Any]) -> FieldFaults:
    for name, value in given.items():
        if name not in _DST:
            yield f".{name}", unknown_name(name, DstPolicy.__struct_fields__)
        elif value is not None:
            yield from ((f".{name}", message) for _, message in _choice_faults(value, _DST[name]))


# What values of the right type mean.


def _check_cron(expression: str) -> FieldFaults:
    try:
        parse(expression)
    except InvalidSchedule as error:
        yield "", str(error)


def _check_interval(given: int | str) -> FieldFaults:
    try:
        parse_interval(given)
    except ValueError as error:
        yield "", str(error)


def _check_timezone(zone: str) -> FieldFaults:
    try:
        load_zone(zone)
    except InvalidSchedule as error:
        yield "", str(error)


def _check_url(url: str) -> FieldFaults:
    try:
        if variables.OPEN in url:
            variables.compile_url(url)
        else:
            parse_target(url)
    except ValueError as error:
        yield "", str(error)


def _check_headers(headers: dict[str, str]) -> FieldFaults:
    if len(headers) > MOST_HEADERS:
        yield "", f"{len(headers)} headers, but a trigger has at most {MOST_HEADERS}"
        return
    if sum(map(len, headers)) + sum(map(len, headers.values())) > MAX_HEADERS:
        yield "", f"the headers have more than {MAX_HEADERS:,} bytes together"
        return
    for name, value in headers.items():
        if fault := _header_name_fault(name):
            yield f"[{name!r}]", fault
        if not _FIELD_VALUE.match(value):
            message = "a header value holds only printable ASCII, and neither begins nor ends with a space"
            yield f"[{name!r}]", message
        elif variables.OPEN in value:
            yield from _variable_faults(value, f"[{name!r}]")
    if len({name.lower() for name in headers}) < len(headers):
        names: dict[str, str] = {}
        for name in headers:
            if names.setdefault(name.lower(), name) != name:
                yield f"[{name!r}]", f"this is the header {names[name.lower()]!r} again"


@lru_cache(maxsize=1024)  # most triggers share a few
def _header_name_fault(name: str) -> str:
    lower = name.lower()
    if not _TOKEN.match(name):
        return "a header name holds only letters, digits and !#$%&'*+-.^_`|~"
    if lower in _FRAMING:
        return "this header belongs to the connection and can't be set"
    if lower in _OURS or lower.startswith("cronspace-"):
        return "this header is set by Cronspace itself"
    return ""


def _check_payload(payload: msgspec.Raw) -> FieldFaults:
    text = bytes(payload)
    if len(text) > MAX_PAYLOAD and len(stored_payload(payload)) > MAX_PAYLOAD:  # stored without idle space
        yield "", f"the payload has more than {MAX_PAYLOAD:,} bytes"
        return
    if is_deep(text):
        yield "", f"the payload is nested more than {MAX_DEPTH} levels deep"
        return
    try:
        if text.startswith(b'"'):
            msgspec.json.decode(text, type=str).encode()
    except (msgspec.DecodeError, UnicodeEncodeError):
        yield "", "the string has an escape that is no Unicode character"
        return
    if b"{{" in text or b"\\u007" in text:
        yield from _variable_faults(stored_payload(payload).decode(), "")


def is_deep(text: bytes, most: int = MAX_DEPTH) -> bool:
    """Whether JSON text, a good one, has more than so many arrays and objects within one another."""
    if text.count(b"[") + text.count(b"{") <= most:
        return False
    brackets = _STRING.sub(b"", text).translate(None, delete=_NO_BRACKETS)
    for _ in range(most):
        if not brackets:
            break
        brackets = _INNERMOST.sub(b"", brackets)
    return bool(brackets)


def _variable_faults(text: str, below: str) -> FieldFaults:
    try:
        variables.check(text)
    except ValueError as error:
        yield below, str(error)


def _check_retry_on(items: list[int | str]) -> FieldFaults:
    for index, item in enumerate(items):
        if item not in TARGET_KINDS:
            near = nearest(str(item), TARGET_KINDS, cutoff=0.6)
            kinds = f"did you mean {str(near)!r}?" if near else f"nor a failure: {', '.join(TARGET_KINDS)}"
            yield from ((f"[{index}]", f"{message}; {kinds}") for message in _status_faults(item))


def _check_success_codes(items: list[int | str]) -> FieldFaults:
    for index, item in enumerate(items):
        yield from ((f"[{index}]", message) for message in _status_faults(item))


def _status_faults(item: int | str) -> Iterator[str]:
    try:
        parse_statuses(item)
    except ValueError as error:
        yield str(error)


CHECKS: dict[str, Callable[[Any], FieldFaults]] = {
    "cron": _check_cron,
    "interval": _check_interval,
    "timezone": _check_timezone,
    "url": _check_url,
    "headers": _check_headers,
    "payload": _check_payload,
    "retry_on": _check_retry_on,
    "success_codes": _check_success_codes,
}
