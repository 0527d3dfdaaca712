"""The workers that there are: each tells about itself with every heartbeat."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec
from msgspec import Struct

from app.store.shard import Shard, pack

HEARTBEAT_SECONDS = 5
SILENT_MS = 3 * HEARTBEAT_SECONDS * 1000  # after so long it may be dead
_SEAT_MS = 2 * HEARTBEAT_SECONDS * 1000  # for so long a heartbeat keeps a worker on duty
_FORGOTTEN_MS = 600_000  # after so long nobody waits for it any more
_MOST = 10_000
_LACKING_MS = 120_000  # longer than between two looks at what waits for a key


class Facts(Struct, frozen=True, kw_only=True):
    """What a worker tells. Times are ms since the epoch, by Redis's clock."""

    name: str
    version: str
    started: int
    capacity: int  # requests at once at most
    running: int
    tick_lag: int = 0  # ms, how late its ticker came to a due slot, the most since the heartbeat before
    lacked_key: int = 0  # when it last met something that it has no key for; 0: never


class Seen(Struct, frozen=True):
    """A worker as it was heard of last."""

    id: str  # of the process, the same in every shard that it serves
    facts: Facts
    at: int

    def is_silent(self, now: int) -> bool:
        """Whether its heartbeats have stopped without a farewell."""
        return now - self.at > SILENT_MS

    def lacks_key(self, now: int) -> bool:
        """Whether it has met things lately that it has no key for."""
        return now - self.facts.lacked_key < _LACKING_MS


_decode = msgspec.msgpack.Decoder(Facts).decode


async def note(shard: Shard, worker: str, facts: Facts, takes: bool = True) -> tuple[bool, bool]:
    """A heartbeat of a process; ``worker`` differs between restarts. Returns whether it is on duty, and
    whether there are others that are not. One that takes nothing more, or has no place free, has no seat, and
    is on duty only while nobody has one.
    """
    seats = shard.settings.workers_on_duty
    wanted = seats if takes and facts.running < facts.capacity else 0
    seated, known = await shard.run(
        "note_worker", worker, pack(facts), _FORGOTTEN_MS, _MOST, wanted, _SEAT_MS
    )
    return bool(seated), known > seats


async def leave(shard: Shard, worker: str) -> None:
    """A worker stops: nobody need wait for it."""
    await shard.run("note_worker", worker, "", _FORGOTTEN_MS, _MOST, 0, _SEAT_MS)


async def all_seen(shard: Shard) -> list[Seen]:
    """Every worker that is known, by name."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.zrange(shard.keys.workers, 0, -1, withscores=True)
        pipe.hgetall(shard.keys.worker_facts)
        heard, facts = await pipe.execute()
    return merge(
        Seen(worker.decode(), _decode(facts[worker]), int(at)) for worker, at in heard if worker in facts
    )


def merge(seen: Iterable[Seen]) -> list[Seen]:
    """What several shards know, a process each: it sends for all of them, in the same places."""
    merged: dict[str, Seen] = {}
    for one in seen:
        known = merged.get(one.id)
        merged[one.id] = one if known is None else _together(known, one)
    return sorted(merged.values(), key=lambda one: (one.facts.name, one.facts.started))


def _together(known: Seen, other: Seen) -> Seen:
    facts = msgspec.structs.replace(
        known.facts,
        started=min(known.facts.started, other.facts.started),
        running=known.facts.running + other.facts.running,
        tick_lag=max(known.facts.tick_lag, other.facts.tick_lag),
        lacked_key=max(known.facts.lacked_key, other.facts.lacked_key),
    )
    return Seen(known.id, facts, max(known.at, other.at))
