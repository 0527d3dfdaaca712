"""Reads over all shards: each one is asked, and what they tell is merged."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Collection, Sequence
from typing import TypeVar

from redis.exceptions import RedisError

from app.errors import TooManyWorkspaces
from app.store import workspaces
from app.store.shard import Shard
from app.store.shards import Shards
from app.store.workspaces import Counts, Workspace

T = TypeVar("T")


async def ask_each(
    shards: Shards, ask: Callable[[Shard], Awaitable[T]]
) -> tuple[dict[int, T], dict[int, str]]:
    """What the shards answer, by their numbers, and why those that can't be asked do not.

    Raises what it raises where none can.
    """
    told = await asyncio.gather(*(ask(shard) for shard in shards), return_exceptions=True)
    answers: dict[int, T] = {}
    unread: dict[int, str] = {}
    for number, one in enumerate(told):
        if not isinstance(one, BaseException):
            answers[number] = one
        elif isinstance(one, (RedisError, OSError)) and len(unread) < len(told) - 1:
            unread[number] = str(one) or type(one).__name__
        else:
            raise one
    return answers, unread


async def list_workspaces(
    shards: Shards, after: str = "", limit: int = 100, *, only: Collection[str] | None = None
) -> tuple[list[Workspace], str | None]:
    """Workspaces in the order of their ids, and after which the next page begins.

    With ``only`` just those of them that there are; a page may then have fewer than ``limit``.
    """
    groups = [(shard, None) for shard in shards] if only is None else shards.split(only)
    pages = await asyncio.gather(
        *(workspaces.page(shard, after, limit, only=names) for shard, names in groups)
    )
    # What a shard has beyond its page comes after the end of that page, and so do others' from there on.
    ends = [following for _, following in pages if following is not None]
    found = heapq.merge(*(some for some, _ in pages), key=lambda one: one.id)
    merged = [one for one in found if not ends or one.id <= min(ends)]
    if len(merged) > limit:
        return merged[:limit], merged[limit - 1].id
    return merged, min(ends, default=None)


async def counts(shards: Shards, names: Sequence[str]) -> list[Counts]:
    """What each workspace holds."""
    groups = shards.split(names)
    found = await asyncio.gather(*(workspaces.counts(shard, some) for shard, some in groups))
    of = {
        name: held
        for (_, some), helds in zip(groups, found, strict=True)
        for name, held in zip(some, helds, strict=True)
    }
    return [of[name] for name in names]


async def check_room(shards: Shards, workspace: str) -> None:
    """Raise :class:`TooManyWorkspaces` unless a workspace is there or may be made.

    Calls at once may pass the bound by one each.
    """
    most, own = shards.settings.max_workspaces, shards.of(workspace)
    if not most or await own.redis.zscore(own.keys.workspaces, workspace) is not None:
        return
    number = sum(await asyncio.gather(*(one.redis.zcard(one.keys.workspaces) for one in shards)))
    if number >= most:
        raise TooManyWorkspaces(
            f"There are {number} workspaces, and may be {most} (CRONSPACE_MAX_WORKSPACES): erase one first."
        )


async def all_ids(shards: Shards) -> list[str]:
    """The ids of all workspaces, ascending."""
    found = await asyncio.gather(*(workspaces.all_ids(shard) for shard in shards))
    return list(heapq.merge(*found))
