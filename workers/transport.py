"""HTTP/1.1 on asyncio and httptools (llhttp), made for one thing: sending a request exactly once.

httpx and aiohttp cost many times as much CPU (ARCHITECTURE.md has the figures), and do more than is wanted:
cookies (one tenant's would go out with another's request), decompression (bombs), a silent second request
when a kept connection breaks, redirects, proxies from the environment.

Connections go to addresses that the egress policy permits, and to those literally: a name is looked up once,
its addresses are checked, and nobody looks it up again.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from ipaddress import ip_address
from typing import cast

import aiohappyeyeballs
import httptools
from msgspec import Struct

from app.egress import Address, Egress, Refused
from app.errors import ConfigError
from app.models import FailureKind
from app.urls import Origin
from workers.failures import NotSent, SendError
from workers.resolver import Resolver

# Below the 5 s after which common servers close an idle connection: we seldom send into a closing one.
_KEEP_ALIVE_SECONDS = 4.0
_MAX_HEADER_BYTES = 65_536
_EYEBALLS_DELAY = 0.25  # RFC 8305: how long one address gets before the next is tried beside it

ResponseHeaders = Sequence[tuple[bytes, bytes]]  # names and values as they came
# A kept connection serves the policy that its peer was checked by, and the host that was asked for.
Key = tuple[Origin, Egress, str]


class Answer(Struct, frozen=True):
    """A target's answer, with the part of its body that is kept."""

    status: int
    headers: ResponseHeaders
    body: bytes


class Transport:
    """Sends requests over kept connections.

    Of a response's body the first ``keep`` bytes are kept and up to ``read_at_most`` are read; a longer one
    ends with its connection. There is no time-out here: bound the whole call (``asyncio.timeout``), because
    a dripping body outlasts every per-read one. Idle connections are kept for ``places`` requests at once.
    ``tls`` says whom to trust, by default the system's authorities.

    Made within a running event loop.
    """

    def __init__(
        self,
        keep: int,
        read_at_most: int,
        places: int,
        *,
        tls: ssl.SSLContext | None = None,
        resolver: Resolver | None = None,
    ) -> None:
        self._keep, self._read_at_most = keep, read_at_most
        self._idle: dict[Key, deque[_Connection]] = {}
        self._idle_count, self._idle_most = 0, 2 * places
        self._open: set[_Connection] = set()
        self._resolver = resolver or Resolver()
        self._tls = tls
        self._tls_turn = asyncio.Lock()
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(
        self, origin: Origin, request: bytes, may_send: Callable[[], bool], egress: Egress, asked: str = ""
    ) -> Answer:
        """Send a request, as it goes over the wire, once, where ``egress`` permits it, if ``may_send`` still
        says so then.

        ``asked`` is the host that the request names itself, where that is another than the origin's: it has
        to be permitted at the same address. Raises :class:`SendError` and :class:`NotSent`.
        """
        connection = await self._connect((origin, egress, asked))
        try:
            if not may_send():
                raise NotSent
            answer = await connection.exchange(request)
        except BaseException:
            connection.abort()
            raise
        self._release(connection)
        return answer

    async def aclose(self) -> None:
        """Close every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        for connection in list(self._open):
            connection.abort()
        await asyncio.sleep(0)  # the loop closes aborted connections in its next round
        await self._resolver.aclose()

    async def _connect(self, key: Key) -> _Connection:
        idle = self._idle.get(key)
        while idle:
            kept = idle.pop()
            self._idle_count -= 1
            if kept.usable(time.monotonic() - _KEEP_ALIVE_SECONDS):
                return kept
            kept.abort()
        (secure, host, port), egress, asked = key
        try:
            raw = await self._open_socket(host, port, egress, asked)
        except Refused as refusal:
            raise SendError(FailureKind.BLOCKED, str(refusal)) from refusal
        except OSError as error:
            message = f"can't connect to {host}:{port}: {error.strerror or error}"
            raise SendError(FailureKind.CONNECT, message) from error
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(key, self._keep, self._read_at_most, self._open),
                sock=raw,
                ssl=await self._tls_context() if secure else None,
                server_hostname=host if secure else None,
            )
        except (ssl.SSLError, ssl.CertificateError, OSError, EOFError) as error:
            raw.close()
            message = f"no TLS connection to {host}:{port}: {error or type(error).__name__}"
            raise SendError(FailureKind.TLS if secure else FailureKind.CONNECT, message) from error
        except BaseException:
            raw.close()
            raise
        return connection

    async def _open_socket(self, host: str, port: int, egress: Egress, asked: str) -> socket.socket:
        """Connect to a permitted address of a host; raises ``Refused``, ``SendError`` and ``OSError``."""
        for name in filter(None, (host, asked)):
            egress.check(name, port)
        try:
            addresses = [ip_address(host)]
        except ValueError:
            addresses = await self._resolver.look_up(host)
        addresses = egress.permitted(host, addresses)
        if asked:
            addresses = egress.permitted(asked, addresses)
        permitted = [_socket_address(address, port) for address in addresses]
        raw = await aiohappyeyeballs.start_connection(permitted, happy_eyeballs_delay=_EYEBALLS_DELAY)
        try:
            egress.permitted(host, [ip_address(raw.getpeername()[0])])  # what counts, should the rest err
        except BaseException:
            raw.close()
            raise
        return raw

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:
            async with self._tls_turn:  # many may come at once before there is one
                if self._tls is None:  # reading the system's certificates takes a while: not on the loop
                    self._tls = await asyncio.to_thread(tls_context)
        return self._tls

    def _release(self, connection: _Connection) -> None:
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.key, deque()).append(connection)
        self._idle_count += 1
        if self._idle_count > self._idle_most:
            self._drop_idle(next(iter(self._idle)))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE_SECONDS, self._sweep)

    def _drop_idle(self, key: Key) -> None:
        """Close the connection to an origin that has been idle for longest."""
        idle = self._idle[key]
        if idle:
            idle.popleft().abort()
            self._idle_count -= 1
        if not idle:
            del self._idle[key]

    def _sweep(self) -> None:
        """Close what has been idle for too long; what was idle longest stands first."""
        too_old = time.monotonic() - _KEEP_ALIVE_SECONDS
        for key, idle in list(self._idle.items()):
            while idle and not idle[0].usable(too_old):
                self._drop_idle(key)
            if not idle:
                self._idle.pop(key, None)
        self._sweeper = None
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE_SECONDS / 2, self._sweep)


def tls_context(ca_file: str = "") -> ssl.SSLContext:
    """Who is trusted: the authorities in a file, or the system's; raises :class:`ConfigError`."""
    try:
        context = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:  # SSLError is one, too
        reason = error.strerror or error
        raise ConfigError(f"CRONSPACE_EGRESS_CA_FILE: can't use {ca_file!r}: {reason}") from error
    context.set_alpn_protocols(["http/1.1"])
    return context


def _socket_address(address: Address, port: int) -> aiohappyeyeballs.AddrInfoType:
    family, rest = (socket.AF_INET, ()) if address.version == 4 else (socket.AF_INET6, (0, 0))
    return family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (str(address), port, *rest)


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time. httptools calls the ``on_…`` methods."""

    def __init__(self, key: Key, keep: int, read_at_most: int, registry: set[_Connection]) -> None:
        self.key = key
        self.idle_since = 0.0
        self.reusable = False
        self._keep, self._read_at_most = keep, read_at_most
        self._registry = registry
        self._transport: asyncio.Transport | None = None
        self._answer: asyncio.Future[Answer] | None = None
        self._reset()

    async def exchange(self, request: bytes) -> Answer:
        """Send a request and wait for the answer."""
        if self._transport is None:
            raise SendError(
                FailureKind.CONNECT, "the target closed the connection before the request was sent"
            )
        self._reset()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def usable(self, not_before: float) -> bool:
        """Whether it is open, and idle only since ``not_before`` or later."""
        return self._transport is not None and self.idle_since >= not_before

    def abort(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()
            self._transport = None
        self._registry.discard(self)

    def _reset(self) -> None:
        self._parser = httptools.HttpResponseParser(self)
        self._headers: list[tuple[bytes, bytes]] = []
        self._received = 0  # bytes of the whole answer, framing included
        self._kept = b""
        self._size = 0
        self._in_body = False
        self.reusable = False

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._registry.add(self)

    def data_received(self, data: bytes) -> None:
        if self._answer is None or self._answer.done():
            self.reusable = False  # more than was asked for: nothing on this connection can be trusted
            self.abort()
            return
        try:
            self._received += len(data)
            self._parser.feed_data(data)
            if self._in_body:
                # Chunk extensions and trailers are bytes too.
                if self._received > 2 * (_MAX_HEADER_BYTES + self._read_at_most):
                    self._finish(reusable=False)
            elif self._received > _MAX_HEADER_BYTES:
                self._fail(f"the answer's header is larger than {_MAX_HEADER_BYTES} bytes")
        except httptools.HttpParserUpgrade:
            self._finish(reusable=False)
        except httptools.HttpParserError as error:
            self.reusable = False
            self._fail(f"the answer is not HTTP: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._registry.discard(self)
        self.reusable = False
        if self._answer is None or self._answer.done():
            return
        if self._in_body and error is None and self._ends_with_connection():
            self._finish(reusable=False)
        elif self._received:
            self._fail("the target closed the connection in the middle of its answer")
        else:
            self._fail(f"the target closed the connection before it answered{f': {error}' if error else ''}")

    # httptools

    def on_message_begin(self) -> None:
        if self._answer is not None and self._answer.done():
            self.reusable = False  # more than one answer to one request

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_body:  # trailers are of no use here
            self._headers.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_body = self._parser.get_status_code() >= 200

    def on_body(self, body: bytes) -> None:
        self._size += len(body)
        if len(self._kept) < self._keep:
            self._kept += body[: self._keep - len(self._kept)]
        if self._size > self._read_at_most:
            self._finish(reusable=False)

    def on_message_complete(self) -> None:
        if self._in_body:
            self._finish(reusable=self._parser.should_keep_alive())
        else:  # 100 Continue and the like: the answer is still to come
            self._headers = []

    def _ends_with_connection(self) -> bool:
        names = {name.lower() for name, _ in self._headers}
        return not names & {b"content-length", b"transfer-encoding"}

    def _finish(self, reusable: bool) -> None:
        if self._answer is not None and not self._answer.done():
            self.reusable = reusable and self._transport is not None
            self._answer.set_result(Answer(self._parser.get_status_code(), self._headers, self._kept))

    def _fail(self, message: str) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(SendError(FailureKind.PROTOCOL, message))
