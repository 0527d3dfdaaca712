"""What the scripts that change a trigger set take of each trigger, prepared outside Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from app.models import Definition
from app.schedule import schedule_of
from app.schedule.late import slots_to_hold
from app.store import checks, definitions, outgoing, ticking
from app.store.shard import Shard, reply
from app.store.states import NOTES, NOTHING, read_state


async def build(
    shard: Shard,
    workspace: str,
    triggers: Sequence[tuple[str, Definition]],
    any_at: bool,
    *,
    in_set: bool,
) -> list[list[Any]]:
    """What the scripts take of each trigger: id, position, slots, enabled, rules, anchor, since when."""
    now = await shard.now_ms()
    intervals = [id_ for id_, one in triggers if one.interval and not one.starts_at]
    anchors = await _anchors(shard, workspace, intervals)
    if not any_at:
        await checks.check_past(shard, workspace, triggers, now, in_set=in_set)
    await outgoing.check_secrets(shard, workspace, triggers, in_set=in_set)
    settled = await _settled(shard, workspace, triggers, now)
    slots = _FirstSlots(workspace, now, int(shard.settings.look_ahead_seconds * 1000))

    def compute() -> list[list[Any]]:
        built = []
        for id_, one in triggers:
            anchor = (anchors.get(id_) or now) if one.interval and not one.starts_at else 0
            first_slots = slots.of(id_, one, anchor) if one.enabled and id_ not in settled else []
            built.append([id_, -1, first_slots, one.enabled, rules_of(one), anchor, now])
        return built

    return await asyncio.to_thread(compute) if len(triggers) > 20 else compute()


def rules_of(definition: Definition) -> dict[str, Any] | bool:
    """What the scripts need to know of a definition, False where everything is usual (see ``_keys.lua``)."""
    rules: dict[str, Any] = {}
    if definition.overlap_policy != "allow":
        rules["overlap"] = definition.overlap_policy
    if definition.overlap_policy == "queue":
        rules["queue"] = definition.queue_limit
    if definition.start_deadline_seconds is not None:
        rules["deadline"] = int(definition.start_deadline_seconds * 1000)
    if definition.jitter_seconds:
        rules["jitter"] = definition.jitter_seconds * 1000
    if definition.max_runs:
        rules["max_runs"] = definition.max_runs
    if definition.delivery == "at_most_once":
        rules["once"] = True
    return rules or False


class _FirstSlots:
    """The first slots of definitions from one moment on; triggers that share a schedule share the work."""

    def __init__(self, workspace: str, now_ms: int, look_ahead_ms: int) -> None:
        self._workspace, self._now, self._look_ahead = workspace, now_ms, look_ahead_ms
        self._known: dict[Any, list[int]] = {}

    def of(self, trigger: str, definition: Definition, anchor: int) -> list[int]:
        """A trigger's next slot and those to hold. A past one-off comes only where it is caught up."""
        schedule = schedule_of(definition, self._workspace, trigger, anchor)
        if schedule.key not in self._known:
            after = self._now
            if definition.at and definition.catch_up_missed:
                after = min(after, definition.at - 1)
            until = self._now + self._look_ahead
            self._known[schedule.key] = slots_to_hold(
                schedule, after, until, ticking.SLOTS_LEAST, ticking.SLOTS_MOST
            )
        return self._known[schedule.key]


async def _settled(
    shard: Shard, workspace: str, triggers: Sequence[tuple[str, Definition]], now: int
) -> set[str]:
    """Past one-offs whose moment is that of the trigger as it is: what was due then is accounted for, and is
    not sent again because something else is changed.
    """
    past = {id_: one.at for id_, one in triggers if one.at and one.at <= now}
    if not past:
        return set()
    of, ids = shard.keys.of, list(past)
    live = await definitions.read(shard, workspace, ids)
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.zmscore(of(workspace, "due"), ids)
        pipe.smismember(of(workspace, "dry"), ids)
        due, dry = await pipe.execute()
    return {
        id_
        for id_, known, slot, is_dry in zip(ids, live, due, dry, strict=True)
        if known is not None and known.at == past[id_] and slot is None and not is_dry
    }


async def _anchors(shard: Shard, workspace: str, ids: Sequence[str]) -> dict[str, int]:
    """From where the intervals of triggers count, of those that are there."""
    if not ids:
        return {}
    found = await reply(shard.redis.hmget(shard.keys.of(workspace, "states"), list(ids)))
    anchors = {}
    for id_, packed in zip(ids, found, strict=True):
        notes = (read_state(packed) or NOTHING)[NOTES]
        if notes and "anchor" in notes:
            anchors[id_] = notes["anchor"]
    return anchors
