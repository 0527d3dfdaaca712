"""Reading what a caller sends into Structs: each value by itself, so that every fault is found at once.

Values in a path, a query or a header are strings and are read strictly: a number has digits and nothing
else, a boolean is ``true`` or ``false``, a moment is RFC 3339, a list has commas between its items.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, TypeVar, get_type_hints

import msgspec
from msgspec import inspect

from app.errors import MOST_FAULTS, Fault, InvalidRequest, malformed, unknown_name
from app.formats import in_words

_WHOLE = re.compile(r"-?(0|[1-9][0-9]{0,17})\Z")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]{0,17})(\.[0-9]{1,18})?\Z")
_BOOLEANS = {"true": True, "false": False}
_ITEM = re.compile(r"\[[0-9]+\]\Z")
_PLACE = re.compile(r" - at `\$(.*)`\Z")


_LARGE = 8192  # bytes that are looked at at once: that takes about a millisecond at most

Given = ParamSpec("Given")
Found = TypeVar("Found")


async def aside(
    large: bytes, function: Callable[Given, Found], *args: Given.args, **kwargs: Given.kwargs
) -> Found:
    """What a function returns that looks at ``large``, a body or a payload, or what came of it: in a thread
    where that takes a while, so that others are answered meanwhile.
    """
    if len(large) <= _LARGE:
        return function(*args, **kwargs)
    return await asyncio.to_thread(function, *args, **kwargs)


class _Refused(ValueError):
    """What is wrong with a value, and where in it (``[3].cron``)."""

    def __init__(self, message: str, below: str = "") -> None:
        super().__init__(message)
        self.below = below


class Field:
    """One value with its name in the request; ``text`` says that it comes as a string."""

    def __init__(self, name: str, hint: Any, *, required: bool = True, text: bool = True) -> None:
        self.name = name
        self.required = required
        self.hint = hint
        self._type = inspect.type_info(hint)
        self._text = text

    def read(self, value: Any, faults: list[Fault]) -> Any:
        """The value, or None with one more fault."""
        try:
            if self._text:
                value = _from_text(value, _plain(self._type))
            return self._convert(value)
        except _Refused as refused:
            faults.append(Fault(self.name + refused.below, str(refused)))

    def _convert(self, value: Any) -> Any:
        try:
            return msgspec.convert(value, self.hint)
        except msgspec.ValidationError as error:
            message, below = _said(error)
            raise _Refused(self._rule_of(below) or message, below) from error

    def _rule_of(self, below: str) -> str | None:
        """What the value has to be, or its item at a place below it."""
        if not below:
            return _rule(self._type)
        if _ITEM.match(below) and isinstance(found := _plain(self._type), inspect.ListType):
            return _rule(found.item_type)
        return None


class Fields:
    """The fields of a Struct as they stand in a query, in the headers or in a body."""

    def __init__(self, struct: type[msgspec.Struct], *, text: bool, kebab: bool = False) -> None:
        """``kebab``: ``if_match`` is called ``if-match`` there."""
        if not struct.__struct_config__.forbid_unknown_fields:
            raise TypeError(f"{struct.__name__} has to forbid unknown fields")
        hints = get_type_hints(struct, include_extras=True)
        self.struct = struct
        self._fields: dict[str, tuple[str, Field]] = {}
        for one in msgspec.structs.fields(struct):
            name = one.encode_name.replace("_", "-") if kebab else one.encode_name
            self._fields[name] = one.name, Field(name, hints[one.name], required=one.required, text=text)
        self.names = tuple(self._fields)

    def read(self, given: Iterable[tuple[str, Any]], faults: list[Fault], what: str) -> dict[str, Any]:
        """The values by attribute. ``what`` is the word for one in a fault: parameter, field."""
        values: dict[str, Any] = {}
        seen = set()
        for name, value in given:
            if len(faults) >= MOST_FAULTS:
                return values
            if name not in self._fields:
                faults.append(Fault(name, unknown_name(name, self.names, what)))
            elif name in seen:
                faults.append(Fault(name, f"the {what} is given more than once"))
            else:
                attribute, field = self._fields[name]
                values[attribute] = field.read(value, faults)
            seen.add(name)
        for name, (_, field) in self._fields.items():
            if field.required and name not in seen:
                faults.append(Fault(name, f"required {what} is missing"))
        return values


class Body:
    """A small body that the layer decodes itself."""

    def __init__(self, struct: type[msgspec.Struct]) -> None:
        self._decode = msgspec.json.Decoder(struct).decode
        self._fields = Fields(struct, text=False)

    def read(self, body: bytes) -> Any:
        """The Struct; raises :class:`InvalidRequest` with every fault."""
        try:
            body.decode()
            try:
                return self._decode(body)
            except msgspec.ValidationError as error:
                message, path = _said(error)
                faults = self._slow_faults(msgspec.json.decode(body)) or [
                    Fault(path.removeprefix("."), message)
                ]
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            faults = [malformed(body, error)]
        except RecursionError:
            faults = [Fault("", "nested too deeply")]
        raise InvalidRequest("The body is not valid; nothing was done.", faults)

    def _slow_faults(self, document: Any) -> list[Fault]:
        """Each field by itself: msgspec stops at its first error."""
        faults: list[Fault] = []
        if isinstance(document, dict):
            self._fields.read(document.items(), faults, "field")
        return faults


def _from_text(text: str, wanted: inspect.Type) -> Any:
    """A string as the JSON value that it stands for; raises :class:`_Refused`."""
    match wanted:
        case inspect.StrType() | inspect.DateTimeType():
            return text
        case inspect.IntType() if _WHOLE.match(text):
            return int(text)
        case inspect.FloatType() if _NUMBER.match(text):
            return float(text)
        case inspect.BoolType() if text in _BOOLEANS:
            return _BOOLEANS[text]
        case inspect.EnumType() | inspect.LiteralType():
            values = _choices(wanted)
            if text in values:
                return text
            raise _Refused(f"{text!r} is not one of {', '.join(values)}")
        case inspect.ListType() | inspect.VarTupleType():
            item = _plain(wanted.item_type)
            return [_from_text(part, item) for part in text.split(",")]
    rule = _rule(wanted)
    if rule is None:
        raise TypeError(f"{wanted} can't stand in a path, a query or a header")
    raise _Refused(f"{rule}; got {text!r}")


def _plain(wanted: inspect.Type) -> inspect.Type:
    """A type without its metadata and without null, which no string stands for."""
    while True:
        if isinstance(wanted, inspect.Metadata):
            wanted = wanted.type
        elif isinstance(wanted, inspect.UnionType):
            (wanted,) = (one for one in wanted.types if not isinstance(one, inspect.NoneType))
        else:
            return wanted


def _choices(wanted: inspect.EnumType | inspect.LiteralType) -> tuple[str, ...]:
    """The values of an enumeration."""
    if isinstance(wanted, inspect.EnumType):
        return tuple(str(one.value) for one in wanted.cls)
    return tuple(str(value) for value in wanted.values)


def _rule(wanted: inspect.Type) -> str | None:
    """What a value has to be, in words: a type's own (``Meta(extra={"rule": …})``), or a general one."""
    while isinstance(wanted, inspect.Metadata):
        if wanted.extra and "rule" in wanted.extra:
            return str(wanted.extra["rule"])
        wanted = wanted.type
    match wanted:
        case inspect.UnionType():
            return next((rule for rule in map(_rule, wanted.types) if rule), None)
        case inspect.IntType():
            return f"expected a whole number{_range(wanted)}"
        case inspect.FloatType():
            return f"expected a number{_range(wanted)}"
        case inspect.BoolType():
            return "expected true or false"
        case inspect.EnumType() | inspect.LiteralType():
            return f"expected one of {', '.join(_choices(wanted))}"
        case inspect.DateTimeType():
            return "expected RFC 3339 with an offset, such as 2026-01-31T09:00:00Z; in a query, '+' is %2B"
    return None


def _range(number: inspect.IntType | inspect.FloatType) -> str:
    if number.ge is not None and number.le is not None:
        return f" from {number.ge} to {number.le}"
    bounds = [
        (" of at least", number.ge),
        (" of at most", number.le),
        (" above", number.gt),
        (" below", number.lt),
    ]
    return "".join(f"{word} {bound}" for word, bound in bounds if bound is not None)


def _said(error: msgspec.ValidationError) -> tuple[str, str]:
    """msgspec's message in our form, and the place below the value that it speaks of."""
    text = str(error)
    place = _PLACE.search(text)
    message = in_words(_PLACE.sub("", text)).replace("`", "'")
    return message[:1].lower() + message[1:], place[1] if place else ""
