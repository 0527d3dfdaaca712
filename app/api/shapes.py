"""The shapes that answers of several nouns share: executions, counts, times, pauses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec

from app.api.fields import Answer, TriggerId, WorkspaceId, about, moment
from app.clock import rfc3339
from app.declared.masking import View, mask_text
from app.errors import NotFound
from app.formats import Moment
from app.keys import kind_of
from app.models import Attempt, Execution, FailureKind, LastSlot, Pause, State, Trigger
from app.store import Shard, catalog
from app.store.history import Day
from app.tally import Ends, Tally, by_state, tally
from app.timings import Spread, duration_spread, lateness_spread, merge

Status = Annotated[int | None, about("The target's answer; null when there was none.")]
Kind = Literal["scheduled", "run", "backfill", "retry"]


class Failure(Answer, frozen=True, kw_only=True):
    """Why an attempt failed."""

    kind: FailureKind
    message: str


class ListedExecution(Answer, frozen=True, kw_only=True):
    """What became of one slot, or of what a person started."""

    id: Annotated[str, about("Made of workspace, trigger and slot; longer where a person started it.")]
    workspace_id: WorkspaceId
    trigger_id: str
    kind: Annotated[Kind, about("`scheduled`, or what a person ordered: a run, a backfill, a retry.")]
    state: State
    reason: Annotated[str | None, about("Why it was skipped, missed or cancelled.")]
    scheduled_at: Annotated[Moment, about("The slot.")]
    queued_at: Moment | None
    started_at: Annotated[Moment | None, about("When the first attempt began.")]
    finished_at: Moment | None
    next_attempt_at: Annotated[Moment | None, about("When it is tried again, while it is retrying.")]
    lateness_ms: Annotated[
        int | None, about("From the slot to the first attempt; null for what a person started.")
    ]
    duration_ms: Annotated[int | None, about("From the first attempt to the end of the last.")]
    attempt_count: int
    status: Status
    error: Annotated[Failure | None, about("Of the last attempt.")]
    worker: Annotated[str | None, about("Which worker has it, or had it last.")]


class ShownAttempt(Answer, frozen=True, kw_only=True):
    """One HTTP request."""

    attempt: Annotated[int, about("Counted from 1.")]
    started_at: Moment
    finished_at: Moment
    duration_ms: int
    status: Status
    error: Failure | None
    response_snippet: Annotated[
        str | None, about("The beginning of the target's answer, masked for those without the scope `write`.")
    ]
    worker: str


class StateCounts(Answer, frozen=True, kw_only=True):
    """How many ended in each final state."""

    succeeded: int
    failed: int
    cancelled: int
    skipped: int
    missed: int


class Period(Answer, frozen=True, kw_only=True):
    """What was counted and timed in a number of days. A slot belongs to its own day."""

    due: Annotated[int, about("Slots that fell due: those below, and those that are open.")]
    open: Annotated[int, about("Slots that have not ended.")]
    states: Annotated[StateCounts, about("How the slots ended.")]
    by_hand: Annotated[StateCounts, about("How runs, backfills and retries ended; not among the slots.")]
    success_rate: Annotated[
        float | None, about("The share that succeeded of what succeeded or failed, by hand too, 0 to 1.")
    ]
    duration_ms: Annotated[Spread, about("First attempt to last answer. Percentiles are within 5 %.")]
    lateness_ms: Annotated[Spread, about("Slot to first attempt. Percentiles are within 5 %.")]


class ShownPause(Answer, frozen=True, kw_only=True):
    """An operator's hold."""

    since: Moment
    note: str


class ShownSlot(Answer, frozen=True, kw_only=True):
    """What became of a slot; this is kept longer than its execution."""

    scheduled_at: Moment
    state: State
    status: Status
    lateness_ms: int
    duration_ms: int


def listed(execution: Execution) -> ListedExecution:
    """An execution without its attempts."""
    last = execution.attempts[-1] if execution.attempts else None
    started = execution.started
    ended = last.started + last.duration if last and execution.finished is not None else None
    by_hand = kind_of(execution.id)
    return ListedExecution(
        id=execution.id,
        workspace_id=execution.workspace,
        trigger_id=execution.trigger,
        kind=msgspec.convert(by_hand or "scheduled", Kind),
        state=execution.state,
        reason=execution.reason,
        scheduled_at=rfc3339(execution.slot),
        queued_at=moment(execution.queued),
        started_at=moment(execution.started),
        finished_at=moment(execution.finished),
        next_attempt_at=moment(execution.next_attempt),
        lateness_ms=None if started is None or by_hand else max(0, started - execution.slot),
        duration_ms=None if ended is None or started is None else ended - started,
        attempt_count=len(execution.attempts),
        status=last.status or None if last else None,
        error=failure(last) if last else None,
        worker=execution.worker,
    )


def shown_attempt(number: int, attempt: Attempt, view: View) -> ShownAttempt:
    """An attempt with its number, masked as the view has it."""
    return ShownAttempt(
        attempt=number,
        started_at=rfc3339(attempt.started),
        finished_at=rfc3339(attempt.started + attempt.duration),
        duration_ms=attempt.duration,
        status=attempt.status or None,
        error=failure(attempt),
        response_snippet=mask_text(attempt.snippet, view) or None,
        worker=attempt.worker,
    )


def failure(attempt: Attempt) -> Failure | None:
    """Why an attempt failed; None when it did not."""
    return Failure(kind=FailureKind(attempt.kind), message=attempt.message) if attempt.kind else None


def period(days: Sequence[Day]) -> Period:
    """Days as one."""
    counted: Tally = tally(day.counts for day in days)
    timed = merge(day.timings for day in days)
    return Period(
        due=counted.due,
        open=counted.open,
        states=state_counts(counted.ended),
        by_hand=state_counts(counted.by_hand),
        success_rate=counted.success_rate,
        duration_ms=duration_spread(timed),
        lateness_ms=lateness_spread(timed),
    )


def state_counts(ends: Ends) -> StateCounts:
    """The final states without their reasons."""
    found = by_state(ends)
    return StateCounts(**{name: found[name] for name in StateCounts.__struct_fields__})


def shown_pause(pause: Pause | None) -> ShownPause | None:
    """A pause, if there is one."""
    return None if pause is None else ShownPause(since=rfc3339(pause.since), note=pause.note)


def shown_slot(slot: LastSlot) -> ShownSlot:
    """One of a trigger's last slots."""
    return ShownSlot(
        scheduled_at=rfc3339(slot.slot),
        state=slot.state,
        status=slot.status or None,
        lateness_ms=slot.lateness,
        duration_ms=slot.duration,
    )


async def need_trigger(shard: Shard, workspace: str, trigger: TriggerId) -> Trigger:
    """A trigger of the set; raises :class:`NotFound`."""
    found = await catalog.read_one(shard, workspace, trigger)
    if found is None:
        raise no_trigger(workspace, trigger)
    return found


def no_trigger(workspace: str, trigger: str) -> NotFound:
    """The error about a trigger that does not exist."""
    return NotFound(f"There is no trigger {trigger!r} in {workspace!r}.")
