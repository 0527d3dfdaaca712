"""Reading triggers: one, some, the whole set, or page by page in the order in which they were declared."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct, structs

from app.models import Pause, Standing, Trigger, TriggerSet
from app.store import definitions
from app.store.executions import unpack_last_slots
from app.store.shard import Shard, reply, unpack
from app.store.states import BORN, NOTES, NOTHING, POSITION, VERSION, position_of, read_state

_STEP = 500  # triggers read at once
_LOOKED_AT = 10_000  # triggers that one page looks at; a rare match may be on the next
_ORDERS_KEPT = 32  # workspaces whose order a process remembers

# What is read of each trigger: hash or set → command, in the order in which _trigger takes it.
_PARTS = ("definitions", "states", "errors", "pauses", "disabled")


class Found(Struct, frozen=True):
    """A page of triggers, and from which position the next begins (None: there is none)."""

    revision: int
    triggers: list[Trigger]
    next_position: int | None


class Soonest(Struct, frozen=True):
    """A page of triggers by their next slot, and after which (slot, id) the next begins, if any does."""

    revision: int
    triggers: list[Trigger]
    next_place: tuple[int, str] | None


async def read(shard: Shard, workspace: str) -> TriggerSet:
    """The whole set, from one moment, without the last slots."""
    of = shard.keys.of
    async with shard.redis.pipeline(transaction=True) as pipe:
        pipe.hget(of(workspace, "meta"), "revision")
        pipe.zrange(of(workspace, "due"), 0, -1, withscores=True)
        pipe.smembers(of(workspace, "finished"))
        for part in _PARTS:
            pipe.hgetall(of(workspace, part))
        revision, due, finished, *parts = await shard.read_together(pipe)
    slots = dict(due)
    triggers = [
        _trigger(shard, id_, [part.get(id_) for part in parts], slots.get(id_), id_ in finished)
        for id_ in parts[0]
    ]
    triggers.sort(key=lambda trigger: trigger.position)
    return TriggerSet(int(revision or 0), triggers)


async def read_some(shard: Shard, workspace: str, ids: Sequence[str]) -> list[Trigger | None]:
    """Some triggers with their last slot; None where there is none."""
    if not ids:
        return []
    of, wanted = shard.keys.of, list(ids)
    async with shard.redis.pipeline(transaction=True) as pipe:
        pipe.zmscore(of(workspace, "due"), wanted)
        pipe.smismember(of(workspace, "finished"), wanted)
        for part in (*_PARTS, "last"):
            pipe.hmget(of(workspace, part), wanted)
        slots, finished, *parts, last = await shard.read_together(pipe)
    return [
        None
        if parts[0][index] is None
        else _trigger(
            shard,
            id_.encode(),
            [part[index] for part in parts],
            slots[index],
            bool(finished[index]),
            last[index],
        )
        for index, id_ in enumerate(wanted)
    ]


async def read_one(shard: Shard, workspace: str, trigger: str) -> Trigger | None:
    """One trigger with its last slot, or None."""
    return (await read_some(shard, workspace, [trigger]))[0]


async def find(
    shard: Shard,
    workspace: str,
    matches: Callable[[Trigger], bool] = lambda trigger: True,
    *,
    after: int = -1,
    limit: int = 100,
) -> Found:
    """Up to ``limit`` triggers that match, from those declared after a position on.

    Looks at a bounded number of triggers, so a page may hold fewer than there are.
    """
    revision, order = await _order(shard, workspace)
    start = next((i for i, (position, _) in enumerate(order) if position > after), len(order))
    found: list[Trigger] = []
    for step in range(start, min(len(order), start + _LOOKED_AT), _STEP):
        some = order[step : min(step + _STEP, start + _LOOKED_AT)]
        for trigger in await read_some(shard, workspace, [id_ for _, id_ in some]):
            if trigger is not None and matches(trigger):
                if len(found) == limit:
                    return Found(revision, found, found[-1].position)
                found.append(trigger)
    end = start + _LOOKED_AT
    return Found(revision, found, order[end - 1][0] if end < len(order) else None)


async def with_last(shard: Shard, workspace: str, triggers: Sequence[Trigger]) -> list[Trigger]:
    """Triggers with their last slots, which are read in steps."""
    found: list[Trigger] = []
    for start in range(0, len(triggers), _STEP):
        some = triggers[start : start + _STEP]
        packed = await reply(
            shard.redis.hmget(shard.keys.of(workspace, "last"), [trigger.id for trigger in some])
        )
        for trigger, last in zip(some, packed, strict=True):
            slots = unpack_last_slots(last) if last else []
            found.append(structs.replace(trigger, last=slots[0] if slots else None))
    return found


async def soonest(
    shard: Shard,
    workspace: str,
    matches: Callable[[Trigger], bool] = lambda trigger: True,
    *,
    after: tuple[int, str] | None = None,
    limit: int = 100,
) -> Soonest:
    """Up to ``limit`` triggers that match by their next slot, from those after a (slot, id) on.

    Looks at a bounded number of triggers, so a page may hold fewer than there are.
    """
    due = shard.keys.of(workspace, "due")
    revision = int(await reply(shard.redis.hget(shard.keys.of(workspace, "meta"), "revision")) or 0)
    rank = 0 if after is None else await _rank_after(shard, due, after)
    found: list[Trigger] = []
    place = after
    for start in range(rank, rank + _LOOKED_AT, _STEP):
        some = await shard.redis.zrange(due, start, start + _STEP - 1, withscores=True)
        places = [(int(slot), id_.decode()) for id_, slot in some]
        triggers = await read_some(shard, workspace, [id_ for _, id_ in places])
        for this, trigger in zip(places, triggers, strict=True):
            if trigger is not None and matches(trigger):
                if len(found) == limit:
                    return Soonest(revision, found, place)
                found.append(trigger)
            place = this
        if len(some) < _STEP:
            return Soonest(revision, found, None)
    return Soonest(revision, found, place)


async def _rank_after(shard: Shard, due: str, place: tuple[int, str]) -> int:
    """The rank of the first member after a place, which may have moved: then the first of its slot."""
    slot, id_ = place
    async with shard.redis.pipeline(transaction=True) as pipe:
        pipe.zscore(due, id_)
        pipe.zrank(due, id_)
        pipe.zcount(due, "-inf", f"({slot}")
        score, rank, before = await shard.read_together(pipe)
    return int(rank) + 1 if score == slot else int(before)


async def size(shard: Shard, workspace: str) -> int:
    """How many triggers a set has."""
    return int(await reply(shard.redis.hlen(shard.keys.of(workspace, "definitions"))))


async def all_ids(shard: Shard, workspace: str) -> list[str]:
    """The ids of all triggers, in their order."""
    return [id_ for _, id_ in (await _order(shard, workspace))[1]]


_Order = list[tuple[int, str]]  # position, trigger
_orders: dict[tuple[int, str], tuple[bytes, _Order]] = {}


async def _order(shard: Shard, workspace: str) -> tuple[int, _Order]:
    """Revision and order of a set; the order is remembered until the set changes."""
    meta = shard.keys.of(workspace, "meta")
    key = id(shard), workspace
    serial, revision = await reply(shard.redis.hmget(meta, ["serial", "revision"]))
    known = _orders.pop(key, None)
    if known is None or known[0] != serial:
        states = await reply(shard.redis.hgetall(shard.keys.of(workspace, "states")))
        known = (
            serial,
            sorted((position_of(state), id_.decode()) for id_, state in states.items()),
        )
    _orders[key] = known
    while len(_orders) > _ORDERS_KEPT:
        del _orders[next(iter(_orders))]
    return int(revision or 0), known[1]


def _trigger(
    shard: Shard,
    id_: bytes,
    parts: list[bytes | None],
    slot: float | None,
    finished: bool,
    last: bytes | None = None,
) -> Trigger:
    definition, packed, error, held, disabled = parts
    assert definition is not None
    state = read_state(packed) or NOTHING
    pause = unpack(held) if held else None
    if pause is not None and pause[2] != state[BORN]:
        pause = None  # of an earlier trigger of that id
    standing = Standing.ACTIVE
    if disabled:
        standing = Standing.DISABLED
    elif pause:
        standing = Standing.PAUSED
    elif finished:
        standing = Standing.FINISHED
    elif error:
        standing = Standing.ERROR
    notes = state[NOTES] or {}
    slots = unpack_last_slots(last) if last else []
    return Trigger(
        id=id_.decode(),
        definition=definitions.unsealed(shard, definition),
        position=state[POSITION],
        version=state[VERSION],
        standing=standing,
        next_slot=None if slot is None else int(slot),
        error=error.decode() if error else None,
        pause=Pause(pause[0], pause[1]) if pause else None,
        disabled_since=int(disabled) if disabled else None,
        runs=notes.get("runs", 0),
        anchor=notes.get("anchor", 0),
        last=slots[0] if slots else None,
    )
