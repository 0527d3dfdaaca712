"""What Redis it is, and what is wrong with how it is run: as INFO tells, also where CONFIG is forbidden."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct
from redis.exceptions import NoPermissionError

from app.store.shard import Shard, reply

_LONG_UNSAVED = 2 * 3600  # Redis's own settings save once an hour at least where anything changes


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
    unsaved_seconds: int  # for how long changes have been in memory only, and on no replica, as far as told

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
        if self.unsaved_seconds > _LONG_UNSAVED:
            found.append(
                f"Redis has saved nothing for {self.unsaved_seconds // 3600} h, and has no replica: a restart"
                " loses schedules and history. Give it an append-only file: CONFIG SET appendonly yes, and"
                " the same in redis.conf"
            )
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
        unsaved_seconds=_unsaved(info),
    )


def _unsaved(info: Mapping[str, Any]) -> int:
    if info.get("aof_enabled", 0) or replicas_of(info) or not info.get("rdb_changes_since_last_save", 0):
        return 0
    now = int(info.get("server_time_usec", 0)) // 1_000_000
    return max(0, now - int(info.get("rdb_last_save_time", now)))


def history_of(info: Mapping[str, Any]) -> str:
    """The replication id."""
    return str(info.get("master_replid", ""))


def replicas_of(info: Mapping[str, Any]) -> int:
    """How many replicas are connected, and have what the primary had when they came."""
    listed = [one for name, one in info.items() if name.startswith("slave") and isinstance(one, dict)]
    return sum(one.get("state") == "online" for one in listed)
