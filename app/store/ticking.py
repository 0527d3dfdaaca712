"""Moving schedules on: firing what is due, and computing the slots after that."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from app.errors import InvalidSchedule, SealError
from app.models import KEY_WAIT_MS
from app.schedule import schedule_of
from app.schedule.late import judge_overdue, slots_to_hold
from app.store import definitions, witness
from app.store.shard import Shard, pack, unpack
from app.store.states import AFTER, HELD, NOTES, VERSION, read_state
from app.witness import Loss

log = logging.getLogger(__name__)

_REFILL_LEASE_MS = 20_000
_UNREADABLE = "the stored state is unreadable; replace the trigger"  # as in lua/fire_due.lua

# How many slots are computed at once for a trigger: its next one and those that it holds.
SLOTS_LEAST, SLOTS_MOST = 3, 400
_RECORDS_OF_ONE, _RECORDS_AT_ONCE = 20, 500  # missed slots that get a record each: of a trigger, of a refill


class Fired(Struct, frozen=True):
    """What a call of the fire script did. Times are ms since the epoch, by Redis's clock."""

    made: int  # executions put into the queue or a backlog
    handled: int  # slots: these, and the missed and skipped ones
    now: int
    next_look: int | None  # when there is more to do: the earliest slot, or a rate lets the next execution in
    dry: list[str]  # triggers (workspace:trigger) that hold no further slot until they are refilled


async def fire_due(shard: Shard, only: str = "") -> Fired:
    """Turn up to ``fire_batch`` due slots into executions, of one workspace or of all; none while firing is
    held (see :mod:`app.witness`)."""
    settings = shard.settings
    made, handled, now, next_look, dry, verdict = await shard.run(
        "fire_due",
        shard.policy,
        int(settings.lease_seconds * 1000),
        settings.fire_batch,
        int(settings.start_deadline_seconds * 1000),
        int(settings.look_ahead_seconds * 1000),
        only,
        witness.testimony(shard),
    )
    witness.hear(shard, verdict, now)
    return Fired(made, handled, now, None if next_look < 0 else next_look, [one.decode() for one in dry])


async def refill(shard: Shard, at_most: int = 200) -> int:
    """Compute and store further slots where the held ones run low; returns how many triggers it were.

    While firing is held nothing is judged: neither time nor data can be trusted.
    """
    if shard.witness.why:
        return 0
    chores, _ = await shard.take_chores(shard.keys.refills, at_most, _REFILL_LEASE_MS)
    await refill_some(shard, [chore.decode() for chore in chores])
    return len(chores)


async def refill_some(shard: Shard, chores: Sequence[str]) -> None:
    """Compute and store further slots of triggers (``workspace:trigger``); judge those found too late.

    A trigger whose slots can't be computed gets an error that its readers see, and holds up no other. Where
    that is for want of a key, its slots are not late for that time, unless it sets a deadline itself.
    """
    if not chores:
        return
    wanted = [chore.split(":") for chore in chores]
    of = shard.keys.of
    workspaces = list(dict.fromkeys(workspace for workspace, _ in wanted))
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace in workspaces:
            pipe.hmget(of(workspace, "meta"), ["spans", "paused"])
        for workspace, trigger in wanted:
            pipe.hget(of(workspace, "definitions"), trigger)
            pipe.hget(of(workspace, "states"), trigger)
            pipe.zscore(of(workspace, "due"), trigger)
        found = await pipe.execute()
    now = await witness.watch(shard)
    if now is None:
        return
    lost = await witness.losses(shard)
    spans = {
        workspace: _spans(former, paused, now)
        for workspace, (former, paused) in zip(workspaces, found[: len(workspaces)], strict=True)
    }
    found = found[len(workspaces) :]
    refills = []
    records = _RECORDS_AT_ONCE
    for index, (workspace, trigger) in enumerate(wanted):
        await asyncio.sleep(0)  # a rare schedule takes ms to compute: requests and leases go on in between
        packed, state, due = found[index * 3 : index * 3 + 3]
        if packed is None or state is None:
            # Removed: the script drops the chore.
            refills.append([workspace, trigger, 0, 0, [], "", [], 0, False])
            continue
        known = read_state(state)
        if known is None:
            refills.append([workspace, trigger, 0, 0, [], _UNREADABLE, [], 0, False])
            continue
        one = _compute(shard, workspace, trigger, packed, known, due, now, records, spans, lost)
        records -= sum(len(run.slots) for run in one[6])
        refills.append(one)
    await shard.run("store_refills", shard.policy, pack(refills))


def _spans(former: bytes | None, paused: bytes | None, now: int) -> list[tuple[int, int]]:
    """The spans in which a workspace was paused, up to now."""
    spans = [(span[0], span[1]) for span in unpack(former)] if former else []
    return [*spans, (unpack(paused)[0], now)] if paused else spans


def _compute(
    shard: Shard,
    workspace: str,
    trigger: str,
    packed: bytes,
    state: list[Any],
    due: float | None,
    now: int,
    records: int,
    all_spans: dict[str, list[tuple[int, int]]],
    lost: Sequence[Loss],
) -> list[Any]:
    """The refill of one trigger as the script takes it."""
    base = state[-1] if len(state) > HELD else int(due if due is not None else state[AFTER])
    refill = [workspace, trigger, state[VERSION], base]
    notes = state[NOTES] or {}
    spans = all_spans[workspace]
    settings = shard.settings
    try:
        definition = definitions.unsealed(shard, packed)
        schedule = schedule_of(definition, workspace, trigger, notes.get("anchor", 0))
        after, missed, caught = base, [], 0
        if due is None:
            deadline = definition.start_deadline_seconds
            if deadline is None:
                waited = min(now - notes.get("sealed", now), KEY_WAIT_MS)
                late_by = int(settings.start_deadline_seconds * 1000) + waited
            else:
                waited, late_by = 0, int(deadline * 1000)
            overdue = judge_overdue(
                schedule,
                definition,
                base,
                now,
                deadline=late_by,
                cap=settings.max_catch_up,
                records=min(_RECORDS_OF_ONE, records),
                spans=spans,
                lost=[(loss.since, loss.until) for loss in lost],
            )
            after, missed, caught = overdue.after, overdue.missed, now if waited else overdue.caught
        until = now + int(settings.look_ahead_seconds * 1000)
        slots = slots_to_hold(schedule, after, until, SLOTS_LEAST, SLOTS_MOST, spans)
    except (InvalidSchedule, SealError) as problem:
        return [*refill, [], str(problem), [], 0, isinstance(problem, SealError)]
    except Exception as problem:
        log.exception("its slots can't be computed", extra={"workspace": workspace, "trigger": trigger})
        return [*refill, [], f"{type(problem).__name__}: {problem}", [], 0, False]
    return [*refill, slots, "", missed, caught, False]
