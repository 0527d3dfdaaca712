"""Variables in a trigger's URL, headers and payload: ``{{name}}``, or ``{{ name }}``.

======================  ====================================================================
``scheduled_at``        the slot
``previous_at``         the slot of the schedule before it; empty text for the first
``started_at``          when this attempt began, by Redis's clock
``execution.id``        the same in every attempt, as in the header ``webhook-id``
``attempt``             1 for the first
``workspace``           its id
``trigger``             its id
``trigger.name``        its name; empty where it has none
``secret.NAME``         the value of one of the workspace's named secrets
======================  ====================================================================

A time is RFC 3339 in UTC (``2026-09-21T14:14:00.000Z``), or with a suffix:

======================  ==================================  ======================================
``.unix``               seconds since the epoch             ``1790000040``
``.unix_ms``            milliseconds since the epoch        ``1790000040000``
``.date``               the date in UTC                     ``2026-09-21``
``.time``               the time in UTC                     ``14:14:00``
``.compact``            for the names of files, in UTC      ``20260921T141400Z``
``.local``              RFC 3339 in the trigger's zone      ``2026-09-21T16:14:00.000+02:00``
``.local_date``         the date in the trigger's zone      ``2026-09-21``
``.local_time``         the time in the trigger's zone      ``16:14:00``
``.local_compact``      the same for the names of files     ``20260921T161400+0200``
======================  ==================================  ======================================

Four braces ``{{{{`` stand for two literal ones; ``}}`` alone and single braces need nothing. Values are
fitted to their place. In the URL, where variables may stand after the host only, they are percent-encoded.
In a header, what is not printable ASCII, and ``%``, is percent-encoded. In a JSON payload, inside strings
and names, they are escaped as JSON. In a payload that is sent as text they stand as they are.

A secret stands in a header as it is, because nobody would decode a credential; one that is not printable
ASCII can't be sent there. Which secrets there are is known only when a request is sent: here their names are
checked by their form.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from urllib.parse import quote
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Struct

from app.clock import from_ms, rfc3339
from app.errors import nearest
from app.models import Definition
from app.urls import MAX_URL, Origin, parse_target

OPEN, CLOSE, ESCAPED = "{{", "}}", "{{{{"
_ADVICE = "write '{{{{' where '{{' is meant literally"

# Every printable ASCII character but '%', which begins an encoded one.
_HEADER_SAFE = "".join(map(chr, range(0x20, 0x7F))).replace("%", "")

SECRET = "secret."  # what the names of named secrets begin with here
SECRET_PATTERN = r"^[A-Za-z_][A-Za-z0-9_-]{0,63}\Z"
SECRET_RULE = "the name of a secret is 1 to 64 letters, digits, '_' or '-', and begins with a letter or '_'"
_is_secret_name = re.compile(SECRET_PATTERN).match
_printable = re.compile(r"[ -~]*\Z").match


class Unfilled(ValueError):
    """A variable that has no value here, or one that can't stand where it is; nothing can be sent.

    The message says which, and never the value.
    """


class Moment(Struct, frozen=True):
    """What the variables of one attempt are filled from. Times are ms since the epoch."""

    execution: str
    workspace: str
    trigger: str
    attempt: int
    scheduled_at: int
    started_at: int
    previous: Callable[[], int | None]  # the slot before; asked only where it is used
    secrets: Mapping[str, str] = {}


class Named(Struct, frozen=True):
    """What the definition itself gives to its variables."""

    timezone: str
    name: str


Source = Callable[[Moment], str]  # a variable's value
Encode = Callable[[str], bytes]  # fits it to its place
Piece = bytes | tuple[Source, Encode]


class Template(Struct, frozen=True):
    """Text with variables, compiled: what stands between them is ready to be sent."""

    pieces: tuple[Piece, ...]

    def render(self, moment: Moment) -> bytes:
        """Fill the variables in."""
        return b"".join(
            piece if isinstance(piece, bytes) else piece[1](piece[0](moment)) for piece in self.pieces
        )


def join(*parts: Template | bytes) -> Template:
    """One template after the other."""
    pieces: list[Piece] = []
    for part in parts:
        pieces += (part,) if isinstance(part, bytes) else part.pieces
    return Template(tuple(pieces))


def check(text: str) -> None:
    """Raise ``ValueError``, saying what is wrong, unless every variable of a text is known and closed."""
    for _ in _parts(text, _NOBODY):
        pass


def secrets_of(definition: Definition) -> dict[str, list[str]]:
    """The secrets that a definition uses, by their places as faults name them; empty where it uses none.

    Its variables are known to be good.
    """
    texts = {"url": definition.url}
    texts |= {f"headers[{name!r}]": value for name, value in definition.headers.items()}
    if SECRET.encode() in definition.payload:
        texts["payload"] = definition.payload.decode()
    found = {place: secrets_in(text) for place, text in texts.items() if SECRET in text}
    return {place: names for place, names in found.items() if names}


def names_of(definition: Definition) -> set[str]:
    """The names of the secrets that a definition uses."""
    return {name for names in secrets_of(definition).values() for name in names}


def secrets_in(text: str) -> list[str]:
    """The names of the secrets that a text uses."""
    return [part.name for part in _parts(text, _NOBODY) if isinstance(part, _Secret)]


def compile_header(value: str, named: Named) -> Template:
    """The template of a header's value."""
    return Template(
        tuple(
            part.encode() if isinstance(part, str) else (part, _encoder_in_header(part))
            for part in _parts(value, named)
        )
    )


def compile_json(payload: bytes, named: Named) -> Template:
    """The template of a JSON payload. Two braces in a row are inside a string there, always."""
    return _compile(payload.decode(), named, _in_json)


def compile_text(payload: str, named: Named) -> Template:
    """The template of a payload that is sent as text."""
    return _compile(payload, named, str.encode)


def compile_url(url: str, named: Named | None = None) -> tuple[Origin, str, Template]:
    """Origin, Host header and request target; raises ``ValueError`` saying what is wrong.

    The whole URL is quoted as one without variables would be; tokens hold their places meanwhile.
    """
    if len(url) > MAX_URL:
        raise ValueError(f"longer than {MAX_URL} characters")
    token = "v" * (1 + max(map(len, re.findall("v+", url)), default=0))  # stands nowhere in it
    sources: list[Source] = []
    marked = ""
    for part in _parts(url, named or _NOBODY):
        if isinstance(part, str):
            marked += part
        else:
            if not re.match(r"[^:/?#]+://[^/?#]+[/?#]", marked):
                raise ValueError(
                    "variables stand in the path and the query only, not in scheme, host or port"
                )
            marked += f"{token}{len(sources)}{token}"
            sources.append(part)
    origin, host, path = parse_target(marked)
    pieces: list[Piece] = []
    for index, text in enumerate(re.split(rf"{token}(\d+){token}", path)):
        pieces.append((sources[int(text)], _in_url) if index % 2 else text.encode("ascii"))
    return origin, host, Template(tuple(pieces))


def _compile(text: str, named: Named, encode: Encode) -> Template:
    # Literal text is in its place's form already.
    return Template(
        tuple(part.encode() if isinstance(part, str) else (part, encode) for part in _parts(text, named))
    )


def _parts(text: str, named: Named) -> Iterator[str | Source]:
    """Literal text, and the sources of variables."""
    position = 0
    while (begin := text.find(OPEN, position)) >= 0:
        yield text[position:begin]
        if text.startswith(ESCAPED, begin):
            yield OPEN
            position = begin + len(ESCAPED)
            continue
        end = text.find(CLOSE, begin)
        if end < 0:
            raise ValueError(f"'{{{{' is never closed by '}}}}'; {_ADVICE}")
        yield _source(text[begin + len(OPEN) : end].strip(" "), named)
        position = end + len(CLOSE)
    yield text[position:]


def _source(written: str, named: Named) -> Source:
    """What gives a variable's value."""
    if written.startswith(SECRET):
        if not _is_secret_name(written.removeprefix(SECRET)):
            raise ValueError(f"unknown variable {written[:100]!r}: {SECRET_RULE}; {_ADVICE}")
        return _Secret(written.removeprefix(SECRET))
    plain = _PLAIN.get(written)
    if plain is not None:
        return plain
    name, _, suffix = written.partition(".")
    if name in _TIMES and suffix in _FORMATS and written != f"{name}.":
        return partial(_time, _TIMES[name], _FORMATS[suffix], named.timezone)
    if written == "trigger.name":
        return lambda _: named.name
    near = nearest(written, NAMES)
    hint = f"did you mean {near!r}" if near else f"the variables are {', '.join(_SHORT_NAMES)}"
    raise ValueError(f"unknown variable {written[:100]!r}: {hint}; {_ADVICE}")


class _Secret(Struct, frozen=True):
    """Gives the value of a named secret."""

    name: str

    def __call__(self, moment: Moment) -> str:
        value = moment.secrets.get(self.name)
        if value is None:
            raise Unfilled(f"the workspace has no secret {self.name!r}")
        return value


def _time(
    moment_of: Callable[[Moment], int | None], format: Callable[[int, str], str], zone: str, moment: Moment
) -> str:
    ms = moment_of(moment)
    return "" if ms is None else format(ms, zone)


def _local(ms: int, zone: str) -> str:
    return from_ms(ms, ZoneInfo(zone)).isoformat(timespec="milliseconds")


_PLAIN: dict[str, Source] = {
    "execution.id": lambda moment: moment.execution,
    "attempt": lambda moment: str(moment.attempt),
    "workspace": lambda moment: moment.workspace,
    "trigger": lambda moment: moment.trigger,
}

_TIMES: dict[str, Callable[[Moment], int | None]] = {
    "scheduled_at": lambda moment: moment.scheduled_at,
    "previous_at": lambda moment: moment.previous(),
    "started_at": lambda moment: moment.started_at,
}

_FORMATS: dict[str, Callable[[int, str], str]] = {
    "": lambda ms, zone: rfc3339(ms),
    "unix": lambda ms, zone: str(ms // 1000),
    "unix_ms": lambda ms, zone: str(ms),
    "date": lambda ms, zone: f"{from_ms(ms):%Y-%m-%d}",
    "time": lambda ms, zone: f"{from_ms(ms):%H:%M:%S}",
    "compact": lambda ms, zone: f"{from_ms(ms):%Y%m%dT%H%M%SZ}",
    "local": _local,
    "local_date": lambda ms, zone: f"{from_ms(ms, ZoneInfo(zone)):%Y-%m-%d}",
    "local_time": lambda ms, zone: f"{from_ms(ms, ZoneInfo(zone)):%H:%M:%S}",
    "local_compact": lambda ms, zone: f"{from_ms(ms, ZoneInfo(zone)):%Y%m%dT%H%M%S%z}",
}

_NOBODY = Named("UTC", "")
_SHORT_NAMES = (*_TIMES, *_PLAIN, "trigger.name", "secret.NAME")
NAMES = (*_SHORT_NAMES, *(f"{name}.{suffix}" for name in _TIMES for suffix in _FORMATS if suffix))


def _in_url(value: str) -> bytes:
    return quote(value, safe="").encode("ascii")


def _in_header(value: str) -> bytes:
    return quote(value, safe=_HEADER_SAFE).encode("ascii")


def _encoder_in_header(source: Source) -> Encode:
    if not isinstance(source, _Secret):
        return _in_header

    def as_it_is(value: str) -> bytes:
        if not _printable(value):
            raise Unfilled(
                f"the secret {source.name!r} has characters that can't stand in a header: line breaks, or"
                " others than printable ASCII"
            )
        return value.encode("ascii")

    return as_it_is


def _in_json(value: str) -> bytes:
    return msgspec.json.encode(value)[1:-1]
