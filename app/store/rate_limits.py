"""Rate limits of the API, by Redis's clock: they hold over all of its processes."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from msgspec import Struct

from app.store.shard import Shard

WINDOW_SECONDS = 60


class Limit(Struct, frozen=True):
    """So many calls a window, for one of a kind."""

    kind: str  # key, workspace
    name: str  # of that key or workspace
    quota: int


class Standing(Struct, frozen=True):
    """Where a limit is at. Times in ms."""

    limit: Limit
    passed: bool
    left: int
    full_after: int
    next_after: int  # 0: at once


async def take(shard: Shard, limits: Sequence[Limit]) -> list[Standing]:
    """Take a place in each limit, or in none when one of them has none left."""
    args: list[str | int] = []
    for limit in limits:
        name = hashlib.sha256(limit.name.encode()).hexdigest()[:32]  # a subject may be any text
        args += [shard.keys.limit(limit.kind, name).removeprefix(shard.keys.prefix), limit.quota]
    told = await shard.run("take_places", WINDOW_SECONDS * 1000, *args)
    return [
        Standing(limit, bool(passed), left, full_after, next_after)
        for limit, (passed, left, full_after, next_after) in zip(limits, told, strict=True)
    ]
