"""What becomes of slots that were found too late: after an outage, or while nothing could fire. Pure.

A slot is too late when it is older than its trigger's start deadline. What then happens is the trigger's
choice (``catch_up_missed``): nothing, all that lie within the window, or the latest only.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator, Sequence

from msgspec import Struct

from app.models import Definition
from app.schedule import Schedule

Span = tuple[int, int]  # (from, to], ms: a pause, or a time that Redis lost


class Missed(Struct, frozen=True, array_like=True):
    """Slots that are not sent, as the script takes them."""

    first: int
    last: int
    reason: str  # deadline, catch_up_window, data_loss
    days: list[tuple[int, int]]  # UTC day, number
    slots: list[int]  # the newest, which get a record each


class Overdue(Struct, frozen=True):
    """What becomes of a trigger's slots up to now."""

    missed: list[Missed]
    after: int  # the slots to hold follow this moment
    caught: int  # slots up to here are sent however late; 0: none


def judge_overdue(
    schedule: Schedule,
    definition: Definition,
    after: int,
    now: int,
    *,
    deadline: int,
    cap: int,
    records: int,
    spans: Sequence[Span] = (),
    lost: Sequence[Span] = (),
) -> Overdue:
    """Decide on the slots after ``after`` that are older than ``deadline`` (ms).

    At most ``cap`` of them are caught up, the newest; the newest ``records`` of the missed ones are listed
    one by one. Slots in ``spans`` do not exist. Those in ``lost`` may have been sent, which Redis has
    forgotten: where they are missed, that is the reason.
    """
    in_time = now - deadline  # the first moment whose slot is not too late
    if after >= in_time:
        return Overdue([], after, 0)
    keep_from, reason = in_time, "deadline"
    window = now - definition.catch_up_window_seconds * 1000
    if definition.catch_up_missed == "all":
        newest = _latest(schedule, cap, max(after, window - 1), in_time - 1, spans)
        keep_from = min(in_time, max(window, newest[0] if len(newest) == cap else window))
        reason = "catch_up_window"
    elif definition.catch_up_missed == "latest":
        newest = _latest(schedule, 1, max(after, window - 1), now, spans)
        keep_from = min(in_time, newest[0]) if newest else in_time
    missed: list[Missed] = []
    for start, end, why in reversed(list(_parts(after, keep_from - 1, reason, lost))):
        missed += _miss(schedule, start, end, why, records - sum(len(run.slots) for run in missed), spans)
    missed.reverse()
    return Overdue(missed, max(after, keep_from - 1), now if keep_from < in_time else 0)


def slots_to_hold(
    schedule: Schedule,
    after: int,
    look_ahead_until: int,
    least: int,
    most: int,
    spans: Sequence[Span] = (),
) -> list[int]:
    """The slots after a moment: ``least`` of them, and all of the look-ahead up to ``most``."""
    held: list[int] = []
    for start, end in _between(after, sys.maxsize, spans):
        wanted = least - len(held)
        found = schedule.slots(start, wanted, look_ahead_until, most - len(held))
        held += [slot for slot in found if slot <= end]
        if len(held) >= least or len(found) < wanted:
            break
    return held


def _miss(
    schedule: Schedule, after: int, until: int, reason: str, records: int, spans: Sequence[Span]
) -> list[Missed]:
    days: Counter[int] = Counter()
    for start, end in _between(after, until, spans):
        days.update(schedule.count_by_day(start, end))
    if not days.total():
        return []
    newest = _latest(schedule, max(1, records), after, until, spans)
    first = next(
        slot
        for start, end in _between(after, until, spans)
        for slot in schedule.slots(start, 1)
        if slot <= end
    )
    return [Missed(first, newest[-1], reason, sorted(days.items()), newest[-records:] if records else [])]


def _parts(after: int, until: int, reason: str, lost: Sequence[Span]) -> Iterator[tuple[int, int, str]]:
    """(after, until] cut where lost spans begin and end, each part with its reason, ascending."""
    for start, end in _between(after, until, lost):
        if after < start:
            yield after, start, "data_loss"
        yield start, end, reason
        after = end
    if after < until:
        yield after, until, "data_loss"


def _latest(schedule: Schedule, number: int, after: int, until: int, spans: Sequence[Span]) -> list[int]:
    """The newest slots of a range, ascending."""
    found: list[int] = []
    for start, end in reversed(list(_between(after, until, spans))):
        found = schedule.latest(number - len(found), end, start) + found
        if len(found) >= number:
            break
    return found


def _between(after: int, until: int, spans: Sequence[Span]) -> Iterator[tuple[int, int]]:
    """The parts of (after, until] that lie in no span, ascending."""
    for start, end in sorted(spans):
        if end <= after:
            continue
        if start >= until:
            break
        if start > after:
            yield after, start
        after = max(after, end)
    if after < until:
        yield after, until
