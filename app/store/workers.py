"""The workers that there are: each tells about itself with every heartbeat."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from app.store.shard import Shard, pack

HEARTBEAT_SECONDS = 5
SILENT_MS = 3 * HEARTBEAT_SECONDS * 1000  # after so long it may be dead
_FORGOTTEN_MS = 600_000  # after so long nobody waits for it any more
_MOST = 10_000


class Facts(Struct, frozen=True, kw_only=True):
    """What a worker tells. Times are ms since the epoch, by Redis's clock."""

    name: str
    version: str
    started: int
    capacity: int  # requests at once at most
    running: int
    tick_lag: int = 0  # ms, how late its ticker came to a due slot, the most since the heartbeat before


class Seen(Struct, frozen=True):
    """A worker as it was heard of last."""

    facts: Facts
    at: int

    def is_silent(self, now: int) -> bool:
        """Whether its heartbeats have stopped without a farewell."""
        return now - self.at > SILENT_MS


_decode = msgspec.msgpack.Decoder(Facts).decode


async def note(shard: Shard, worker: str, facts: Facts) -> None:
    """A heartbeat; ``worker`` differs between restarts."""
    await shard.run("note_worker", worker, pack(facts), _FORGOTTEN_MS, _MOST)


async def leave(shard: Shard, worker: str) -> None:
    """A worker stops: nobody need wait for it."""
    await shard.run("note_worker", worker, "", _FORGOTTEN_MS, _MOST)


async def all_seen(shard: Shard) -> list[Seen]:
    """Every worker that is known, by name."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.zrange(shard.keys.workers, 0, -1, withscores=True)
        pipe.hgetall(shard.keys.worker_facts)
        heard, facts = await pipe.execute()
    found = [Seen(_decode(facts[worker]), int(at)) for worker, at in heard if worker in facts]
    return sorted(found, key=lambda one: (one.facts.name, one.facts.started))
