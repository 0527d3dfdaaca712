"""Rate limits: per caller and per workspace, told as draft-ietf-httpapi-ratelimit-headers-10 says."""

from __future__ import annotations

import logging
import math
import time

from redis.exceptions import RedisError

from app.auth.callers import Caller
from app.config import Settings
from app.errors import TooManyRequests
from app.store import Shard, rate_limits
from app.store.rate_limits import WINDOW_SECONDS, Limit, Standing

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 5.0  # after Redis failed nothing is limited for so long, and no call waits for it


class Limiter:
    """The limits of the settings. While Redis is away nothing is limited: it is the scheduler that counts."""

    def __init__(self, settings: Settings, shard: Shard) -> None:
        self._shard = shard
        self._per_caller = settings.rate_limit_key
        self._per_workspace = settings.rate_limit_workspace
        self._again = 0.0
        self.limits = bool(self._per_caller or self._per_workspace)

    async def take(self, caller: Caller, address: str, workspace: str | None) -> dict[str, str]:
        """Count a call; returns headers for its answer. Raises :class:`TooManyRequests`."""
        limits = []
        if self._per_caller:
            name = address if caller.kind == "anonymous" else caller.id
            limits.append(Limit("key", f"{caller.kind}:{name}", self._per_caller))
        if self._per_workspace and workspace is not None:
            limits.append(Limit("workspace", workspace, self._per_workspace))
        if not limits or time.monotonic() < self._again:
            return {}
        try:
            standings = await rate_limits.take(self._shard, limits)
        except (RedisError, OSError) as error:
            self._again = time.monotonic() + _PAUSE_SECONDS
            log.warning("rate limits are off for %g s, Redis failed: %s", _PAUSE_SECONDS, error)
            return {}
        headers = _headers(standings)
        refusing = [one for one in standings if not one.passed]
        if refusing:
            last = max(refusing, key=lambda one: one.next_after)
            headers["retry-after"] = str(math.ceil(last.next_after / 1000))
            whose = "of this caller" if last.limit.kind == "key" else f"on the workspace {workspace!r}"
            raise TooManyRequests(
                f"More than {last.limit.quota} calls a minute {whose}: try again as `Retry-After` says.",
                headers,
            )
        return headers


def _headers(standings: list[Standing]) -> dict[str, str]:
    policies = [f'"{one.limit.kind}";q={one.limit.quota};w={WINDOW_SECONDS}' for one in standings]
    left = [f'"{one.limit.kind}";r={one.left};t={math.ceil(one.full_after / 1000)}' for one in standings]
    return {"ratelimit-policy": ", ".join(policies), "ratelimit": ", ".join(left)}
