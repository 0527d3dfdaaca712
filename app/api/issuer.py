"""The JWK set of the tokens' issuer, from a file or a URL, read again now and then."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path

import httpx

from app.auth.tokens import Algorithm, KeySet, PublicKey
from app.errors import IssuerUnavailable

log = logging.getLogger(__name__)

_FRESH_SECONDS = 600.0  # after that it is read again: keys that the issuer took back go
_RETRY_SECONDS = 30.0  # no sooner, whatever key ids are made up
_TIMEOUT_SECONDS = 5.0
_MOST_BYTES = 1_048_576


class Issuer:
    """The keys of the issuer. Where they can't be read, those from before go on being used."""

    def __init__(self, source: str, clock: Callable[[], float] = time.monotonic) -> None:
        """``source``: a file, or a URL."""
        self._source = source
        self._clock = clock
        self._keys: KeySet | None = None
        self._tried: float | None = None
        self._read = 0.0
        self._lock = asyncio.Lock()

    async def key(self, algorithm: Algorithm, kid: str | None) -> PublicKey | None:
        """The key of a token, None when the issuer has no such key. Raises :class:`IssuerUnavailable`."""
        key = None if self._keys is None else self._keys.find(algorithm, kid)
        old = self._clock() - self._read >= _FRESH_SECONDS
        if key is not None and not old:
            return key
        async with self._lock:  # whoever comes meanwhile takes what the first one fetched
            if self._tried is None or self._clock() - self._tried >= _RETRY_SECONDS:
                await self._refresh()
        if self._keys is None:
            raise IssuerUnavailable("The keys that tokens are checked with can't be fetched; try again.")
        return self._keys.find(algorithm, kid)

    async def _refresh(self) -> None:
        self._tried = self._clock()
        try:
            self._keys = KeySet.parse(await self._fetch())
            self._read = self._clock()
        except (OSError, ValueError, httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            # Neither the URL nor what httpx says of it: a password may be in it, or a key in its query.
            log.warning("the JWK set (CRONSPACE_JWT_JWKS) can't be read: %s", _reason(error))

    async def _fetch(self) -> bytes:
        if not self._source.startswith(("https://", "http://")):
            return await asyncio.to_thread(Path(self._source).read_bytes)
        found = bytearray()
        async with (
            asyncio.timeout(_TIMEOUT_SECONDS),  # of all: httpx's own is for each read
            httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_SECONDS) as client,
            client.stream("GET", self._source, headers={"accept": "application/json"}) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"it was answered with {response.status_code}")
            async for chunk in response.aiter_bytes():
                found += chunk
                if len(found) > _MOST_BYTES:
                    raise ValueError(f"it has more than {_MOST_BYTES} bytes")
        return bytes(found)


def _reason(error: Exception) -> str:
    """Why reading failed, in one line that repeats no URL."""
    if isinstance(error, httpx.InvalidURL):
        return "it is no URL"
    return str(error).partition("\n")[0] or type(error).__name__
