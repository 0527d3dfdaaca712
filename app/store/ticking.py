"""Moving schedules on: firing what is due, and computing the slots after that."""

from __future__ import annotations

import asyncio
import logging

from msgspec import Struct

from app.errors import InvalidSchedule
from app.models import unpack_definition
from app.store.shard import Shard, pack, unpack
from app.store.triggers import slots_to_hold

log = logging.getLogger(__name__)

_HELD = 4  # where the held slots begin in a trigger's state, see store/lua/_keys.lua
_REFILL_LEASE_MS = 20_000


class Fired(Struct, frozen=True):
    """What a call of the fire script did. Times are ms since the epoch, by Redis's clock."""

    made: int  # executions put into the queue or a backlog
    handled: int  # slots: these, and the missed and skipped ones
    now: int
    next_slot: int | None  # the earliest in the due index
    dry: int  # triggers that hold no further slot until they are refilled


async def fire_due(shard: Shard) -> Fired:
    """Turn up to ``fire_batch`` due slots into executions."""
    settings = shard.settings
    made, handled, now, next_slot, dry = await shard.run(
        "fire_due",
        shard.policy,
        int(settings.lease_seconds * 1000),
        settings.fire_batch,
        int(settings.start_deadline_seconds * 1000),
        int(settings.look_ahead_seconds * 1000),
        settings.max_backlog,
    )
    return Fired(made, handled, now, None if next_slot < 0 else next_slot, dry)


async def refill(shard: Shard, at_most: int = 200) -> int:
    """Compute and store further slots of triggers whose held ones run low; returns how many were looked at.

    A trigger whose slots can't be computed gets an error that its readers see, and holds up no other.
    """
    chores, _ = await shard.take_chores(shard.keys.refills, at_most, _REFILL_LEASE_MS)
    if not chores:
        return 0
    wanted = [chore.decode().split(":") for chore in chores]
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace, trigger in wanted:
            pipe.hget(shard.keys.of(workspace, "definitions"), trigger)
            pipe.hget(shard.keys.of(workspace, "states"), trigger)
            pipe.zscore(shard.keys.of(workspace, "due"), trigger)
        found = await pipe.execute()
    now = await shard.now_ms()
    look_ahead = int(shard.settings.look_ahead_seconds * 1000)
    refills = []
    for index, (workspace, trigger) in enumerate(wanted):
        await asyncio.sleep(0)  # a rare schedule takes ms to compute: requests and leases go on in between
        packed, state, due = found[index * 3 : index * 3 + 3]
        if packed is None or state is None:
            refills.append([workspace, trigger, 0, 0, [], ""])  # removed: the script drops the chore
            continue
        state = unpack(state)
        base = state[-1] if len(state) > _HELD else int(due if due is not None else state[_HELD - 1])
        slots: list[int] = []
        error = ""
        try:
            slots = slots_to_hold(unpack_definition(packed), base, now, look_ahead)
        except InvalidSchedule as problem:
            error = str(problem)
        except Exception as problem:
            log.exception("the slots of %s:%s can't be computed", workspace, trigger)
            error = f"{type(problem).__name__}: {problem}"
        if not slots and not error:
            error = "the schedule has no further slot"
        refills.append([workspace, trigger, state[1], base, slots, error])
    await shard.run("store_refills", pack(refills))
    return len(refills)
