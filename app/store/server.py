"""What kind of Redis this is: INFO tells it, also where a service refuses CONFIG."""

from __future__ import annotations

from msgspec import Struct

from app.store.shard import Shard


class Server(Struct, frozen=True, kw_only=True):
    """Facts about the Redis server."""

    version: str
    role: str  # master or slave, as Redis says it
    replicas: int
    used_memory: int  # bytes
    max_memory: int  # bytes; 0: no bound
    eviction_policy: str
    append_only: bool
    last_save: int  # of a snapshot, ms since the epoch
    saves_fail: bool  # the last snapshot or the last write of the append-only file failed


async def facts(shard: Shard) -> Server:
    """What the server says about itself."""
    found = await shard.redis.info()
    return Server(
        version=str(found["redis_version"]),
        role=str(found["role"]),
        replicas=int(found.get("connected_slaves", 0)),
        used_memory=int(found["used_memory"]),
        max_memory=int(found.get("maxmemory", 0)),
        eviction_policy=str(found.get("maxmemory_policy", "")),
        append_only=bool(found.get("aof_enabled", 0)),
        last_save=int(found.get("rdb_last_save_time", 0)) * 1000,
        saves_fail="err" in (found.get("rdb_last_bgsave_status"), found.get("aof_last_write_status")),
    )
