"""HTTP/1.1 on asyncio and httptools (llhttp), made for one thing: sending a request exactly once.

httpx and aiohttp cost many times as much CPU (ARCHITECTURE.md has the figures), and do more than is wanted:
cookies (one tenant's would go out with another's request), decompression (bombs), a silent second request
when a kept connection breaks, redirects, proxies from the environment.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from ipaddress import ip_address
from typing import Any, cast

import aiohappyeyeballs
import httptools
from msgspec import Struct

from app.errors import CronspaceError
from app.models import FailureKind
from app.urls import Origin

# Below the 5 s after which common servers close an idle connection: we seldom send into a closing one.
_KEEP_ALIVE_SECONDS = 4.0
_DNS_SECONDS, _DNS_FAILURE_SECONDS = 10.0, 1.0  # how long an answer is believed
_DNS_NAMES = 10_000  # in the cache
_MAX_HEADER_BYTES = 65_536
_EYEBALLS_DELAY = 0.25  # RFC 8305: how long one address gets before the next is tried beside it

ResponseHeaders = Sequence[tuple[bytes, bytes]]  # names and values as they came
AddrInfo = tuple[int, int, int, str, tuple[Any, ...]]


class SendError(CronspaceError):
    """A request that got no answer; ``kind`` says how far it came.

    ``dns`` and ``connect`` mean that nothing of the request was sent.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotSent(CronspaceError):
    """The caller's leave to send was gone when the connection was there; nothing was sent."""


class Answer(Struct, frozen=True):
    """A target's answer, with the part of its body that is kept."""

    status: int
    headers: ResponseHeaders
    body: bytes


class Transport:
    """Sends requests over kept connections.

    Of a response's body the first ``keep`` bytes are kept and up to ``read_at_most`` are read; a longer one
    ends with its connection. There is no time-out here: bound the whole call (``asyncio.timeout``), because
    a dripping body outlasts every per-read one. At most ``places`` names are looked up at once, so that names
    that hang hold up nobody else's.
    """

    def __init__(self, keep: int, read_at_most: int, places: int) -> None:
        self._keep, self._read_at_most = keep, read_at_most
        self._idle: dict[Origin, deque[_Connection]] = {}
        self._idle_count, self._idle_most = 0, 2 * places
        self._open: set[_Connection] = set()
        self._resolver = ThreadPoolExecutor(max_workers=places, thread_name_prefix="resolver")
        self._addresses: dict[str, tuple[float, list[AddrInfo] | SendError]] = {}
        self._looking: dict[str, asyncio.Future[list[AddrInfo] | SendError]] = {}
        self._tls: ssl.SSLContext | None = None
        self._sweeper: asyncio.TimerHandle | None = None

    async def send(self, origin: Origin, request: bytes, may_send: Callable[[], bool]) -> Answer:
        """Send a request, as it goes over the wire, once, if ``may_send`` still says so then.

        Raises :class:`SendError` and :class:`NotSent`.
        """
        connection = await self._connect(origin)
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
        self._resolver.shutdown(wait=False, cancel_futures=True)

    async def _connect(self, origin: Origin) -> _Connection:
        idle = self._idle.get(origin)
        while idle:
            kept = idle.pop()
            self._idle_count -= 1
            if kept.usable(time.monotonic() - _KEEP_ALIVE_SECONDS):
                return kept
            kept.abort()
        secure, host, port = origin
        addresses = await self._resolve(host, port)
        try:
            raw = await aiohappyeyeballs.start_connection(addresses, happy_eyeballs_delay=_EYEBALLS_DELAY)
        except OSError as error:
            message = f"can't connect to {host}:{port}: {error.strerror or error}"
            raise SendError(FailureKind.CONNECT, message) from error
        try:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _, connection = await asyncio.get_running_loop().create_connection(
                lambda: _Connection(origin, self._keep, self._read_at_most, self._open),
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

    async def _resolve(self, host: str, port: int) -> list[AddrInfo]:
        try:
            address = ip_address(host)
        except ValueError:
            return [(*info[:4], (info[4][0], port, *info[4][2:])) for info in await self._look_up(host)]
        family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
        return [(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (host, port))]

    async def _look_up(self, host: str) -> list[AddrInfo]:
        """A name's addresses, or why there are none, from a cache; one look-up at a time for each name."""
        known = self._addresses.get(host)
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

    async def _ask(self, host: str) -> list[AddrInfo] | SendError:
        look_up = partial(socket.getaddrinfo, host, 0, type=socket.SOCK_STREAM)
        found: list[AddrInfo] | SendError
        lasts = _DNS_SECONDS
        try:
            found = list(await asyncio.get_running_loop().run_in_executor(self._resolver, look_up))
        except (OSError, UnicodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            found = SendError(FailureKind.DNS, f"the host {host!r} has no address: {reason}")
            lasts = _DNS_FAILURE_SECONDS
        finally:
            del self._looking[host]
        if len(self._addresses) >= _DNS_NAMES:
            self._addresses.clear()
        self._addresses[host] = time.monotonic() + lasts, found
        return found

    async def _tls_context(self) -> ssl.SSLContext:
        if self._tls is None:  # reading the system's certificates takes a while: not on the loop
            context = await asyncio.to_thread(ssl.create_default_context)
            context.set_alpn_protocols(["http/1.1"])
            self._tls = self._tls or context
        return self._tls

    def _release(self, connection: _Connection) -> None:
        if not connection.reusable:
            connection.abort()
            return
        connection.idle_since = time.monotonic()
        self._idle.setdefault(connection.origin, deque()).append(connection)
        self._idle_count += 1
        if self._idle_count > self._idle_most:
            self._drop_idle(next(iter(self._idle)))
        if self._sweeper is None:
            self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE_SECONDS, self._sweep)

    def _drop_idle(self, origin: Origin) -> None:
        """Close the connection to an origin that has been idle for longest."""
        idle = self._idle[origin]
        if idle:
            idle.popleft().abort()
            self._idle_count -= 1
        if not idle:
            del self._idle[origin]

    def _sweep(self) -> None:
        """Close what has been idle for too long; what was idle longest stands first."""
        too_old = time.monotonic() - _KEEP_ALIVE_SECONDS
        for origin, idle in list(self._idle.items()):
            while idle and not idle[0].usable(too_old):
                self._drop_idle(origin)
            if not idle:
                self._idle.pop(origin, None)
        self._sweeper = None
        if self._idle:
            self._sweeper = asyncio.get_running_loop().call_later(_KEEP_ALIVE_SECONDS / 2, self._sweep)


class _Connection(asyncio.Protocol):
    """One connection: one exchange at a time. httptools calls the ``on_…`` methods."""

    def __init__(self, origin: Origin, keep: int, read_at_most: int, registry: set[_Connection]) -> None:
        self.origin = origin
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
