"""What Redis it is, and what is wrong with how it is run: as INFO tells, also where CONFIG is forbidden."""

from __future__ import annotations

from msgspec import Struct

from app.store.shard import Shard, reply


class Server(Struct, frozen=True, kw_only=True):
    """The Redis of a shard as it is now. Sizes are bytes."""

    version: str
    role: str  # master or slave, as Redis calls them
    replicas: int  # connected
    used_memory: int
    max_memory: int  # 0: no bound
    eviction: str  # maxmemory-policy
    append_only: bool
    persisted: bool  # the last write of the append-only file, and the last snapshot, went well

    def warnings(self) -> list[str]:
        """What somebody has to change, and how; one line each."""
        found = []
        if self.eviction and self.eviction != "noeviction":
            found.append(f"maxmemory-policy is {self.eviction}: Redis may drop triggers; set noeviction")
        if not self.persisted:
            found.append("Redis can't write its data to disk; its log says why")
        return found


async def look(shard: Shard) -> Server:
    """The Redis of a shard."""
    info = await reply(shard.redis.info())
    return Server(
        version=str(info.get("redis_version", "")),
        role=str(info.get("role", "")),
        replicas=int(info.get("connected_slaves", 0)),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        eviction=str(info.get("maxmemory_policy", "")),
        append_only=bool(info.get("aof_enabled", 0)),
        persisted=info.get("aof_last_write_status", "ok") == "ok" == info.get("rdb_last_bgsave_status", "ok"),
    )
