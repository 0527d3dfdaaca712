"""What became of the slots."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about, moment
from app.api.operations import Noun
from app.clock import rfc3339
from app.errors import Fault, InvalidRequest, NotFound
from app.formats import Cursor, Moment
from app.models import Attempt, Execution, FailureKind, State
from app.store import Shard
from app.store import executions as store

noun = Noun("executions", "What became of the slots.", "/api/workspaces/{workspace_id}/executions")

ExecutionId = Annotated[str, about("The execution's id.", examples=["acme:nightly-report:1790000040000"])]
Status = Annotated[int | None, about("The target's answer; null when there was none.")]


class ListQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions."""

    state: Annotated[State | None, about("Only those in this state.")] = None
    trigger: Annotated[TriggerId | None, about("Only those of this trigger.")] = None
    limit: Annotated[int, Meta(ge=1, le=500, description="How many at most.")] = 50
    cursor: Annotated[Cursor | None, about("Begins after the page that gave it.")] = None


class Failure(Answer, frozen=True, kw_only=True):
    """Why an attempt failed."""

    kind: FailureKind
    message: str


class ListedExecution(Answer, frozen=True, kw_only=True):
    """What became of one slot."""

    id: Annotated[str, about("Made of workspace, trigger and slot.")]
    trigger_id: str
    state: State
    reason: Annotated[str | None, about("Why it was skipped, missed or cancelled.")]
    scheduled_at: Annotated[Moment, about("The slot.")]
    queued_at: Moment | None
    started_at: Annotated[Moment | None, about("When the first attempt began.")]
    finished_at: Moment | None
    next_attempt_at: Annotated[Moment | None, about("When it is tried again, while it is retrying.")]
    lateness_ms: Annotated[int | None, about("From the slot to the first attempt.")]
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
    response_snippet: Annotated[str | None, about("The beginning of the target's answer.")]
    worker: str


class ShownExecution(ListedExecution, frozen=True, kw_only=True):
    """What became of one slot, with every attempt."""

    attempts: list[ShownAttempt]


class ExecutionList(WorkspaceAnswer, frozen=True, kw_only=True):
    """A page of executions, newest slots first."""

    count: Annotated[int, about("How many are on this page.")]
    executions: list[ListedExecution]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


class ExecutionAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """One execution."""

    execution: ShownExecution


@noun.operation("GET")
async def list_executions(shard: Shard, workspace_id: WorkspaceId, query: ListQuery) -> ExecutionList:
    """Executions, newest first."""
    try:
        page = await store.list_newest(
            shard,
            workspace_id,
            state=query.state,
            trigger=query.trigger,
            limit=query.limit,
            cursor=query.cursor,
        )
    except ValueError as error:
        raise InvalidRequest("The cursor is not valid.", [Fault("cursor", str(error))]) from error
    return ExecutionList(
        workspace_id=workspace_id,
        count=len(page.executions),
        executions=[_listed(execution) for execution in page.executions],
        next_cursor=page.next_cursor,
    )


@noun.operation("GET", "/{execution_id}", errors=(NotFound,))
async def get_execution(
    shard: Shard,
    workspace_id: WorkspaceId,
    execution_id: Annotated[
        str, about("The execution's id.", examples=["acme:nightly-report:1790000040000"])
    ],
) -> ExecutionAnswer:
    """One execution with every attempt."""
    execution = await store.get(shard, workspace_id, execution_id)
    if execution is None:
        raise NotFound(
            f"There is no execution {execution_id!r} in {workspace_id!r}: its id is wrong, or it is kept no"
            " more."
        )
    shown = ShownExecution(
        **msgspec.structs.asdict(_listed(execution)),
        attempts=[_attempt(number, one) for number, one in enumerate(execution.attempts, 1)],
    )
    return ExecutionAnswer(workspace_id=workspace_id, execution=shown)


def _listed(execution: Execution) -> ListedExecution:
    last = execution.attempts[-1] if execution.attempts else None
    started = execution.started
    ended = last.started + last.duration if last and execution.finished is not None else None
    return ListedExecution(
        id=execution.id,
        trigger_id=execution.trigger,
        state=execution.state,
        reason=execution.reason,
        scheduled_at=rfc3339(execution.slot),
        queued_at=moment(execution.queued),
        started_at=moment(execution.started),
        finished_at=moment(execution.finished),
        next_attempt_at=moment(execution.next_attempt),
        lateness_ms=None if started is None else max(0, started - execution.slot),
        duration_ms=None if ended is None or started is None else ended - started,
        attempt_count=len(execution.attempts),
        status=last.status or None if last else None,
        error=_failure(last) if last else None,
        worker=execution.worker,
    )


def _attempt(number: int, attempt: Attempt) -> ShownAttempt:
    return ShownAttempt(
        attempt=number,
        started_at=rfc3339(attempt.started),
        finished_at=rfc3339(attempt.started + attempt.duration),
        duration_ms=attempt.duration,
        status=attempt.status or None,
        error=_failure(attempt),
        response_snippet=attempt.snippet or None,
        worker=attempt.worker,
    )


def _failure(attempt: Attempt) -> Failure | None:
    return Failure(kind=FailureKind(attempt.kind), message=attempt.message) if attempt.kind else None
