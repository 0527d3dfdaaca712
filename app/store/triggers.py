"""A workspace's trigger set: replaced whole, or edited trigger by trigger. Each change is a revision.

A change is prepared outside Redis beside the set as it was read, and goes in by compare-and-set on the serial
of the last change: when another one came between, it is prepared anew.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace as replaced
from redis.exceptions import ResponseError

from app.errors import ReplaceConflict, StoreUnavailable, WorkspaceErasing
from app.models import Changes, Definition, Replaced, pack_definition
from app.store import checks, definitions, entries, revisions, sizes, ticking
from app.store.shard import Shard, pack, reply
from app.store.states import position_of

T = TypeVar("T")
P = ParamSpec("P")

_STAGE_BATCH = 250  # triggers a script call: about 2 ms of Redis's time
EDIT_MOST = 250
_TRIES = 8
_REFILLED_AT_ONCE = 200
_FIRE_ROUNDS = 400  # before a change: slots that are due are fired first, in rounds of a script call


class Edited(Struct, frozen=True):
    """The outcome of an edit, in the order of the triggers that were put."""

    revision: int
    changes: dict[str, str]  # trigger → created, updated, unchanged, deleted
    next_slots: dict[str, int | None]


def _in_turn(
    change: Callable[Concatenate[Shard, str, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[Shard, str, P], Coroutine[Any, Any, T]]:
    """Wait for the changes of the workspace before this one: side by side, all but one were in vain."""

    @wraps(change)
    async def in_turn(shard: Shard, workspace: str, /, *args: P.args, **kwargs: P.kwargs) -> T:
        async with shard.turn(workspace):
            return await change(shard, workspace, *args, **kwargs)

    return in_turn


@_in_turn
async def replace(
    shard: Shard,
    workspace: str,
    triggers: Sequence[tuple[str, Definition]],
    *,
    if_revision: int | None = None,
    confirmed: bool = False,
    action: str = "replace",
) -> Replaced:
    """Put a set of (id, definition) in the place of the workspace's own, atomically.

    The new set is prepared in small steps beside the live one, then swapped in by one short script.

    Raises :class:`RevisionConflict` when the set is not at ``if_revision``, :class:`ConfirmationRequired`
    when more of it would go than the settings allow, :class:`TooManyTriggers` and :class:`SetTooLarge` when
    there would be more than they allow, :class:`InvalidRequest` for a new one-off in the past (but not
    with the action ``rollback``), and :class:`ReplaceConflict` when other changes keep coming between.
    """
    plain = [pack_definition(definition) for _, definition in triggers]
    keep, fire_first = shard.settings.keep_revisions, True
    for _ in range(_TRIES):
        serial = await shard.run("take_serial")
        base, revision, former = await _base(shard, workspace, if_revision)
        old_size = former.triggers
        packed = await definitions.to_store(shard, workspace, [id_ for id_, _ in triggers], plain)
        size = sizes.Size(len(triggers), sum(map(len, packed)))
        checks.check_size(shard, size, former)
        prepared = await entries.build(
            shard, workspace, triggers, action == "rollback", in_set=True, held=not fire_first
        )
        for position, entry in enumerate(prepared):
            entry[1] = position
        counts: Counter[str] = Counter()
        next_slots: list[int | None] = []
        undo: revisions.Undo = {}
        spans: list[tuple[str, int, str]] = []
        with_slots = 0
        for start in range(0, len(triggers), _STAGE_BATCH):
            end = start + _STAGE_BATCH
            changes, firsts, old, queued = await shard.run(
                "stage_triggers", workspace, serial, pack(prepared[start:end]), *packed[start:end]
            )
            with_slots += queued
            next_slots += [None if first < 0 else first for first in firsts]
            counts.update(change.decode() for change in changes)
            for index, change in enumerate(changes):
                if change == b"unchanged":
                    continue
                id_ = triggers[start + index][0]
                position, definition, since, what = old[index * 4 : index * 4 + 4]
                before = definition or packed[start + index]
                undo[id_] = None if change == b"created" else (position, before)
                if since >= 0:
                    spans.append((id_, since, what.decode()))
        kept = counts["unchanged"] + counts["moved"] + counts["updated"]
        deleted = old_size - kept
        if deleted > 0:
            checks.check_share(shard, deleted, old_size, confirmed)
            undo.update(await _removed(shard, workspace, {id_ for id_, _ in triggers}))
        made = Changes(
            created=counts["created"],
            updated=counts["updated"],
            unchanged=counts["unchanged"] + counts["moved"],
            deleted=deleted,
        )
        head = revisions.pack_head(await shard.now_ms(), action, len(triggers), made, counts["moved"])
        arguments = [workspace, serial, base, len(triggers), kept, int(bool(undo)), with_slots]
        arguments += [head, await asyncio.to_thread(revisions.pack_undo, shard.sealer, undo), keep]
        arguments += [shard.settings.max_set_bytes, size.bytes]
        status, has_fired = b"again", True
        while status in (b"again", b"due") and has_fired:
            status, revision, old_size = await shard.run("swap_triggers", *arguments, int(fire_first))
            if status == b"due":
                has_fired = await fire_before(shard, workspace)
        if not has_fired:
            fire_first = False  # prepared anew: what is overdue is to be judged later
        if status == b"erasing":
            raise WorkspaceErasing(f"The workspace {workspace!r} is being erased; try again in a moment.")
        if status == b"swapped":
            if spans:
                await shard.run("note_spans", shard.policy, workspace, pack(spans))
            return Replaced(
                revision=revision,
                removed=old_size,
                added=len(triggers),
                changes=made,
                next_slots=next_slots,
            )
    raise ReplaceConflict("Other changes of this workspace kept coming between; try again.")


@_in_turn
async def edit(
    shard: Shard,
    workspace: str,
    ids: Sequence[str],
    change: Callable[[Mapping[str, Definition | None]], Mapping[str, Definition | None]],
    *,
    if_revision: int | None = None,
    action: str = "edit",
) -> Edited:
    """Change up to :data:`EDIT_MOST` triggers as one revision.

    ``change`` gets the stored definitions of ``ids`` (None: there is none) and returns those wanted (None:
    delete); in a thread, because they may be large. It may be called again when another change came between.
    Raises as :func:`replace` does.
    """
    keep, fire_first = shard.settings.keep_revisions, True
    for _ in range(_TRIES):
        serial = await shard.run("take_serial")
        base, revision, former = await _base(shard, workspace, if_revision)
        current = dict(zip(ids, await definitions.read(shard, workspace, ids), strict=True))
        wanted = dict(await asyncio.to_thread(change, current))
        deletes = [id_ for id_, one in wanted.items() if one is None and current[id_] is not None]
        puts = [(id_, one) for id_, one in wanted.items() if one is not None]
        plain = [pack_definition(definition) for _, definition in puts]
        packed = await definitions.to_store(shard, workspace, [id_ for id_, _ in puts], plain)
        prepared = await entries.build(
            shard, workspace, puts, action == "rollback", in_set=False, held=not fire_first
        )
        undo = await _undo_of(shard, workspace, [*deletes, *(id_ for id_, _ in puts)])
        made = _changes_of(current, wanted, former.triggers)
        size = sizes.Size(
            former.triggers + made.created - made.deleted,
            former.bytes + sum(map(len, packed)) - sum(len(one[1]) for one in undo.values() if one),
        )
        if not _only_switched(current, wanted):  # what does harm can be stopped at any size
            checks.check_size(shard, size, former)
        arguments = [shard.policy, workspace, serial, base, pack(deletes), pack(prepared)]
        arguments += [
            revisions.pack_head(await shard.now_ms(), action, size.triggers, made, 0),
            await asyncio.to_thread(revisions.pack_undo, shard.sealer, undo),
        ]
        arguments += [keep, shard.settings.max_set_bytes, size.bytes]
        answer = await shard.run("edit_triggers", *arguments, int(fire_first), *packed)
        status = answer[0]
        if status == b"due":  # prepared anew after that: the slots that fire now may not come again
            fire_first = await fire_before(shard, workspace)
        if status == b"erasing":
            raise WorkspaceErasing(f"The workspace {workspace!r} is being erased; try again in a moment.")
        if status == b"done":
            _, revision, changes, firsts = answer
            slots = {id_: None if first < 0 else first for (id_, _), first in zip(puts, firsts, strict=True)}
            became = {id_: what.decode() for (id_, _), what in zip(puts, changes, strict=True)}
            return Edited(revision, {**became, **dict.fromkeys(deletes, "deleted")}, slots)
    raise ReplaceConflict("Other changes of this workspace kept coming between; try again.")


async def check_fits(shard: Shard, workspace: str, triggers: Sequence[tuple[str, Definition]]) -> None:
    """Raise what :func:`replace` would where a set is too large."""
    plain = [pack_definition(definition) for _, definition in triggers]
    packed = await definitions.to_store(shard, workspace, [id_ for id_, _ in triggers], plain)
    size = sizes.Size(len(triggers), sum(map(len, packed)))
    checks.check_size(shard, size, await sizes.read(shard, workspace))


async def fire_before(shard: Shard, workspace: str) -> bool:
    """Fire what is due of a workspace: what was due before a change is accounted for as it was before.

    False when that can't be done: memory is full, firing is held because Redis lost data, or slots fall due
    faster than they are fired. A change goes in all the same. While Redis's clock is in question it does
    not, for its slots would be counted from a wrong time: raises :class:`StoreUnavailable`.
    """
    for _ in range(_FIRE_ROUNDS):
        try:
            fired = await ticking.fire_due(shard, workspace)
            waiting = await _some_dry(shard, workspace)
            await ticking.refill_some(shard, [f"{workspace}:{trigger}" for trigger in waiting])
        except ResponseError as error:
            if "maxmemory" not in str(error):
                raise
            return False
        if shard.witness.why == "clock_jump":
            raise StoreUnavailable("Redis's clock has jumped, and firing is held: GET /api/system says more.")
        if shard.witness.why:
            return False
        if not fired.handled and not waiting:
            return True
    return False


async def _some_dry(shard: Shard, workspace: str) -> list[str]:
    """Some triggers that hold no slot, but for those whose slots can't be computed."""
    of = shard.keys.of
    found = cast(list[bytes], await reply(shard.redis.srandmember(of(workspace, "dry"), _REFILLED_AT_ONCE)))
    if not found:
        return []
    errors = await reply(shard.redis.hmget(of(workspace, "errors"), found))
    return [one.decode() for one, error in zip(found, errors, strict=True) if error is None]


async def _base(shard: Shard, workspace: str, if_revision: int | None) -> tuple[str, int, sizes.Size]:
    """The serial of the last change, the revision, and the size of the set.

    Raises :class:`RevisionConflict`.
    """
    serial, known = await reply(shard.redis.hmget(shard.keys.of(workspace, "meta"), ["serial", "revision"]))
    revision = int(known or 0)
    if if_revision is not None:
        checks.check_revision(revision, if_revision)
    return (serial or b"0").decode(), revision, await sizes.read(shard, workspace)


async def _removed(shard: Shard, workspace: str, kept: set[str]) -> revisions.Undo:
    """Position and definition of each trigger that is not kept."""
    live = await reply(shard.redis.hkeys(shard.keys.of(workspace, "definitions")))
    return await _undo_of(shard, workspace, [id_ for id_ in map(bytes.decode, live) if id_ not in kept])


async def _undo_of(shard: Shard, workspace: str, ids: Sequence[str]) -> revisions.Undo:
    """Position and definition of triggers as they are, None for those that are not there."""
    undo: revisions.Undo = {}
    for start in range(0, len(ids), 1000):
        some = list(ids[start : start + 1000])
        async with shard.redis.pipeline(transaction=False) as pipe:
            pipe.hmget(shard.keys.of(workspace, "definitions"), some)
            pipe.hmget(shard.keys.of(workspace, "states"), some)
            stored, states = await pipe.execute()
        for id_, definition, state in zip(some, stored, states, strict=True):
            undo[id_] = None if definition is None else (position_of(state), definition)
    return undo


def _changes_of(
    current: Mapping[str, Definition | None], wanted: Mapping[str, Definition | None], size: int
) -> Changes:
    created = sum(one is not None and current[id_] is None for id_, one in wanted.items())
    deleted = sum(one is None and current[id_] is not None for id_, one in wanted.items())
    updated = sum(
        one is not None and current[id_] is not None and current[id_] != one for id_, one in wanted.items()
    )
    return Changes(created=created, updated=updated, unchanged=size - updated - deleted, deleted=deleted)


def _only_switched(current: Mapping[str, Definition | None], wanted: Mapping[str, Definition | None]) -> bool:
    """Whether triggers that are there are only enabled or disabled."""
    return all(
        one is not None and (live := current[id_]) is not None and replaced(one, enabled=live.enabled) == live
        for id_, one in wanted.items()
    )


def batches(ids: Iterable[T], size: int = EDIT_MOST) -> Iterable[list[T]]:
    """Ids in the portions that an edit takes."""
    all_ids = list(ids)
    return (all_ids[start : start + size] for start in range(0, len(all_ids), size))
