"""Moving workspaces to another number of shards, while no other process works on them.

Everything is found by walking through the keys once, whatever there is: keys of a workspace, of its
executions, and its members in the sorted sets of the shard. Each is written to where it belongs and then
removed where it was, so that a move that was interrupted is simply begun again.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Sequence

import msgspec
from msgspec import Struct

from app.counts import counted
from app.errors import WrongDeployment
from app.keys import DEPLOYMENT, Keys, shard_number
from app.store import witness
from app.store.shard import Shard, pack, reply
from app.store.shards import Shards, note_deployment

_AT_ONCE = 500
_KEYS_AT_ONCE = 50  # a key may be a whole trigger set, and is held here on its way
_FOR_EVER = -1  # what PTTL says of a key that stays
_OWN_KEY = re.compile(r"cs:\{\d+\}:w:([^:]+):")
_RESULT = "arq:result:"
_EXECUTION_KEY = re.compile(r"arq:(?:job|in-progress|result):\{\d+\}:([^:]+):")
_MEMBER = re.compile(r"(?:\{\d+\}:)?([^:]+)")


class Moved(Struct):
    """What was moved."""

    workspaces: int = 0
    keys: int = 0
    members: int = 0  # of sorted sets that a shard's workspaces share


async def begin(shards: Shards, number: int) -> None:
    """Note that workspaces are being moved: every process refuses to work from now on, in a few seconds.

    Raises :class:`WrongDeployment` when they are being moved to another number, or firing is held: a shard
    that is not held would fire what comes to it, and nobody has said that it may.
    """
    first = shards.first
    held = [hold.detail for shard in shards for hold in (await witness.status(shard)).holds]
    if held:
        raise WrongDeployment(
            f"Firing is held: {held[0]} Go on with `cronspace system resume` before you move."
        )
    while not await reply(first.redis.hsetnx(DEPLOYMENT, "moving", str(number))):
        _, moving = await note_deployment(first, 1)
        if moving == number:
            return
        if moving:
            raise WrongDeployment(
                f"A move to {counted(moving, 'shard')} was begun: `cronspace reshard {moving}` ends it."
            )


async def end(first: Shard, number: int) -> None:
    """Note that all workspaces are where they belong."""
    async with first.redis.pipeline(transaction=True) as pipe:
        pipe.hset(DEPLOYMENT, "shards", str(number))
        pipe.hdel(DEPLOYMENT, "moving")
        await pipe.execute()


async def last_pulse(shards: Iterable[Shard]) -> int:
    """When a worker last called, of any shard, ms; 0: never."""
    pulses = [await reply(shard.redis.hget(shard.keys.root, "pulse")) for shard in shards]
    return max(int(pulse or 0) for pulse in pulses)


async def move(shards: Shards, number: int) -> Moved:
    """Move every workspace to its shard of ``number``; ``shards`` has those of before and of after."""
    moved = Moved()
    for at, source in enumerate(shards):
        ids = await source.redis.zrange(source.keys.workspaces, 0, -1)
        targets = [shards[shard_number(id_.decode(), number)] for id_ in ids]
        moved.workspaces += sum(target is not source for target in targets)
        lost = await witness.losses(source)
        # What was made before a loss may have been sent in it, there too.
        for target in set(targets) - {source}:
            await witness.add_losses(target, lost)
        serial = int(await reply(source.redis.hget(source.keys.root, "serial")) or 0)
        for target in shards:  # what is given a number later has to get a higher one
            if int(await reply(target.redis.hget(target.keys.root, "serial")) or 0) < serial:
                await reply(target.redis.hset(target.keys.root, "serial", str(serial)))
        # Their members are no workspaces. Places at hosts lapse by themselves, and so do the lines for them:
        # who waits in one asks again before, and where a line came to its host would not be known.
        own = (source.keys.beats, source.keys.workers, source.keys.seats)
        lapses = (source.keys.host(""), source.keys.host_line(""))
        async for keys in _keys_of(source):
            shared = []
            elsewhere: dict[Shard, list[str]] = {}
            for key in keys:
                match = _OWN_KEY.match(key) or _EXECUTION_KEY.match(key)
                if match is None:
                    if key not in own and not key.startswith(lapses):
                        shared.append(key)
                    continue
                target = shards[shard_number(match[1], number)]
                if target is not source:
                    elsewhere.setdefault(target, []).append(key)
            for target, leaving in elsewhere.items():
                for start in range(0, len(leaving), _KEYS_AT_ONCE):
                    await _move_keys(source, target, leaving[start : start + _KEYS_AT_ONCE])
                moved.keys += len(leaving)
            for key in shared:
                moved.members += await _move_members(source, shards, number, key)
        if at >= number:
            await _close(source, shards.first)
    return moved


async def _close(source: Shard, first: Shard) -> None:
    """Leave nothing of a shard that goes but what its witnesses remember, for when it comes back.

    What it counted is counted in the first shard from now on, so that no counter of the fleet goes back; a
    move that is begun again finds noted that it is.
    """
    keys, noted = source.keys, f"counted:{source.keys.tag}"
    totals = await reply(source.redis.hgetall(keys.totals))
    async with first.redis.pipeline(transaction=True) as pipe:
        await pipe.watch(DEPLOYMENT)  # a client that watches does not repeat what may have been done
        if not await reply(pipe.hexists(DEPLOYMENT, noted)):
            pipe.multi()  # type: ignore[no-untyped-call]  # redis-py has no types for it
            for what, count in totals.items():
                pipe.hincrby(first.keys.totals, what.decode(), int(count))
            pipe.hset(DEPLOYMENT, noted, "1")
            await pipe.execute()
    await source.redis.unlink(keys.totals, keys.workers, keys.worker_facts, keys.seats)
    await reply(first.redis.hdel(DEPLOYMENT, noted))


async def _keys_of(shard: Shard) -> AsyncIterator[list[str]]:
    """The keys of a shard, ours and arq's, some at a time; one walk, for it looks at all of a server."""
    cursor = 0
    while True:
        cursor, keys = await shard.redis.scan(cursor, match=f"*{shard.keys.tag}*", count=_AT_ONCE)
        yield [key.decode() for key in keys if key.startswith((shard.keys.prefix.encode(), b"arq:"))]
        if cursor == 0:
            return


def _renamed(text: str, source: Keys, target: Keys) -> str:
    return text.replace(source.tag, target.tag, 1)


async def _move_keys(source: Shard, target: Shard, keys: Sequence[str]) -> None:
    async with source.redis.pipeline(transaction=False) as pipe:
        for key in keys:
            pipe.get(key) if key.startswith(_RESULT) else pipe.dump(key)
            pipe.pttl(key)
        found = await pipe.execute()
    async with target.redis.pipeline(transaction=False) as pipe:
        for key, value, left in zip(keys, found[::2], found[1::2], strict=True):
            if value is None:  # it ran out meanwhile
                continue
            new = _renamed(key, source.keys, target.keys)
            left = 0 if left == _FOR_EVER else max(1, left)  # what just ran out is not to stay for ever
            if key.startswith(_RESULT):
                pipe.set(new, _relabelled(value, source.keys, target.keys), px=left or None)
            else:
                pipe.restore(new, left, value, replace=True)
        await pipe.execute()
    await source.redis.unlink(*keys)


def _relabelled(result: bytes, source: Keys, target: Keys) -> bytes:
    """A record names its queue and its job, which have the shard in them."""
    record = msgspec.msgpack.decode(result)
    record["q"] = target.queue
    record["id"] = _renamed(record["id"], source, target)
    return pack(record)


async def _move_members(source: Shard, shards: Shards, number: int, key: str) -> int:
    """Move what moved workspaces have in a sorted set of the shard."""
    if await source.redis.type(key) != b"zset":
        return 0
    cursor, moved = 0, 0
    while True:
        cursor, found = await source.redis.zscan(key, cursor, count=_AT_ONCE)
        moved += await _move_some(source, shards, number, key, found)
        if cursor == 0:
            return moved


async def _move_some(
    source: Shard, shards: Shards, number: int, key: str, found: Sequence[tuple[bytes, float]]
) -> int:
    elsewhere: dict[Shard, dict[str, float]] = {}
    for raw, score in found:
        member = raw.decode()
        match = _MEMBER.match(member)
        target = source if match is None else shards[shard_number(match[1], number)]
        if target is not source:
            elsewhere.setdefault(target, {})[member] = score
    for target, members in elsewhere.items():
        renamed = {_renamed(member, source.keys, target.keys): score for member, score in members.items()}
        await target.redis.zadd(_renamed(key, source.keys, target.keys), renamed)
        await source.redis.zrem(key, *members)
    return sum(map(len, elsewhere.values()))
