"""How large a trigger set is: its triggers, and the bytes of their definitions as they are stored.

Every change leaves the bytes beside the revision that it made, and they count only while that is the live
one: after a change that did not know of them, of a former version, they are measured.
"""

from __future__ import annotations

from msgspec import Struct

from app.store.shard import Shard, reply

_AT_ONCE = 1000


class Size(Struct, frozen=True):
    """The size of a trigger set."""

    triggers: int
    bytes: int


async def read(shard: Shard, workspace: str) -> Size:
    """The size of a set. Right for a change that compares and sets a serial read before."""
    of = shard.keys.of
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.hmget(of(workspace, "meta"), ["revision", "bytes"])
        pipe.hlen(of(workspace, "definitions"))
        (revision, noted), triggers = await pipe.execute()
    noted_at, _, number = (noted or b"").partition(b":")
    if noted and noted_at == revision:
        return Size(triggers, int(number))
    return Size(triggers, await _measure(shard, workspace))


async def _measure(shard: Shard, workspace: str) -> int:
    key = shard.keys.of(workspace, "definitions")
    ids = await reply(shard.redis.hkeys(key))
    measured = 0
    for start in range(0, len(ids), _AT_ONCE):
        async with shard.redis.pipeline(transaction=False) as pipe:
            for id_ in ids[start : start + _AT_ONCE]:
                pipe.hstrlen(key, id_.decode())
            measured += sum(await pipe.execute())
    return measured
