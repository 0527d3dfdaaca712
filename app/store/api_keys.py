"""API keys. They belong to the deployment: one hash in the first shard, read by every API process."""

from __future__ import annotations

import msgspec

from app.auth.keys import ApiKey
from app.errors import TooManyKeys
from app.store.shard import Shard, pack, reply

_unpack = msgspec.msgpack.Decoder(ApiKey).decode


async def add(shard: Shard, key: ApiKey) -> None:
    """Store a key; raises :class:`TooManyKeys`. Two calls at once may pass the bound by one."""
    most = shard.settings.max_api_keys
    if await reply(shard.redis.hlen(shard.keys.api_keys)) >= most:
        raise TooManyKeys(f"There are {most} API keys (CRONSPACE_MAX_API_KEYS): delete some first.")
    await reply(shard.redis.hset(shard.keys.api_keys, mapping={key.id: pack(key)}))


async def find(shard: Shard, id_: str) -> tuple[ApiKey, int] | None:
    """A key and when it was last used (ms; 0: never), or None."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.hget(shard.keys.api_keys, id_)
        pipe.hget(shard.keys.api_key_uses, id_)
        packed, used = await pipe.execute()
    return None if packed is None else (_unpack(packed), int(used or 0))


async def all_keys(shard: Shard) -> list[tuple[ApiKey, int]]:
    """All keys with their last use, the oldest first."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.hvals(shard.keys.api_keys)
        pipe.hgetall(shard.keys.api_key_uses)
        packed, uses = await pipe.execute()
    found = [_unpack(one) for one in packed]
    return [(key, int(uses.get(key.id.encode(), 0))) for key in sorted(found, key=_age)]


async def remove(shard: Shard, id_: str) -> None:
    """Delete a key, if it is there."""
    async with shard.redis.pipeline(transaction=False) as pipe:  # which goes on under maxmemory
        pipe.hdel(shard.keys.api_keys, id_)
        pipe.hdel(shard.keys.api_key_uses, id_)
        await pipe.execute()


async def note_use(shard: Shard, id_: str) -> None:
    """A key was used now."""
    await shard.run("note_key_use", id_, keys=(shard.keys.api_keys, shard.keys.api_key_uses))


def _age(key: ApiKey) -> tuple[int, str]:
    return key.created, key.id
