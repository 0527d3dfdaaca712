"""What is secret is not shown: a mask stands for it, and sent back it stands for what is stored.

How much is masked depends on who looks (:class:`View`). Whoever may not change a trigger sees what it is made
of (the names of headers, of parameters and of a payload's members), but none of the values that could be a
secret; whoever may sees all but what looks like a credential, and that too where they ask for it.

A value that consists of variables only is shown always: it says where a value comes from, not what it is.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from enum import Enum
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Raw, structs

from app.errors import MOST_FAULTS
from app.models import Definition

MASK = "********"
NOTHING_STORED = "a masked value stands for a stored one, and here none is stored"
_MASK_JSON = b'"********"'


class View(Enum):
    """How much of a definition's values is shown."""

    STRUCTURE = 1  # to those who may look only
    USUAL = 2  # to those who may change it
    ALL = 3  # to those when they ask for it


# Names of headers and parameters whose values are credentials by all likelihood.
_SECRET_NAME = re.compile(
    r"auth(?!ors?$)|cookie|token|secret|passw|pwd|signature|credential|session|jwt|api-?_?key|[-_]key$|^key$|^sig$|^code$",
    re.I,
)
# Headers whose values say nothing that is secret.
_HARMLESS = frozenset(
    {"accept", "accept-encoding", "accept-language", "cache-control", "content-type", "host", "user-agent"}
)
_URL = re.compile(r"([^:/?#]+://[^/?#]*)([^?#]*)(\?[^#]*)?(#.*)?\Z", re.S)
_VARIABLES = re.compile(r"(?:\{\{[^{}]*\}\})+\Z")
_LONGEST_STEP = 100  # characters of a name that a path repeats, for each value that is in it
_LONG_SEGMENT = 16  # characters: a key in a path, as Slack's and Discord's webhooks have it, is longer

_NOTHING = Definition(url="", method="GET")

_members = msgspec.json.Decoder(dict[str, Raw]).decode
_items = msgspec.json.Decoder(list[Raw]).decode


def mask_headers(headers: Mapping[str, str], view: View = View.USUAL) -> dict[str, str]:
    """The headers as answers show them."""
    return {
        name: _hidden(value) if _is_hidden_header(name, view) else value for name, value in headers.items()
    }


def mask_url(url: str, view: View = View.USUAL) -> str:
    """The URL as answers show it: scheme, host and path, without values of its query."""
    if view is View.ALL:
        return url
    parts = _URL.match(url)
    if parts is None:
        return MASK
    origin, path, query, fragment = parts.groups("")
    if view is View.STRUCTURE:
        path = "/".join(MASK if _looks_random(one) else one for one in path.split("/"))
        fragment = fragment and f"#{_hidden(fragment[1:])}"
    if query:
        query = "?" + "&".join(_masked_parameter(one, view) for one in query[1:].split("&"))
    return f"{origin}{path}{query}{fragment}"


def mask_payload(payload: bytes, view: View = View.USUAL) -> bytes:
    """The JSON text of a payload as answers show it: objects and arrays without what is in them."""
    if view is not View.STRUCTURE or not payload:
        return payload
    try:
        return msgspec.json.encode(_masked_value(msgspec.json.decode(payload)))
    except (msgspec.DecodeError, RecursionError):
        return _MASK_JSON


def mask_text(text: str, view: View = View.USUAL) -> str:
    """A text of unknown content, such as what a target answered."""
    return _hidden(text) if view is View.STRUCTURE else text


def has_masks(definition: Definition) -> bool:
    """Whether a mask stands anywhere in a definition."""
    return MASK in definition.url or _MASK_JSON in definition.payload or MASK in definition.headers.values()


def unmask(definition: Definition, stored: Definition | None) -> tuple[Definition, list[str]]:
    """The definition with stored values in the place of masks, and where masks stand for nothing."""
    known = stored or _NOTHING
    headers = {
        name: known.headers.get(name, value) if value == MASK else value
        for name, value in definition.headers.items()
    }
    strange = [f"headers[{name!r}]" for name, value in headers.items() if value == MASK]
    url = _unmasked_url(definition.url, known.url)
    if MASK in url and url != known.url:
        strange.append("url")
    payload = _unmasked_json(definition.payload, known.payload, "payload", strange)
    return structs.replace(definition, headers=headers, url=url, payload=payload), strange


def _hidden(value: str) -> str:
    return MASK if value and not _VARIABLES.match(value) else value


def _is_hidden_header(name: str, view: View) -> bool:
    if view is View.STRUCTURE:
        return name.lower() not in _HARMLESS
    return view is View.USUAL and _is_secret(name)


@lru_cache(maxsize=1024)  # most triggers share a few
def _is_secret(name: str) -> bool:
    return _SECRET_NAME.search(name) is not None


def _masked_parameter(parameter: str, view: View) -> str:
    name, equals, value = parameter.partition("=")
    if not equals:
        return _hidden(name) if view is View.STRUCTURE else name
    return f"{name}={_hidden(value)}" if view is View.STRUCTURE or _is_secret(name) else parameter


def _looks_random(segment: str) -> bool:
    """Whether a part of a path is rather a key than a word: long, with digits or both cases in it."""
    if len(segment) < _LONG_SEGMENT or _VARIABLES.match(segment):
        return False
    return any(map(str.isdigit, segment)) or not (segment.islower() or segment.isupper())


def _masked_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _masked_value(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_masked_value(one) for one in value]
    if isinstance(value, str):
        return _hidden(value)
    return None if value is None else MASK


def _unmasked_url(url: str, stored: str) -> str:
    """Parts of the path are found again by their place, parameters by their name."""
    given, known = _URL.match(url), _URL.match(stored)
    if MASK not in url or given is None or known is None:
        return url
    origin, path, query, fragment = given.groups("")
    _, known_path, known_query, known_fragment = known.groups("")
    segments, known_segments = path.split("/"), known_path.split("/")
    path = "/".join(
        known_segments[place] if one == MASK and place < len(known_segments) else one
        for place, one in enumerate(segments)
    )
    values: dict[str, Iterator[str]] = {name: iter(found) for name, found in _parameters(known_query).items()}
    parameters = []
    for parameter in query[1:].split("&"):
        name, equals, value = parameter.partition("=")
        own = values.get(name if equals else "")
        before = next(own, MASK) if own is not None else MASK
        if equals:
            parameters.append(f"{name}={before if value == MASK else value}")
        else:
            parameters.append(before if name == MASK else name)
    query = query and "?" + "&".join(parameters)
    fragment = known_fragment if fragment == f"#{MASK}" and known_fragment else fragment
    return f"{origin}{path}{query}{fragment}"


def _parameters(query: str) -> dict[str, list[str]]:
    """Values by name, in their order; what has no name comes under an empty one."""
    found = defaultdict(list)
    for parameter in query[1:].split("&"):
        name, equals, value = parameter.partition("=")
        found[name if equals else ""].append(value if equals else name)
    return found


def _unmasked_json(text: bytes, stored: bytes, place: str, strange: list[str]) -> bytes:
    """JSON text with stored values in the place of masks, which are found again by where they stand."""
    if _MASK_JSON not in text:
        return text
    if text == _MASK_JSON:
        if not stored and len(strange) < MOST_FAULTS:
            strange.append(place)
        return stored or text
    if text.startswith(b"{"):
        known = _members(stored) if stored.startswith(b"{") else {}
        members = {
            name: Raw(
                _unmasked_json(
                    bytes(one), bytes(known.get(name, b"")), f"{place}.{name[:_LONGEST_STEP]}", strange
                )
            )
            for name, one in _members(text).items()
        }
        return msgspec.json.encode(members)
    if text.startswith(b"["):
        old = _items(stored) if stored.startswith(b"[") else []
        items = [
            Raw(
                _unmasked_json(
                    bytes(one), bytes(old[index]) if index < len(old) else b"", f"{place}[{index}]", strange
                )
            )
            for index, one in enumerate(_items(text))
        ]
        return msgspec.json.encode(items)
    return text
