"""What putting another set in the place of a workspace's own would do. Pure: nothing is read or stored.

Which triggers would be created, updated, deleted, and which runs of the next day would come or go. Runs are
counted from the fields of the schedules (``app.schedule.compare``), not by stepping over them, so that a plan
of 10,000 triggers takes well under a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Raw, Struct, structs

from app.clock import DAY_MS
from app.declared.inputs import TriggerFields, shown
from app.declared.masking import MASK, View, mask_headers
from app.errors import InvalidSchedule
from app.models import Changes, Definition, Trigger, pack_definition
from app.schedule import Schedule, compare, schedule_of

HORIZON_MS = DAY_MS
DETAILED = 500  # triggers that a plan or a diff shows one by one
FIRST_RUNS = 5  # of those added and of those lost
LONGEST_VALUE = 2000  # bytes of JSON that a field's old or new value is shown with

Change = Literal["created", "updated", "deleted"]

_encode = msgspec.json.Encoder().encode
_NULL = Raw(b"null")


class FieldChange(Struct, frozen=True, kw_only=True):
    """A field that differs. ``old`` and ``new`` are JSON texts; ``masked``: not all of them is shown."""

    field: str
    old: Raw
    new: Raw
    masked: bool


class Planned(Struct, frozen=True, kw_only=True):
    """What becomes of one trigger. Times in ms."""

    id: str
    change: Change
    fields: list[FieldChange]  # of an updated one
    added: int
    lost: int
    first_added: list[int]
    first_lost: list[int]


class Plan(Struct, frozen=True, kw_only=True):
    """What becomes of a set within (after, until], ms; ``triggers`` the first :data:`DETAILED` changes."""

    changes: Changes
    after: int
    until: int
    added: int
    lost: int
    triggers: list[Planned]


def plan_replace(
    workspace: str,
    live: Sequence[Trigger],
    wanted: Sequence[tuple[str, Definition]],
    now_ms: int,
    paused: bool = False,
) -> Plan:
    """The plan for a set of (id, definition); ``paused``: the workspace is.

    What is disabled or paused has no runs, and a pause outlasts a replace. Deleted triggers come first in the
    details, then updated and created ones.
    """
    runs = _Runs(workspace, now_ms, paused)
    known = {trigger.id: trigger for trigger in live}
    new = dict(wanted)
    changes = set_changes({trigger.id: trigger.definition for trigger in live}, new)
    triggers: list[Planned] = []
    added = lost = 0
    for id_, change in changes:
        before, after = known.get(id_), new.get(id_)
        detailed = len(triggers) < DETAILED
        came, went, first_came, first_went = runs.compare(id_, before, after, FIRST_RUNS if detailed else 0)
        added, lost = added + came, lost + went
        if detailed:
            triggers.append(
                Planned(
                    id=id_,
                    change=change,
                    fields=field_changes(before.definition, after) if before and after else [],
                    added=came,
                    lost=went,
                    first_added=first_came,
                    first_lost=first_went,
                )
            )
    return Plan(
        changes=count_changes(changes, len(new)),
        after=now_ms,
        until=now_ms + HORIZON_MS,
        added=added,
        lost=lost,
        triggers=triggers,
    )


class _Runs:
    """The runs of a workspace's triggers within the horizon."""

    def __init__(self, workspace: str, now: int, paused: bool) -> None:
        self._workspace, self._now, self._until = workspace, now, now + HORIZON_MS
        self._paused = paused

    def compare(
        self, id_: str, before: Trigger | None, after: Definition | None, first: int
    ) -> tuple[int, int, list[int], list[int]]:
        """Runs added and lost, and the first ones of each."""
        if self._paused or (before is not None and before.pause is not None):
            return 0, 0, [], []
        old = new = None
        if before is not None:
            old = self._schedule(id_, before.definition, before.anchor, before.runs)
        if after is not None:
            # As the replace has it: an interval goes on counting from where it did, a new one from now.
            anchor = (before.anchor if before else 0) or self._now
            new = self._schedule(id_, after, anchor, before.runs if before else 0)
            if _is_caught_up(after, before, self._now):
                lost = old.count(self._now, self._until) if old else 0
                gone = old.slots(self._now, min(first, lost)) if old and lost and first else []
                return 1, lost, [after.at][:first], gone
        found = compare(old, new, self._now, self._until, first)
        return found.added, found.lost, found.first_added, found.first_lost

    def _schedule(self, id_: str, definition: Definition, anchor: int, runs: int) -> Schedule | None:
        """A trigger's schedule as far as it has runs; None without any."""
        if not definition.enabled:
            return None
        try:
            schedule = schedule_of(definition, self._workspace, id_, anchor)
        except InvalidSchedule:
            return None
        left = definition.max_runs - runs
        if not definition.max_runs or schedule.count(self._now, self._until) <= left:
            return schedule
        if left <= 0:
            return None
        low, high = self._now, self._until  # fewer than `left` runs up to low, at least `left` up to high
        while high - low > 1:
            middle = (low + high) // 2
            if schedule.count(self._now, middle) < left:
                low = middle
            else:
                high = middle
        return schedule_of(structs.replace(definition, ends_at=high), self._workspace, id_, anchor)


def _is_caught_up(wanted: Definition, before: Trigger | None, now: int) -> bool:
    """Whether a one-off in the past would be sent all the same: one that is there already has been."""
    if not (wanted.at and wanted.at <= now and wanted.catch_up_missed and wanted.enabled):
        return False
    return before is None or before.definition.at != wanted.at


def set_changes(old: Mapping[str, Definition], new: Mapping[str, Definition]) -> list[tuple[str, Change]]:
    """The triggers that differ between two sets: those deleted, then those updated, then those created."""
    deleted: list[tuple[str, Change]] = [(id_, "deleted") for id_ in old if id_ not in new]
    updated: list[tuple[str, Change]] = [
        (id_, "updated")
        for id_, definition in new.items()
        if id_ in old and pack_definition(old[id_]) != pack_definition(definition)
    ]
    created: list[tuple[str, Change]] = [(id_, "created") for id_ in new if id_ not in old]
    return deleted + updated + created


def count_changes(changes: Iterable[tuple[str, Change]], size: int) -> Changes:
    """The numbers of the changes that lead to a set of a size."""
    counts = Counter(change for _, change in changes)
    return Changes(
        created=counts["created"],
        updated=counts["updated"],
        unchanged=size - counts["created"] - counts["updated"],
        deleted=counts["deleted"],
    )


def field_changes(old: Definition, new: Definition, view: View = View.USUAL) -> list[FieldChange]:
    """The fields that differ, as answers show them: masked as the view has it, long values cut."""
    before, after = shown(old, View.ALL), shown(new, View.ALL)
    masked_before, masked_after = shown(old, view), shown(new, view)
    found: list[FieldChange] = []
    for name in TriggerFields.__struct_fields__:
        if name == "headers":
            found += _header_changes(old.headers, new.headers, view)
            continue
        was, became = (_encode(getattr(one, name)) for one in (before, after))
        if was == became:
            continue
        told_was, told_became = (_encode(getattr(one, name)) for one in (masked_before, masked_after))
        is_masked = (told_was, told_became) != (was, became)
        found.append(FieldChange(field=name, old=_cut(told_was), new=_cut(told_became), masked=is_masked))
    return found


def _header_changes(old: Mapping[str, str], new: Mapping[str, str], view: View) -> Iterable[FieldChange]:
    before, after = mask_headers(old, view), mask_headers(new, view)
    found = [
        FieldChange(
            field=f"headers[{name!r}]",
            old=_shown_header(before, name),
            new=_shown_header(after, name),
            masked=MASK in (before.get(name), after.get(name)),
        )
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]
    if not found and list(old) != list(new):  # the order alone makes another request
        return [
            FieldChange(field="headers", old=_cut(_encode(before)), new=_cut(_encode(after)), masked=False)
        ]
    return found


def _shown_header(headers: Mapping[str, str], name: str) -> Raw:
    return _cut(_encode(headers[name])) if name in headers else _NULL


def _cut(text: bytes) -> Raw:
    """A value's JSON text; of a long one its beginning, as a string that ends in an ellipsis."""
    if len(text) <= LONGEST_VALUE:
        return Raw(text)
    return Raw(_encode(text[:LONGEST_VALUE].decode(errors="ignore") + "…"))
