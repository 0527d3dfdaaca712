"""A workspace's trigger set: replaced whole, read whole."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence

from app.errors import ReplaceConflict
from app.models import Changes, Definition, Replaced, Trigger, TriggerSet, pack_definition, unpack_definition
from app.schedule import schedule_of
from app.store.shard import Shard, pack, reply, unpack

_STAGE_BATCH = 250  # triggers a script call: about 2 ms of Redis's time
_TRIES = 8
_POSITION, _VERSION = 2, 1  # in a trigger's state, see store/lua/_keys.lua

# How many slots are computed at once for a trigger: its next one and those that it holds.
SLOTS_LEAST, SLOTS_MOST = 3, 400


async def replace(shard: Shard, workspace: str, triggers: Sequence[tuple[str, Definition]]) -> Replaced:
    """Put a set of (id, definition) in the place of the workspace's own, atomically.

    The new set is prepared in small steps beside the live one, then swapped in by one short script.
    Raises :class:`ReplaceConflict` when other replaces keep coming between.
    """
    packed = [pack_definition(definition) for _, definition in triggers]
    for _ in range(_TRIES):
        now = await shard.now_ms()
        slots = _FirstSlots(now, int(shard.settings.look_ahead_seconds * 1000))
        serial = await shard.run("take_serial")
        base = int(await reply(shard.redis.hget(shard.keys.of(workspace, "meta"), "revision")) or 0)
        counts: Counter[str] = Counter()
        next_slots: list[int | None] = []
        for start in range(0, len(triggers), _STAGE_BATCH):
            part = triggers[start : start + _STAGE_BATCH]
            first_slots = await asyncio.to_thread(slots.of, [definition for _, definition in part])
            batch = [[id_, start + index, first_slots[index]] for index, (id_, _) in enumerate(part)]
            changes, firsts = await shard.run(
                "stage_triggers", workspace, serial, pack(batch), *packed[start : start + _STAGE_BATCH]
            )
            counts.update(change.decode() for change in changes)
            next_slots += [None if first < 0 else first for first in firsts]
        unchanged = counts["unchanged"] + counts["moved"]
        swap = (workspace, serial, base, len(triggers), unchanged + counts["updated"])
        altered = int(bool(counts["created"] or counts["updated"] or counts["moved"]))
        with_slots = sum(definition.enabled for _, definition in triggers)
        status = b"again"
        while status == b"again":
            status, revision, old_size = await shard.run("swap_triggers", *swap, altered, with_slots)
        if status == b"swapped":
            return Replaced(
                revision=revision,
                removed=old_size,
                added=len(triggers),
                changes=Changes(
                    created=counts["created"],
                    updated=counts["updated"],
                    unchanged=unchanged,
                    deleted=old_size - unchanged - counts["updated"],
                ),
                next_slots=next_slots,
            )
    raise ReplaceConflict("Other replaces of this workspace kept coming between; try again.")


class _FirstSlots:
    """The first slots of definitions from one moment on; triggers that share a schedule share the work."""

    def __init__(self, now_ms: int, look_ahead_ms: int) -> None:
        self._now, self._look_ahead = now_ms, look_ahead_ms
        self._known: dict[tuple[str, str], list[int]] = {}

    def of(self, definitions: Sequence[Definition]) -> list[list[int]]:
        """For each its next slot and those to hold; none for a disabled trigger."""
        return [self._of(definition) for definition in definitions]

    def _of(self, definition: Definition) -> list[int]:
        if not definition.enabled:
            return []
        key = definition.cron, definition.timezone
        if key not in self._known:
            self._known[key] = slots_to_hold(definition, self._now, self._now, self._look_ahead)
        return self._known[key]


def slots_to_hold(definition: Definition, base_ms: int, now_ms: int, look_ahead_ms: int) -> list[int]:
    """The slots after ``base_ms``: a few at least, and all within the look-ahead, up to a bound."""
    schedule = schedule_of(definition, "", "", 0)
    return schedule.slots(base_ms, SLOTS_LEAST, now_ms + look_ahead_ms, SLOTS_MOST)


async def read(shard: Shard, workspace: str) -> TriggerSet:
    """The whole set, from one moment."""
    key = shard.keys.of
    async with shard.redis.pipeline(transaction=True) as pipe:
        pipe.hget(key(workspace, "meta"), "revision")
        pipe.hgetall(key(workspace, "definitions"))
        pipe.hgetall(key(workspace, "states"))
        pipe.zrange(key(workspace, "due"), 0, -1, withscores=True)
        pipe.hgetall(key(workspace, "errors"))
        revision, definitions, states, due, errors = await pipe.execute()
    slots = dict(due)
    triggers = []
    for id_, packed in definitions.items():
        state = unpack(states[id_])
        error = errors.get(id_)
        triggers.append(
            Trigger(
                id=id_.decode(),
                definition=unpack_definition(packed),
                position=state[_POSITION],
                version=state[_VERSION],
                next_slot=int(slots[id_]) if id_ in slots else None,
                error=error.decode() if error else None,
            )
        )
    triggers.sort(key=lambda trigger: trigger.position)
    return TriggerSet(int(revision or 0), triggers)


async def read_definitions(shard: Shard, workspace: str, ids: Sequence[str]) -> list[Definition | None]:
    """The stored definitions of some triggers, None where there is none."""
    if not ids:
        return []
    found = await reply(shard.redis.hmget(shard.keys.of(workspace, "definitions"), list(ids)))
    return [None if packed is None else unpack_definition(packed) for packed in found]


async def workspaces_exist(shard: Shard) -> bool:
    """Whether any workspace has ever had a set."""
    return bool(await shard.redis.exists(shard.keys.workspaces))
