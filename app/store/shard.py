"""The handle of one shard: its client, its keys, its scripts, and the clock that the scripts go by."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import socket
import uuid
from collections.abc import Awaitable, Callable
from functools import cache, lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakValueDictionary

import msgspec
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.commands.core import AsyncScript
from redis.exceptions import ResponseError

from app import clock
from app.config import Settings
from app.keys import Keys
from app.outage import Outage
from app.sealing import Sealer, parse_keys
from app.witness import Witness

if TYPE_CHECKING:
    from app.telemetry.tracing import Traces

_INCLUDE = re.compile(r"^--#include (\w+)\n", re.MULTILINE)

T = TypeVar("T")

pack = msgspec.msgpack.Encoder().encode
unpack = msgspec.msgpack.decode


def reply(pending: Awaitable[T] | T) -> Awaitable[T]:
    """The reply to await: redis-py types its commands for its blocking client and this one at once."""
    return cast(Awaitable[T], pending)


@cache
def script_source(name: str) -> str:
    """A script with its includes, as Redis gets it."""
    folder = files("app.store") / "lua"
    source = (folder / f"{name}.lua").read_text()
    return _INCLUDE.sub(lambda match: (folder / f"{match[1]}.lua").read_text(), source)


@cache
def script_names() -> list[str]:
    """Every script that can be run."""
    found = (one.name for one in (files("app.store") / "lua").iterdir())
    return sorted(name.removesuffix(".lua") for name in found if name.endswith(".lua") and name[0] != "_")


@cache
def script_sha(name: str) -> str:
    """What Redis knows a script by."""
    return hashlib.sha1(script_source(name).encode(), usedforsecurity=False).hexdigest()


class Shard:
    """One shard. ``now`` is for tests: it gives the time in ms that scripts take for Redis's own; ``steady``
    gives the seconds of this process's own clock that it is held against (with ``now``: none unless given).
    Shards on one Redis have one ``outage``.
    """

    def __init__(
        self,
        redis: Redis,
        settings: Settings,
        number: int = 0,
        now: Callable[[], int] | None = None,
        steady: Callable[[], float] | None = None,
        outage: Outage | None = None,
    ) -> None:
        self.redis = redis
        self.outage = outage or Outage()
        self.settings = settings
        self.keys = Keys(number)
        self.traces: Traces | None = None  # set where calls are traced
        self.sealer = Sealer(parse_keys(settings.encryption_keys))
        # What is claimed is opened once, not at each execution; see `store/queue.py`.
        self.open_again = lru_cache(maxsize=4096)(self.sealer.open)
        self._now = now
        self._taker, self._takes = uuid.uuid4().hex[:12], 0
        self.name = settings.worker_name or f"{socket.gethostname()}-{os.getpid()}"
        self.witness = Witness(
            self.name,
            self._taker,
            tolerance=int(settings.data_loss_tolerance_seconds * 1000),
            max_jump=int(settings.max_clock_jump_seconds * 1000),
            holds=settings.on_data_loss == "hold",
            steady=steady or (clock.steady if now is None else None),
        )
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
                settings.max_rate,
                min(settings.keep_timings_days, settings.keep_days),
                settings.max_kept_bytes,
            ]
        )

    async def run(
        self, name: str, *args: str | bytes | int, keys: tuple[str, ...] = (), client: Any = None
    ) -> Any:
        """Run a script; it is loaded where Redis does not know it (yet, or any more). With a pipeline as
        ``client`` it is run within that.
        """
        script = self._scripts.get(name)
        if script is None:
            script = self._scripts[name] = self.redis.register_script(script_source(name))
        now = "" if self._now is None else self._now()
        call = script(keys=[self.keys.root, *keys], args=[now, *args], client=client)
        if self.traces is None:
            return await call
        with self.traces.script(name):
            return await call

    async def read_together(self, pipe: Pipeline) -> list[Any]:
        """The replies to reads, all from one moment. Under maxmemory Redis refuses transactions, even of
        reads: then a script makes them, which costs Redis more.
        """
        commands = list(pipe.command_stack)
        try:
            return await pipe.execute()
        except ResponseError as error:
            if "maxmemory" not in str(error):
                raise
        replies = await self.run("read_together", pack([args for args, _ in commands]))
        parsed = []
        for one, (args, options) in zip(replies, commands, strict=True):
            parse = self.redis.response_callbacks.get(args[0])
            told = {name: value for name, value in options.items() if name != "keys"}  # for its cache
            parsed.append(one if parse is None or one is None else parse(one, **told))
        return parsed

    def turn(self, workspace: str) -> asyncio.Lock:
        """Changes of a workspace, or a part, take turns in this process; others compare and set."""
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
