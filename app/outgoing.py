"""What a workspace's requests go out with, beside what its triggers say: secrets that sign them, named
secrets that stand in them, and where they may go.

It is stored as one value under a version, which is random: equal versions are equal values, whatever was
restored or erased meanwhile, and workers keep what they have loaded by it.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable
from urllib.parse import quote, quote_plus

import msgspec
from msgspec import Struct

from app.declared.masking import MASK
from app.egress import Lists, parse_lists

MOST_SIGNING = 2  # secrets that sign at the same time: the one before, and the one after it
LEAST_VALUE = 4  # characters of a named secret; fewer can't be masked without masking what is none
_NO_CHANCE = 32  # characters


class SigningSecret(Struct, frozen=True, array_like=True):
    """A secret that signs requests. Times are ms since the epoch."""

    id: str
    secret: bytes
    created: int
    expires: int = 0  # 0: never

    def valid(self, now: int) -> bool:
        """Whether it signs at a moment."""
        return not self.expires or now < self.expires


class NamedSecret(Struct, frozen=True, array_like=True):
    """A value that triggers use by its name. Times are ms since the epoch."""

    value: str
    created: int
    changed: int


class OwnEgress(Struct, frozen=True, array_like=True):
    """Where a workspace's requests may go, as an admin gave it; entries as in the deployment's settings."""

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()

    def lists(self) -> Lists:
        """As rules; raises ``ValueError`` for an entry that can't be read."""
        return parse_lists(",".join(self.allow), ",".join(self.deny), ",".join(map(str, self.ports)))


class Outgoing(Struct, frozen=True, omit_defaults=True):
    """All of it, as it is stored."""

    signing: tuple[SigningSecret, ...] = ()
    secrets: dict[str, NamedSecret] = {}
    egress: OwnEgress | None = None


NOTHING = Outgoing()


def unpack_outgoing(packed: bytes) -> Outgoing:
    """The reverse of :func:`pack_outgoing`."""
    return _decode(packed)


def pack_outgoing(outgoing: Outgoing) -> bytes:
    """The bytes to store; none where there is nothing."""
    return b"" if outgoing == NOTHING else _encode(outgoing)


_decode = msgspec.msgpack.Decoder(Outgoing).decode
_encode = msgspec.msgpack.Encoder().encode


class Masker:
    """Puts a mask over secret values in what targets answer, in the forms in which requests carry them."""

    def __init__(self, values: Iterable[str]) -> None:
        forms = {form for value in values for make in _FORMS for form in make(value)}
        self._forms = sorted(forms, key=len, reverse=True)  # the longest first: one may be in another
        self._beginnings = [(form[:LEAST_VALUE], form) for form in self._forms]

    def __call__(self, text: str) -> str:
        """The text with masks; a value that its end cuts off is masked, too."""
        if not text:
            return text
        for form in [form for form in self._forms if form in text]:  # much faster than one expression for all
            text = text.replace(form, MASK)
        whole = text.rstrip("\ufffd")  # half a character
        end = whole[-len(self._forms[0]) :] if self._forms else ""
        begun = [form for beginning, form in self._beginnings if beginning in end]
        cut = min((_cut_off(whole, form) for form in begun), default=len(whole))
        return text if cut == len(whole) else whole[:cut] + MASK


def _cut_off(text: str, form: str) -> int:
    """Where the beginning of a value stands that goes on behind the end of a text, else the text's length.

    So much of a value that it is no chance is not held against all of it: a target that repeats beginnings
    would make that take long.
    """
    start = text.find(form[:_NO_CHANCE], max(0, len(text) - len(form) + 1))
    if start >= 0:
        return start
    for length in range(min(_NO_CHANCE, len(form)) - 1, LEAST_VALUE - 1, -1):
        if text.endswith(form[:length]):
            return len(text) - length
    return len(text)


def _in_urls(value: str) -> list[str]:
    quoted = {quote(value, safe=""), quote(value), quote_plus(value)}
    return [*quoted, *(re.sub("%..", lambda match: match[0].lower(), one) for one in quoted)]


def _in_json(value: str) -> list[str]:
    written = json.dumps(value, ensure_ascii=False)[1:-1], json.dumps(value)[1:-1]
    found = [*written, *(one.replace("/", "\\/") for one in written)]
    for one in written:  # as Go writes it, and .NET, which a page may repeat as it is
        found.append(_CODED_BY_GO.sub(_coded, one))
        found.append(_CODED_BY_DOTNET.sub(lambda match: _coded(match).upper().replace("U", "u"), one))
    return found


# What of written JSON stands by its code; .NET has capitals in codes, and one for a quotation mark.
_CODED_BY_GO = re.compile("[&<>\u2028\u2029]")
_CODED_BY_DOTNET = re.compile(r"""[&<>+'`\x7f]|\\"|\\u[0-9a-f]{4}""")


def _coded(match: re.Match[str]) -> str:
    return match[0] if match[0].startswith("\\u") else f"\\u{ord(match[0][-1]):04x}"


def _in_html(value: str) -> list[str]:
    usual = html.escape(value)
    return [usual, html.escape(value, quote=False), *(usual.replace("&#x27;", one) for one in _APOSTROPHES)]


_APOSTROPHES = ("&#39;", "&#039;", "&apos;", "'")


_FORMS: tuple[Callable[[str], list[str]], ...] = (lambda value: [value], _in_urls, _in_json, _in_html)
