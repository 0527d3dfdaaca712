"""What the scripts that change a trigger set take of each trigger, prepared outside Redis."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from app.errors import InvalidSchedule, SealError
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
    held: bool = False,
) -> list[list[Any]]:
    """What the scripts take of each trigger: id, position, slots, enabled, rules, anchor, since when, and
    what becomes of its overdue slots (``lua/_trigger.lua``). ``held``: those could not be fired before.
    """
    now = await shard.now_ms()
    intervals = [id_ for id_, one in triggers if one.interval and not one.starts_at]
    anchors = await _anchors(shard, workspace, intervals)
    if not any_at:
        await checks.check_past(shard, workspace, triggers, now, in_set=in_set)
    await outgoing.check_secrets(shard, workspace, triggers, in_set=in_set)
    settled = await _settled(shard, workspace, triggers, now)
    live = await _live(shard, workspace, [id_ for id_, _ in triggers]) if held else {}
    slots = _FirstSlots(workspace, now, int(shard.settings.look_ahead_seconds * 1000))

    def compute() -> list[list[Any]]:
        built = []
        for id_, one in triggers:
            anchor = (anchors.get(id_) or now) if one.interval and not one.starts_at else 0
            first_slots = slots.of(id_, one, anchor) if one.enabled and id_ not in settled else []
            overdue = ""
            if held:
                overdue = "keep" if _goes_on(workspace, id_, live.get(id_), one, anchor) else "drop"
            built.append([id_, -1, first_slots, one.enabled, rules_of(one), anchor, now, overdue])
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
    live = await _live(shard, workspace, ids)
    async with shard.redis.pipeline(transaction=False) as pipe:
        pipe.zmscore(of(workspace, "due"), ids)
        pipe.smismember(of(workspace, "dry"), ids)
        due, dry = await pipe.execute()
    return {
        id_
        for id_, slot, is_dry in zip(ids, due, dry, strict=True)
        if id_ in live and live[id_].at == past[id_] and slot is None and not is_dry
    }


async def _live(shard: Shard, workspace: str, ids: Sequence[str]) -> dict[str, Definition]:
    """The definitions of some triggers as they are, without those that can't be read."""
    found = {}
    for id_, packed in zip(ids, await definitions.read_stored(shard, workspace, ids), strict=True):
        with suppress(SealError):
            if packed is not None:
                found[id_] = definitions.unsealed(shard, packed)
    return found


def _goes_on(workspace: str, id_: str, live: Definition | None, one: Definition, anchor: int) -> bool:
    """Whether a trigger's slots stay the same."""
    if live is None:
        return False
    with suppress(InvalidSchedule):
        return schedule_of(live, workspace, id_, anchor).key == schedule_of(one, workspace, id_, anchor).key
    return False


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
