"""`cronspace reshard NUMBER`: move the workspaces to another number of shards."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence

from msgspec import structs
from redis.exceptions import RedisError

from app.config import Settings, load_settings
from app.counts import counted
from app.errors import ConfigError
from app.logs import set_up_logging
from app.store import Shards, open_shards, resharding
from app.store.shards import note_deployment

_MOST = 1024
_NOTICED_SECONDS = 12.0  # by when every process has seen that it has to stop
_LOOK_SECONDS = 0.5


def run(argv: Sequence[str]) -> None:
    """Move, and say what was moved."""
    if len(argv) != 1 or not argv[0].isdecimal() or not 1 <= int(argv[0]) <= _MOST:
        raise ConfigError(f"say how many shards there are to be, 1 to {_MOST}: cronspace reshard 8")
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    try:
        asyncio.run(reshard(settings, int(argv[0])))
    except (RedisError, OSError) as error:
        sys.exit(
            f"cronspace reshard: Redis failed: {error}. What was moved stays moved, and API and workers wait:"
            " run it again with the same number"
        )


async def reshard(settings: Settings, number: int, noticed_seconds: float = _NOTICED_SECONDS) -> None:
    """Stop all other processes, move, and set the new number; where it is stored already, do nothing."""
    first = open_shards(structs.replace(settings, shards=1))
    try:
        stored, moving = await note_deployment(first.first, 1)
    finally:
        await first.aclose()
    if stored == number and not moving:
        _say(f"the workspaces are in {counted(number, 'shard')} already: nothing is to be moved")
        return
    shards = open_shards(structs.replace(settings, shards=max(stored, number)))
    try:
        await resharding.begin(shards, number)
        _say(f"moving from {stored} to {counted(number, 'shard')}: API and workers stop now")
        await _wait_for_silence(shards, noticed_seconds)
        moved = await resharding.move(shards, number)
        await resharding.end(shards.first, number)
    finally:
        await shards.aclose()
    _say(
        f"moved {counted(moved.workspaces, 'workspace')} ({counted(moved.keys, 'key')},"
        f" {counted(moved.members, 'entry', 'entries')}): start API and"
        f" workers with CRONSPACE_SHARDS={number}"
    )


async def _wait_for_silence(shards: Shards, noticed_seconds: float) -> None:
    """Wait until no process works on what is to be moved: a worker that lives calls within a lease."""
    noticed = time.monotonic() + noticed_seconds
    lease_ms = shards.settings.lease_seconds * 1000
    told = False
    while True:
        silent = await shards.first.now_ms() - await resharding.last_pulse(shards)
        if time.monotonic() >= noticed and silent > lease_ms:
            return
        if time.monotonic() >= noticed and not told:
            told = True
            _say(f"waiting until no worker has called for {shards.settings.lease_seconds:g} s")
        await asyncio.sleep(_LOOK_SECONDS)


def _say(text: str) -> None:
    print(text, file=sys.stderr)
