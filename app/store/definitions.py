"""Definitions in Redis: packed, and sealed where there are keys. Scripts see opaque bytes.

A script tells that a trigger is unchanged by equal bytes, and no two sealed values are equal. So what equals
the stored definition goes in as the bytes that are stored: a change is prepared beside the set as it was
read, and goes in only if that is still so.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from app.errors import SealError
from app.models import Definition, unpack_definition
from app.store.shard import Shard, reply

_AT_ONCE = 1000


def unsealed(shard: Shard, stored: bytes) -> Definition:
    """A stored definition; raises :class:`SealError`."""
    return unpack_definition(shard.sealer.open(stored))


async def read_stored(shard: Shard, workspace: str, ids: Sequence[str]) -> list[bytes | None]:
    """The definitions of some triggers as they are stored, None where there is none."""
    found: list[bytes | None] = []
    for start in range(0, len(ids), _AT_ONCE):
        some = list(ids[start : start + _AT_ONCE])
        pending = reply(shard.redis.hmget(shard.keys.of(workspace, "definitions"), some))
        found += cast(list[bytes | None], await pending)
    return found


async def read(shard: Shard, workspace: str, ids: Sequence[str]) -> list[Definition | None]:
    """The stored definitions of some triggers, None where there is none."""
    found = await read_stored(shard, workspace, ids)
    return [None if stored is None else unsealed(shard, stored) for stored in found]


async def to_store(shard: Shard, workspace: str, ids: Sequence[str], packed: Sequence[bytes]) -> list[bytes]:
    """What is to be stored for packed definitions: where nothing changes, what is there."""
    if not shard.sealer.seals:
        return list(packed)
    live = await read_stored(shard, workspace, ids)
    return [
        old if old is not None and _holds(shard, old, new) else shard.sealer.seal(new)
        for old, new in zip(live, packed, strict=True)
    ]


def _holds(shard: Shard, stored: bytes, packed: bytes) -> bool:
    """Whether a stored definition is a packed one. What can't be opened is none: so it can be replaced."""
    try:
        return shard.sealer.open(stored) == packed
    except SealError:
        return False
