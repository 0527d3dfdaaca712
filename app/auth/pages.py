"""Calls by web pages, where nobody has to authenticate.

Whoever can reach such an API may do everything, and a browser on this machine can: any page that it shows
may send requests to loopback, and a name that its owner lets point to 127.0.0.1 (DNS rebinding) would even
let the page read the answers. So the Host has to be ours, and what changes something has to come from a page
of ours, or from no page at all: programs send neither ``Sec-Fetch-Site`` nor ``Origin``.

An address as the Host is nobody's name, and passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from urllib.parse import urlsplit

from app.config import Settings
from app.errors import ForeignPage

_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})  # none: a person typed the address


class Pages:
    """Which pages may call."""

    def __init__(self, settings: Settings) -> None:
        given = [one.strip().lower() for one in settings.allowed_hosts.split(",")]
        self._names = {"localhost", settings.host.lower(), *filter(None, given)}

    def check(self, method: str, headers: Mapping[str, str]) -> None:
        """Raise :class:`ForeignPage` for a call that a page of somebody else may have made."""
        host = headers.get("host", "").lower()
        if not self._is_ours(host):
            raise ForeignPage(
                f"The API is not known as {host!r}: call it by its address, as localhost, or by a name in"
                " CRONSPACE_ALLOWED_HOSTS. With CRONSPACE_AUTH=tokens any name will do."
            )
        if method in _SAFE:
            return
        site, origin = headers.get("sec-fetch-site"), headers.get("origin")
        if site not in _OWN_SITES if site else origin and urlsplit(origin.lower()).netloc != host:
            raise ForeignPage(
                "A web page of another site may change nothing here while authentication is off"
                " (CRONSPACE_AUTH=none)."
            )

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if not host or "*" in self._names or name in self._names:
            return True
        try:
            ip_address(name)
        except ValueError:
            return any(name.endswith(own) for own in (".localhost", *self._names) if own.startswith("."))
        return True
