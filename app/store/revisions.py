"""Revisions of a trigger set: each keeps what undoes it, so the former sets follow from the live one."""

from __future__ import annotations

import asyncio
import zlib
from typing import NamedTuple

import msgspec
from msgspec import Struct

from app.errors import SealError
from app.models import Changes, Definition
from app.sealing import Sealer
from app.store import definitions
from app.store.shard import Shard, pack, reply
from app.store.states import position_of

# What makes the set before a change out of the set after it: trigger → its position and packed definition
# before (sealed by itself only where its key is missing), None where there was none.
Undo = dict[str, tuple[int, bytes] | None]


class Placed(NamedTuple):
    """A trigger of a former set."""

    position: int
    definition: Definition


class Revision(Struct, frozen=True, array_like=True):
    """The head of a revision, as it is stored."""

    at: int  # ms
    action: str  # replace, edit, rollback
    count: int  # triggers in the set
    created: int
    updated: int
    deleted: int
    moved: int


_undo = msgspec.msgpack.Decoder(Undo)
_head = msgspec.msgpack.Decoder(Revision)


def pack_head(at: int, action: str, count: int, changes: Changes, moved: int) -> bytes:
    """The bytes of a revision's head."""
    return pack(Revision(at, action, count, changes.created, changes.updated, changes.deleted, moved))


def pack_undo(sealer: Sealer, undo: Undo) -> bytes:
    """The bytes of what undoes a revision, with definitions as they are stored.

    They are sealed together, because what is sealed by itself does not get smaller.
    """
    plain = {id_: None if one is None else (one[0], _opened(sealer, one[1])) for id_, one in undo.items()}
    return sealer.seal(zlib.compress(pack(plain), 1))


def reseal_undo(sealer: Sealer, stored: bytes) -> bytes | None:
    """What undoes a revision as it would be stored now; None where that is how it is."""
    if sealer.is_current(stored):
        return None
    return pack_undo(sealer, _unpack_undo(sealer, stored))


def _unpack_undo(sealer: Sealer, stored: bytes) -> Undo:
    return _undo.decode(zlib.decompress(sealer.open(stored)))


def _opened(sealer: Sealer, stored: bytes) -> bytes:
    """A definition to keep for an undo. One whose key is missing stays as it is: its key may come back."""
    try:
        return sealer.open(stored)
    except SealError:
        return stored


async def heads(shard: Shard, workspace: str) -> dict[int, Revision]:
    """The revisions that are kept, newest first."""
    found = await reply(shard.redis.hgetall(shard.keys.of(workspace, "revisions")))
    return {
        number: _head.decode(packed)
        for number, packed in sorted(((int(k), v) for k, v in found.items()), reverse=True)
    }


async def current(shard: Shard, workspace: str) -> int:
    """The number of the live revision, 0 before the first."""
    return int(await reply(shard.redis.hget(shard.keys.of(workspace, "meta"), "revision")) or 0)


async def at(shard: Shard, workspace: str, revision: int) -> dict[str, Placed] | None:
    """The set of a revision by trigger id, in its order; None when it is not kept (any more)."""
    async with shard.redis.pipeline(transaction=True) as pipe:
        pipe.hmget(shard.keys.of(workspace, "meta"), ["revision"])
        pipe.hgetall(shard.keys.of(workspace, "definitions"))
        pipe.hgetall(shard.keys.of(workspace, "states"))
        pipe.hgetall(shard.keys.of(workspace, "undo"))
        (live,), stored, states, undo = await shard.read_together(pipe)
    newest = int(live or 0)
    kept = {int(number): packed for number, packed in undo.items()}
    if revision not in kept or not 0 < revision <= newest:
        return None
    found: Undo = {id_.decode(): (position_of(states.get(id_)), packed) for id_, packed in stored.items()}

    def undone() -> dict[str, Placed]:
        for number in range(newest, revision, -1):
            for id_, before in _unpack_undo(shard.sealer, kept[number]).items():
                if before is None:
                    found.pop(id_, None)
                else:
                    found[id_] = before
        placed = {
            id_: Placed(one[0], definitions.unsealed(shard, one[1]))
            for id_, one in found.items()
            if one is not None
        }
        return dict(sorted(placed.items(), key=lambda item: item[1].position))

    return await asyncio.to_thread(undone)  # of a large set that takes a while
