"""httpx's requests and responses over aiohttp's connections: a fifth of the CPU time of httpx's own transport.

What aiohttp does beyond sending is switched off here: cookies (one tenant's would go out with another's
request), decompression (bombs), its own repeat of a request when a kept connection breaks (two requests for
one attempt), redirects, and proxies from the environment.
"""

from __future__ import annotations

import asyncio
import ssl

import aiohttp
import httpx
import yarl
from aiohttp import client_exceptions as failures

from app.models import FailureKind

# Below the 5 s after which common servers close an idle connection, so that we seldom send into a closing one.
_KEEP_ALIVE_SECONDS = 4.0
_SKIPPED_HEADERS = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
_NO_TIMEOUT = aiohttp.ClientTimeout(total=None)


class SendError(httpx.TransportError):
    """A request that got no answer; ``kind`` says how far it came."""

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class AiohttpTransport(httpx.AsyncBaseTransport):
    """Sends a request once. Of the response's body the first ``keep`` bytes are kept, and up to
    ``read_at_most`` are read; a longer one ends with its connection.

    There is no time-out here: bound the whole call (``asyncio.timeout``), because a dripping body outlasts
    every per-read one. A request's extension ``"url"`` may carry its URL already parsed for aiohttp.
    """

    def __init__(self, keep: int, read_at_most: int) -> None:
        self._keep, self._read_at_most = keep, read_at_most
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEEP_ALIVE_SECONDS, ttl_dns_cache=10),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=_NO_TIMEOUT,
            skip_auto_headers=_SKIPPED_HEADERS,
            trust_env=False,
        )
        # There is no public switch; aiohttp's own test client uses this one. A test of ours holds it.
        self._session._retry_connection = False

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send; raises :class:`SendError`."""
        url = request.extensions.get("url") or yarl.URL(str(request.url), encoded=True)
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers.raw]
        try:
            async with self._session.request(
                request.method,
                url,
                headers=headers,
                data=request.content or None,
                allow_redirects=False,
            ) as response:
                content = await self._read(response)
                return httpx.Response(response.status, headers=response.raw_headers, content=content)
        except Exception as error:
            raise _send_error(error) from error

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        kept = b""
        size = 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if len(kept) < self._keep:
                kept += chunk[: self._keep - len(kept)]
            if size > self._read_at_most:
                response.close()
                break
        return kept

    async def aclose(self) -> None:
        """Close every connection."""
        await self._session.close()


def _send_error(error: Exception) -> SendError:
    """aiohttp's and Python's exceptions by what a user wants to know: how far the request came."""
    kind = FailureKind.PROTOCOL
    message = str(error) or type(error).__name__
    match error:
        case failures.ClientConnectorDNSError():
            kind, message = FailureKind.DNS, f"the host {error.host!r} has no address: {error.os_error}"
        case (
            failures.ClientConnectorSSLError()
            | failures.ClientConnectorCertificateError()
            | failures.ClientSSLError()
            | ssl.SSLError()
        ):
            kind = FailureKind.TLS
        case failures.ClientConnectorError():
            kind, message = FailureKind.CONNECT, f"can't connect to {error.host}:{error.port}: {error.strerror}"
        case failures.ServerDisconnectedError():
            message = "the target closed the connection before it answered"
        case failures.InvalidURL() | UnicodeError():
            kind, message = FailureKind.DNS, f"the URL's host can't be used: {error}"
        case asyncio.TimeoutError():
            kind = FailureKind.TIMEOUT
    return SendError(kind, message)
