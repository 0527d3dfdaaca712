"""Putting triggers into our store, without the API."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from itertools import groupby

from app.config import Settings
from app.models import Definition
from app.store import Shard, connect, triggers
from bench.due import HEADERS, PAYLOAD, Due

TriggerSet = tuple[str, list[tuple[str, Definition]]]  # workspace, its (id, definition)


def definition(pattern: str, url: str) -> Definition:
    """A trigger as in the documentation's example, by its cron expression and URL."""
    return Definition(cron=pattern, url=url, method="POST", headers=HEADERS, payload=PAYLOAD)


def store(redis_url: str, sets: Iterable[TriggerSet], keys: str = "") -> None:
    """Replace the workspaces' sets, one after the other; ``keys`` are ``CRONSPACE_ENCRYPTION_KEYS``."""

    async def run() -> None:
        settings = Settings(redis_url=redis_url, encryption_keys=keys)
        shard = Shard(connect(settings), settings)
        try:
            for workspace, members in sets:
                await triggers.replace(shard, workspace, members)
        finally:
            await shard.redis.aclose()

    asyncio.run(run())


def store_due(redis_url: str, dues: Sequence[Due], target: str, keys: str = "") -> None:
    """Store what is due, sending to ``target`` (scheme and authority)."""
    grouped = groupby(dues, key=lambda due: due.workspace)
    store(
        redis_url,
        (
            (workspace, [(due.id, definition(due.pattern, target + due.path)) for due in members])
            for workspace, members in grouped
        ),
        keys,
    )


def same_sets(pattern: str, url: str, count: int, each: int, prefix: str = "ws") -> Iterable[TriggerSet]:
    """``count`` equal triggers in workspaces of ``each``."""
    one = definition(pattern, url)
    for number in range(-(-count // each)):
        size = min(each, count - number * each)
        yield f"{prefix}-{number}", [(str(index), one) for index in range(size)]
