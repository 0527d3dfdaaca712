"""Whether this process can work with its Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from app.store.shard import Shard, script_names, script_sha, script_source

_PROBE_MS = 10_000


async def check_ready(shards: Iterable[Shard]) -> None:
    """The Redis of each shard answers, takes writes and knows every script; raises what it raises.

    A script that it does not know (any more) is loaded.
    """
    await asyncio.gather(*(_check_shard(shard) for shard in shards))


async def _check_shard(shard: Shard) -> None:
    names = script_names()
    known = await shard.redis.script_exists(*(script_sha(name) for name in names))
    for name, there in zip(names, known, strict=True):
        if not there:
            await shard.redis.script_load(script_source(name))
    await shard.redis.set(shard.keys.write_probe, 1, px=_PROBE_MS)
