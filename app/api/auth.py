"""Who calls, and whether they may: the gate that every operation's request goes through.

In this order: who it is (401), whether the workspace is one that they may know of (404), whether they call
too often (429), whether their scope suffices (403). Nothing tells a foreign workspace from one that does not
exist: either is 404 before anything is looked up.
"""

from __future__ import annotations

import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

from redis.exceptions import RedisError
from starlette.requests import Request

from app.api.issuer import Issuer
from app.api.limits import Limiter
from app.auth import keys
from app.auth.addresses import client_address, parse_networks
from app.auth.callers import ADMIN, ANYBODY, Caller, Scope
from app.auth.pages import Pages
from app.auth.tokens import TokenReader
from app.config import Settings
from app.errors import ApiError, Forbidden, ForeignPage, NotFound, Unauthorized
from app.store import Shard, api_keys

log = logging.getLogger(__name__)

_MOST_KNOWN = 10_000  # keys held in memory
_USE_NOTED_MS = 60_000  # how often a key's last use is written


@dataclass(slots=True)
class _Known:
    """A key as it was read."""

    key: keys.ApiKey
    read: float  # by the monotonic clock, seconds
    at: int  # by Redis's clock, ms: the same moment
    used: int  # when its use was last noted, ms


class KeyRing:
    """API keys, each kept in memory for a few seconds, so that not every call asks Redis."""

    def __init__(self, shard: Shard, clock: Callable[[], float] = time.monotonic) -> None:
        self._shard = shard
        self._clock = clock
        self._known: dict[str, _Known] = {}

    async def caller(self, id_: str, secret: str) -> Caller | None:
        """Who calls with a key; None when there is no such key, or it has expired."""
        known = self._known.get(id_)
        if known is None or self._clock() - known.read >= self._shard.settings.key_cache_seconds:
            known = await self._read(id_)
        if known is None or not keys.same_secret(secret, known.key.digest):
            return None
        now = known.at + round((self._clock() - known.read) * 1000)
        if known.key.expires and now >= known.key.expires:
            return None
        if now - known.used >= _USE_NOTED_MS:
            known.used = now
            await self._note_use(id_)
        return known.key.caller()

    def forget(self, id_: str) -> None:
        """A key was deleted."""
        self._known.pop(id_, None)

    async def _read(self, id_: str) -> _Known | None:
        self.forget(id_)
        found = await api_keys.find(self._shard, id_)
        if found is None:
            return None
        key, used = found
        if len(self._known) >= _MOST_KNOWN:
            self.forget(next(iter(self._known)))  # the one that was read longest ago
        known = self._known[id_] = _Known(key, self._clock(), await self._shard.now_ms(), used)
        return known

    async def _note_use(self, id_: str) -> None:
        try:
            await api_keys.note_use(self._shard, id_)
        except (RedisError, OSError) as error:  # no reason to refuse the call
            log.warning("the use of API key %s could not be noted: %s", id_, error)


class Gate:
    """What a call has to pass."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        self.key_ring = KeyRing(shard)
        self._limiter = Limiter(settings, shard)
        self._auth = settings.auth or "none"
        self._admin_digest = keys.digest_of(settings.admin_key) if settings.admin_key else None
        self._tokens = TokenReader(settings)
        self._issuer = Issuer(settings.jwt_jwks)
        self._pages = Pages(settings)
        self._proxies = parse_networks(settings.trusted_proxies)

    async def admit(self, request: Request, scope: Scope, headers: dict[str, str]) -> Caller:
        """Who calls, if they may; what the answer's headers say of rate limits is added to ``headers``.

        Raises :class:`Unauthorized`, :class:`ForeignPage`, :class:`NotFound`, :class:`TooManyRequests`,
        :class:`Forbidden`, and what Redis or the issuer of tokens raise.
        """
        try:
            caller = await self.identify(request)
        except (Unauthorized, ForeignPage) as error:
            self._log_refusal(request, None, error)
            raise
        workspace = request.path_params.get("workspace_id")
        if workspace is not None and not caller.sees(workspace):
            raise NotFound(f"There is no workspace {workspace!r}.")
        if self._limiter.limits:
            headers |= await self._limiter.take(caller, self.address_of(request), workspace)
        try:
            caller.need(scope)
        except Forbidden as error:
            self._log_refusal(request, caller, error)
            raise
        return caller

    async def identify(self, request: Request) -> Caller:
        """Who calls; raises :class:`Unauthorized`, and :class:`ForeignPage` where nobody is asked."""
        if self._auth == "none":
            self._pages.check(request.method, request.headers)
            return ANYBODY
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        token = token.strip()
        if scheme.lower() != "bearer" or not token:
            raise Unauthorized("This needs the header `Authorization: Bearer …`.", given=bool(scheme))
        if self._admin_digest is not None and hmac.compare_digest(keys.digest_of(token), self._admin_digest):
            return ADMIN
        if self._auth == "tokens" or token.startswith(keys.PREFIX):
            return await self._with_key(token)
        algorithm, kid = self._tokens.wanted(token)
        key = None if algorithm == "HS256" else await self._issuer.key(algorithm, kid)
        return self._tokens.read(token, algorithm, key)

    def address_of(self, request: Request) -> str:
        """Where a call comes from; empty where that can't be said."""
        peer = request.client.host if request.client else ""
        return client_address(peer, request.headers.getlist("x-forwarded-for"), self._proxies)

    def _log_refusal(self, request: Request, caller: Caller | None, error: ApiError) -> None:
        who = "somebody" if caller is None else f"{caller.kind} {caller.id!r}"
        where = self.address_of(request)
        log.warning("%s %s: refused %s from %s: %s", request.method, request.url.path, who, where, error)

    async def _with_key(self, text: str) -> Caller:
        parts = keys.split_key(text)
        caller = None if parts is None else await self.key_ring.caller(*parts)
        if caller is None:
            raise Unauthorized("There is no such API key, or it has expired.", given=True)
        return caller
