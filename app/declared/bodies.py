"""Whole bodies: a set of triggers, one trigger, a patch of one.

A good body takes one fast pass. Only a bad one takes the second, which looks at each field by itself,
because msgspec stops at its first error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sized
from itertools import islice
from operator import attrgetter
from typing import Any, TypeVar

import msgspec
from msgspec import UNSET, Raw

from app.config import Settings
from app.declared.checks import CHECKS, REQUIRED, TYPES, is_deep, kind, type_faults
from app.declared.fields import MAX_DEPTH, MAX_PAYLOAD, DstPolicy
from app.declared.inputs import PRODUCT_DEFAULTS, Defaults, ReplaceInput, TriggerInput, shown
from app.declared.masking import NOTHING_STORED, View, unmask
from app.declared.rules import OWNERS, SCHEDULES, rule_faults
from app.errors import MOST_FAULTS, Fault, InvalidRequest, malformed, unknown_name
from app.models import Definition

T = TypeVar("T")

_decode_set = msgspec.json.Decoder(ReplaceInput).decode
_decode_trigger = msgspec.json.Decoder(TriggerInput).decode
_checked = attrgetter(*CHECKS)
_members = msgspec.json.Decoder(dict[str, Raw]).decode
_MAX_PATCH = 2 * MAX_PAYLOAD  # bytes: more than all that a trigger may hold


def parse_replace(
    body: bytes, settings: Settings, defaults: Defaults = PRODUCT_DEFAULTS
) -> list[TriggerInput]:
    """The triggers of a replace's body; raises :class:`InvalidRequest` with every fault."""

    def faults(given: ReplaceInput) -> Iterator[Fault]:
        if fault := _size_fault(given.triggers, settings):
            yield fault
            return
        yield from _id_faults([trigger.id for trigger in given.triggers])
        for index, trigger in enumerate(given.triggers):
            for path, message in _value_faults(trigger, defaults):
                yield Fault(f"triggers[{index}].{path}", message)

    return _parse(
        body, _decode_set, faults, lambda document: _slow_set(document, settings, defaults)
    ).triggers


def parse_trigger(body: bytes, defaults: Defaults = PRODUCT_DEFAULTS) -> TriggerInput:
    """The one trigger of a body; raises :class:`InvalidRequest` with every fault."""
    return _parse(
        body,
        _decode_trigger,
        lambda trigger: [Fault(path, message) for path, message in _value_faults(trigger, defaults)],
        lambda document: _slow_trigger("", document, defaults),
    )


def parse_patch(
    body: bytes,
    current: Definition,
    defaults: Defaults = PRODUCT_DEFAULTS,
    id: str | None = None,
) -> Definition:
    """A definition after a JSON merge patch (RFC 7396); raises :class:`InvalidRequest` with every fault.

    The patch applies to the fields as :func:`app.declared.inputs.shown` shows them; headers and an object as
    payload are merged. Two things are done for people: a patch that names another of ``cron``, ``interval``
    and ``at`` replaces the one that was there, and fields that only meant something beside what the patch
    changes go with it. With ``id``, the trigger's own, the patch may carry it.
    """
    before = msgspec.json.encode(shown(current, View.ALL))
    merged = _parse(body, lambda text: _members(_merge(before, text)), _no_faults, _no_object)
    own = merged.pop("id", b"null")
    trigger = parse_trigger(msgspec.json.encode(merged), defaults)
    if bytes(own) not in (b"null", msgspec.json.encode(id)):
        raise _refused([Fault("id", "a trigger keeps its id: create another one, and delete this")])
    definition, strange = unmask(trigger.to_definition(defaults), current)
    if strange:
        raise _refused([Fault(path, NOTHING_STORED) for path in strange])
    return definition


def payload_faults(payload: Raw) -> list[Fault]:
    """What is wrong with a payload that is sent in the place of a trigger's own."""
    return [Fault(f"payload{below}", message) for below, message in CHECKS["payload"](payload)]


def _parse(
    body: bytes,
    decode: Callable[[bytes], T],
    faults_of: Callable[[T], Iterable[Fault]],
    faults_in: Callable[[Any], Iterable[Fault]],
) -> T:
    """Decode a body; ``faults_of`` looks at what has the right shape, ``faults_in`` at other JSON."""
    try:
        body.decode()
        try:
            found = decode(body)
        except msgspec.ValidationError as error:
            # The second pass sees the last of two equal names, the first pass all.
            found_in = islice(faults_in(msgspec.json.decode(body)), MOST_FAULTS)
            faults = sorted(set(found_in)) or [Fault("", str(error))]
        else:
            faults = list(islice(faults_of(found), MOST_FAULTS))
            if not faults:
                return found
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidRequest("The body is not valid JSON.", [malformed(body, error)]) from error
    except RecursionError as error:
        raise _too_deep() from error
    raise _refused(faults)


def _too_deep() -> InvalidRequest:
    return InvalidRequest("The body is nested too deeply.", [Fault("", "nested too deeply")])


def _refused(faults: list[Fault]) -> InvalidRequest:
    count = f"{len(faults)} faults" if len(faults) > 1 else "one fault"
    if len(faults) >= MOST_FAULTS:
        count += " or more"
    return InvalidRequest(f"The body has {count}; nothing was stored.", faults)


def _value_faults(trigger: TriggerInput, defaults: Defaults) -> Iterator[tuple[str, str]]:
    """Faults of a trigger whose fields all have the right types, as (path, message)."""
    for (name, check), value in zip(CHECKS.items(), _checked(trigger), strict=True):
        if value is not None and value is not UNSET:
            for below, message in check(value):
                yield name + below, message
    yield from rule_faults(trigger, defaults)


def _slow_set(document: Any, settings: Settings, defaults: Defaults) -> Iterator[Fault]:
    """Every fault of a body that is JSON, but not of the right shape."""
    if not isinstance(document, dict):
        yield Fault("", f"expected an object with 'triggers', got {kind(document)}")
        return
    for name in document:
        if name != "triggers":
            yield Fault(name, unknown_name(name, ["triggers"]))
    if "triggers" not in document:
        yield Fault("triggers", "required field is missing")
        return
    triggers = document["triggers"]
    if not isinstance(triggers, list):
        yield Fault("triggers", f"expected an array, got {kind(triggers)}")
        return
    if fault := _size_fault(triggers, settings):
        yield fault
        return
    ids = [t.get("id") if isinstance(t, dict) else None for t in triggers]
    yield from _id_faults([i if isinstance(i, str) else None for i in ids])
    for index, trigger in enumerate(triggers):
        yield from _slow_trigger(f"triggers[{index}]", trigger, defaults)


def _slow_trigger(place: str, document: Any, defaults: Defaults) -> Iterator[Fault]:
    if not isinstance(document, dict):
        yield Fault(place, f"expected an object, got {kind(document)}")
        return
    prefix = f"{place}." if place else ""
    for name in REQUIRED:
        if name not in document:
            yield Fault(f"{prefix}{name}", "required field is missing")
    good: dict[str, Any] = {"url": "", "method": "GET"}
    bad = set()
    for name, value in document.items():
        if name not in TYPES:
            yield Fault(f"{prefix}{name}", unknown_name(name, tuple(TYPES)))
            continue
        faults = list(islice(type_faults(name, value), MOST_FAULTS))
        if faults:
            bad.add(name)
        if name == "headers" and isinstance(value, dict):  # the good ones among bad ones are checked, too
            value = {key: part for key, part in value.items() if isinstance(part, str)}
            faults += CHECKS[name](value)
        elif value is not None and not faults:
            good[name] = value = _typed(name, value)
            faults += CHECKS[name](value) if name in CHECKS else ()
        for below, message in faults:
            yield Fault(f"{prefix}{name}{below}", message)
    for path, message in rule_faults(TriggerInput(**good), defaults, bad):
        yield Fault(f"{prefix}{path}", message)


def _typed(name: str, value: Any) -> Any:
    """A field's value, of the right type already, as :class:`TriggerInput` holds it."""
    if name == "payload":
        return Raw(msgspec.json.encode(value))
    return DstPolicy(**value) if name == "dst_policy" else value


def _size_fault(triggers: Sized, settings: Settings) -> Fault | None:
    """The one fault of a set that is too large: nobody looks at its triggers."""
    if len(triggers) <= settings.max_triggers:
        return None
    limit = f"at most {settings.max_triggers} (CRONSPACE_MAX_TRIGGERS)"
    return Fault("triggers", f"{len(triggers)} triggers, but a set holds {limit}")


def _id_faults(ids: list[str | None]) -> Iterator[Fault]:
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


def _no_faults(_: Any) -> Iterable[Fault]:
    return ()


def _no_object(document: Any) -> Iterable[Fault]:
    return [Fault("", f"expected an object, got {kind(document)}")]


def _merge(before: bytes, patch: bytes) -> bytes:
    """A patch merged into fields, and rid of what the patch leaves without a meaning."""
    given = _members(patch)
    patch = msgspec.json.format(patch, indent=-1)
    if len(patch) > _MAX_PATCH:
        raise _refused([Fault("", f"a patch has at most {_MAX_PATCH:,} bytes")])
    if is_deep(patch, MAX_DEPTH + 1):
        raise _too_deep()
    merged = _members(_merge_patch(before, patch))
    named = [name for name in SCHEDULES if name in merged and name in given]
    if len(named) == 1:
        for name in SCHEDULES:
            if name not in given:
                merged.pop(name, None)
    for name, owners in OWNERS.items():
        if name not in given and not any(_matters(name, merged.get(owner)) for owner in owners):
            merged.pop(name, None)
    return msgspec.json.encode(merged)


def _matters(name: str, value: Raw | None) -> bool:
    text = b"null" if value is None else bytes(value)
    return text == b'"queue"' if name == "queue_limit" else text not in (b"null", b"false")


def _merge_patch(target: bytes, patch: bytes) -> bytes:
    """RFC 7396, on JSON text: what the patch does not touch stays to the letter."""
    if not patch.startswith(b"{"):
        return patch
    members = _members(target) if target.startswith(b"{") else {}
    for name, part in _members(patch).items():
        if bytes(part) == b"null":
            members.pop(name, None)
        else:
            members[name] = Raw(_merge_patch(bytes(members.get(name, b"")), bytes(part)))
    return msgspec.json.encode(members)
