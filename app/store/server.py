"""What Redis it is, and what is wrong with how it is run: as INFO tells, also where CONFIG is forbidden."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from redis.exceptions import NoPermissionError

from app.store.shard import Shard, reply


class Server(Struct, frozen=True, kw_only=True):
    """The Redis of a shard as it is now. Sizes are bytes."""

    version: str  # empty: nothing is known
    role: str  # master or slave, as Redis calls them
    history: str  # the replication id: another one after every failover and restart
    replicas: int  # connected
    used_memory: int
    max_memory: int  # 0: no bound
    eviction: str  # maxmemory-policy
    append_only: bool
    persisted: bool  # the last write of the append-only file, and the last snapshot, went well
    clients: int
    max_clients: int  # 0: not told

    @property
    def fullness(self) -> float:
        """Which share of its maxmemory it uses; 0 where it has none."""
        return self.used_memory / self.max_memory if self.max_memory else 0.0

    def warnings(self) -> list[str]:
        """What somebody has to change, and how; one line each."""
        if not self.version:
            return ["Redis does not allow INFO: nobody sees how it is run; give its user +info"]
        found = []
        if self.eviction and self.eviction != "noeviction":
            found.append(
                f"Redis has maxmemory-policy {self.eviction}: when it is full it throws away schedules,"
                " executions and keys. Have it refuse writes instead: CONFIG SET maxmemory-policy noeviction,"
                " and the same in redis.conf or the parameter group"
            )
        if not self.persisted:
            found.append("Redis can't write its append-only file or snapshot to disk: see its log")
        return found


async def look(shard: Shard) -> Server:
    """The Redis of a shard; where it does not allow INFO, one of which nothing is known."""
    try:
        return server_of(await reply(shard.redis.info()))
    except NoPermissionError:
        return server_of({})


async def look_at_all(shards: Iterable[Shard]) -> list[Server]:
    """The Redis of each shard, every one once, the fullest first: one server, or the nodes of a cluster."""
    of_each = {id(shard.redis): shard for shard in shards}.values()  # one server has one client for all
    found = {one.history: one for one in await asyncio.gather(*map(look, of_each))}
    return sorted(found.values(), key=lambda one: (one.fullness, one.used_memory), reverse=True)


def server_of(info: Mapping[str, Any]) -> Server:
    """What INFO tells, as far as it does."""
    return Server(
        version=str(info.get("redis_version", "")),
        role=str(info.get("role", "")),
        history=history_of(info),
        replicas=replicas_of(info),
        used_memory=int(info.get("used_memory", 0)),
        max_memory=int(info.get("maxmemory", 0)),
        eviction=str(info.get("maxmemory_policy", "")),
        append_only=bool(info.get("aof_enabled", 0)),
        persisted=info.get("aof_last_write_status", "ok") == "ok" == info.get("rdb_last_bgsave_status", "ok"),
        clients=int(info.get("connected_clients", 0)),
        max_clients=int(info.get("maxclients", 0)),
    )


def history_of(info: Mapping[str, Any]) -> str:
    """The replication id."""
    return str(info.get("master_replid", ""))


def replicas_of(info: Mapping[str, Any]) -> int:
    """How many replicas are connected, and have what the primary had when they came."""
    listed = [one for name, one in info.items() if name.startswith("slave") and isinstance(one, dict)]
    return sum(one.get("state") == "online" for one in listed)
