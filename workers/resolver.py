"""Names to addresses, with c-ares: a name that hangs costs 4 KB, not a thread.

The system's own look-up (getaddrinfo) blocks a thread for up to half a minute and can't be cut off, so that a
few hundred names that hang, of one tenant or many, hold up everybody else's. c-ares asks for all of them over
one socket. It reads /etc/hosts, and resolv.conf with its search domains, also when they change; of
nsswitch.conf it knows `files` and `dns` (not mdns, myhostname, or a directory).
"""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address

import aiodns

from app.egress import Address
from app.models import FailureKind
from workers.failures import SendError

_FRESH_SECONDS, _FAILURE_SECONDS = 10.0, 1.0  # how long an answer is believed
_NAMES = 10_000  # in the cache

# Each try waits twice as long as the one before, beginning with some times what the server usually takes
# (at least 0.25 s): a lost packet costs little, and a name that takes long to find still has seconds.
_TRIES = 5


class Resolver:
    """Looks names up; ``servers`` are name servers (``address:port``) in the place of the system's.

    Made within a running event loop.
    """

    def __init__(self, servers: tuple[str, ...] = ()) -> None:
        self._dns = aiodns.DNSResolver(nameservers=servers or None, tries=_TRIES)
        self._known: dict[str, tuple[float, list[Address] | SendError]] = {}
        self._looking: dict[str, asyncio.Future[list[Address] | SendError]] = {}

    async def look_up(self, host: str) -> list[Address]:
        """A name's addresses, from a cache or asked for once for all who wait; raises :class:`SendError`."""
        known = self._known.get(host)
        if known is not None and known[0] > time.monotonic():
            found = known[1]
        else:
            if host not in self._looking:
                self._looking[host] = asyncio.ensure_future(self._ask(host))
            # Others may wait for the same name: one that gives up leaves the look-up running.
            found = await asyncio.shield(self._looking[host])
        if isinstance(found, SendError):
            raise SendError(found.kind, str(found))
        return found

    async def aclose(self) -> None:
        """Cut off what is being looked up."""
        await self._dns.close()
        await asyncio.gather(*self._looking.values(), return_exceptions=True)

    async def _ask(self, host: str) -> list[Address] | SendError:
        found: list[Address] | SendError
        lasts = _FRESH_SECONDS
        try:
            answer = await self._dns.getaddrinfo(host, type=socket.SOCK_STREAM)
            found = [ip_address(node.addr[0].decode()) for node in answer.nodes]
        except aiodns.error.DNSError as error:
            found = SendError(FailureKind.DNS, f"the host {host!r} has no address: {error.args[1]}")
            lasts = _FAILURE_SECONDS
        finally:
            del self._looking[host]
        if len(self._known) >= _NAMES:
            self._known.clear()
        self._known[host] = time.monotonic() + lasts, found
        return found
