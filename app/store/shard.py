"""The handle of one shard: its connection, its keys, its scripts, and the clock that the scripts go by."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Awaitable, Callable
from functools import cache
from importlib.resources import files
from typing import Any, TypeVar, cast
from weakref import WeakValueDictionary

import msgspec
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialBackoff
from redis.commands.core import AsyncScript
from redis.exceptions import BusyLoadingError, ConnectionError

from app.config import Settings
from app.errors import ConfigError
from app.keys import Keys
from app.sealing import Sealer, parse_keys

_INCLUDE = re.compile(r"^--#include (\w+)\n", re.MULTILINE)

T = TypeVar("T")

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.decode


# A command is repeated when its connection breaks, although it may have run: every script of ours is safe to
# run twice with the same arguments. It is not repeated when no reply came in time: a silent Redis may stay so,
# and the caller is to be told.
CLIENT_OPTIONS: dict[str, Any] = {
    "socket_connect_timeout": 3,
    "socket_timeout": 5,
    "retry": Retry(ExponentialBackoff(cap=0.5, base=0.02), 3, (ConnectionError,)),
    "retry_on_error": [ConnectionError, BusyLoadingError],
}


def tls_options(settings: Settings) -> dict[str, Any]:
    """What a client needs to check the server's certificate by."""
    return {"ssl_ca_certs": settings.redis_ca_file} if settings.redis_ca_file else {}


def connect(settings: Settings) -> Redis:
    """A client for ``REDIS_URL``; raises :class:`ConfigError` for one that can't be read."""
    options = tls_options(settings) if settings.redis_url.startswith("rediss://") else {}
    try:
        client: Redis = Redis.from_url(settings.redis_url, **CLIENT_OPTIONS, **options)
    except ValueError as error:
        raise ConfigError(f"REDIS_URL can't be read: {error}") from error
    return client


def reply(pending: Awaitable[T] | T) -> Awaitable[T]:
    """The reply to await: redis-py types its commands for its blocking client and this one at once."""
    return cast(Awaitable[T], pending)


@cache
def script_source(name: str) -> str:
    """A script with its includes, as Redis gets it."""
    folder = files("app.store") / "lua"
    source = (folder / f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: (folder / f"{match[1]}.lua").read_text(), source)


class Shard:
    """One shard. ``now`` is for tests: it gives the time in ms that scripts take for Redis's own."""

    def __init__(
        self, redis: Redis, settings: Settings, number: int = 0, now: Callable[[], int] | None = None
    ) -> None:
        self.redis = redis
        self.settings = settings
        self.keys = Keys(number)
        self.sealer = Sealer(parse_keys(settings.encryption_keys))
        self._now = now
        self._taker, self._takes = uuid.uuid4().hex[:12], 0
        self._scripts: dict[str, AsyncScript] = {}
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self.policy = pack(
            [
                settings.max_concurrency,
                settings.keep_succeeded,
                settings.keep_failed,
                settings.keep_succeeded_seconds * 1000,
                settings.keep_days,
                settings.keep_slots,
                settings.max_backlog,
                settings.keep_runs,
            ]
        )

    async def run(self, name: str, *args: str | bytes | int, keys: tuple[str, ...] = ()) -> Any:
        """Run a script; it is loaded where Redis does not know it (yet, or any more)."""
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(script_source(name))
        now = "" if self._now is None else self._now()
        return await script(keys=[self.keys.root, *keys], args=[now, *args])

    def turn(self, workspace: str) -> asyncio.Lock:
        """Changes of a workspace's set take turns in this process; compare-and-set is for the others."""
        return self._turns.setdefault(workspace, asyncio.Lock())

    async def take_chores(self, chores: str, at_most: int, lease_ms: int) -> tuple[list[bytes], bytes]:
        """Take due members of a ZSET of chores for a lease; returns them and the time they come back, ms."""
        self._takes += 1
        taken, later = await self.run(
            "take_chores", at_most, lease_ms, self._taker, self._takes, keys=(chores,)
        )
        return taken, later

    async def now_ms(self) -> int:
        """Redis's clock, in ms since the epoch."""
        if self._now is not None:
            return self._now()
        seconds, micros = await self.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000
