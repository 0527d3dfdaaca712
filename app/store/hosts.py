"""Places at target hosts: so many requests at once to one of them, over all workers of the shard."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from app.store.queue import Claimed
from app.store.shard import Shard, pack

Place = tuple[str, str]  # an execution, and the host that it has a place at


async def enter(shard: Shard, worker: str, wanted: Sequence[tuple[Claimed, str]]) -> list[bool]:
    """Whether each execution has a place at its host; the others are not this worker's any more, and wait."""
    entries = [[one.id, one.token, host] for one, host in wanted]
    reply = await shard.run("enter_hosts", *_common(shard, worker), pack(entries))
    return [bool(one) for one in reply]


async def keep(
    shard: Shard, worker: str, renewed: Iterable[Place], left: Iterable[Place], look_around: bool
) -> bool:
    """Renew places and give others up; who waits is called, with ``look_around`` into lost ones, too.

    Returns whether that is to be done again soon: so many wait that one call does not get through.
    """
    is_left = await shard.run(
        "keep_hosts",
        *_common(shard, worker),
        pack(list(renewed)),
        pack(list(left)),
        int(look_around),
    )
    return bool(is_left)


def _common(shard: Shard, worker: str) -> tuple[bytes, str, int, int]:
    settings = shard.settings
    return shard.policy, worker, settings.max_concurrency_per_host, int(settings.lease_seconds * 1000)
