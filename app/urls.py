"""A target's URL, taken apart once and the same way when it is checked and when it is sent to."""

from __future__ import annotations

import re
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address

Origin = tuple[bool, str, int]  # TLS, host, port

MAX_URL = 8192

# A URL that needs neither a second look nor quoting: it goes out to the letter.
_PLAIN = re.compile(
    r"(?P<scheme>https?)://(?P<host>[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?)(?::(?P<port>[0-9]{1,5}))?"
    r"(?P<rest>[/?][A-Za-z0-9/?&=%+_.~:@!$'()*,;-]*)?\Z"
)
_HOST = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9._-]*[A-Za-z0-9_])?\.?\Z")
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")


def parse_target(url: str) -> tuple[Origin, str, str]:
    """Origin, Host header and request target of a URL; raises ``ValueError`` saying what is wrong.

    An address as the host comes out in its usual form, however it was written (``0x7f.1``, ``[0::1]``).
    """
    if len(url) > MAX_URL:
        raise ValueError(f"longer than {MAX_URL} characters")
    if match := _PLAIN.match(url):
        secure = match["scheme"] == "https"
        host, port, rest = match["host"], match["port"], match["rest"] or "/"
    else:
        secure, host, port, rest = _parse_slowly(url)
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    host = _usual_form(host)
    shown = f"[{host}]" if ":" in host else host
    header = shown if port is None else f"{shown}:{port}"
    path = rest if rest.startswith("/") else f"/{rest}"
    return (secure, host, int(port or (443 if secure else 80))), header, path


def _parse_slowly(url: str) -> tuple[bool, str, str | None, str]:
    if re.search(r"[\x00-\x20\x7f]", url):
        raise ValueError("a URL holds no spaces or control characters: write %20 for a space")
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise ValueError("a URL begins with http:// or https://")
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" in authority:
        raise ValueError("a URL carries no user or password: send them in an Authorization header")
    if not authority or authority.startswith(":"):
        raise ValueError("the URL has no host")
    import httpx  # it takes a while, and few URLs come here

    try:
        parsed = httpx.URL(url)
        host = parsed.raw_host.decode("ascii")
    except Exception as error:  # httpx's own, and those of the IDNA codec behind it
        raise ValueError(f"not a valid URL: {error}") from error
    if ":" in host:
        if "%" in host:
            raise ValueError("an address in a URL has no zone")
        host = str(IPv6Address(host))
    elif not _HOST.match(host):
        raise ValueError(f"{host!r} is not the name of a host")
    return (
        parsed.scheme == "https",
        host,
        None if parsed.port is None else str(parsed.port),
        (parsed.raw_path.decode("ascii")),
    )


@lru_cache(maxsize=4096)
def _usual_form(host: str) -> str:
    if len(host) > 253 or any(not 0 < len(label) < 64 for label in host.rstrip(".").split(".")):
        raise ValueError(f"{host!r} is not the name of a host")
    ends_in_number = host.rstrip(".").rpartition(".")[2][:1].isdigit()
    return _written_out(host) if ends_in_number else host


def _written_out(host: str) -> str:
    """A host whose last label begins with a digit: an IPv4 address in its usual form, or a name as it is.

    As in browsers (WHATWG's URL standard, "ends in a number"): resolvers disagree about ``0177.0.0.1``.
    """
    parts = host.removesuffix(".").split(".")
    if not _NUMBER.fullmatch(parts[-1]):
        return host
    try:
        if len(parts) > 4:
            raise ValueError
        *first, last = map(_number, parts)
        # The last number fills what the others leave; to_bytes raises OverflowError for too large ones.
        return str(IPv4Address(bytes(first) + last.to_bytes(4 - len(first), "big")))
    except (ValueError, OverflowError):
        raise ValueError(f"{host!r} is no IPv4 address, and a name does not end in a number") from None


def _number(text: str) -> int:
    """A part of an IPv4 address: decimal, octal behind 0, hexadecimal behind 0x."""
    if not _NUMBER.fullmatch(text):
        raise ValueError
    if text[:2] in ("0x", "0X"):
        return int(text[2:] or "0", 16)
    return int(text, 8 if text[0] == "0" else 10)
