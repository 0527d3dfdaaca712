"""What became of the slots: executions one by one, listed, cancelled, retried, deleted."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from app.api.fields import JSON_TYPES, Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.ranges import DaysQuery, Instant, days_of, ms_of, shown_day
from app.api.shapes import (
    ListedExecution,
    Period,
    ShownAttempt,
    listed,
    need_trigger,
    period,
    shown_attempt,
)
from app.api.trigger_inputs import Idempotency
from app.api.views import Reveal, view_of
from app.api.workspace_shapes import ExecutionCounts
from app.declared.masking import View, mask_headers, mask_payload, mask_url
from app.errors import (
    AlreadyRetried,
    ExecutionFinished,
    IdempotencyConflict,
    NotDeadLetter,
    NotFound,
    TooManyRuns,
)
from app.formats import Cursor
from app.models import Definition, Execution, Method, State
from app.store import Shard, history, orders, workspaces
from app.store import executions as store

noun = Noun("executions", "What became of the slots.", "/api/workspaces/{workspace_id}")

ExecutionId = Annotated[str, about("The execution's id.", examples=["acme:nightly-report:1790000000000"])]
Since = Annotated[
    Instant | None,
    about("Only those from this moment on: the end of what has ended, else when it was queued."),
]
Until = Annotated[Instant | None, about("Only those before this moment.")]
FailedSince = Annotated[Instant | None, about("Only those that failed from this moment on.")]
FailedUntil = Annotated[Instant | None, about("Only those that failed before this moment.")]


class TriggerExecutionsQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions of a trigger."""

    state: Annotated[
        Annotated[list[State], Meta(min_length=1)] | None, about("Only those in one of these states.")
    ] = None
    since: Since = msgspec.field(name="from", default=None)
    until: Until = msgspec.field(name="to", default=None)
    limit: Annotated[int, Meta(ge=1, le=500, description="How many at most.")] = 50
    cursor: Annotated[Cursor | None, about("Begins after the page that gave it.")] = None


class ListQuery(TriggerExecutionsQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions."""

    trigger: Annotated[TriggerId | None, about("Only those of this trigger, which may be gone.")] = None
    tag: Annotated[str | None, about("Only those of triggers that have this tag now.")] = None


class LettersQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters."""

    state: Annotated[Literal["failed"], about("Says what is deleted: only dead letters can be.")]
    trigger: Annotated[TriggerId | None, about("Only those of this trigger, which may be gone.")] = None
    since: FailedSince = msgspec.field(name="from", default=None)
    until: FailedUntil = msgspec.field(name="to", default=None)


class RetryInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which dead letters are retried; without any field all."""

    trigger: Annotated[TriggerId | None, about("Only those of this trigger, which may be gone.")] = None
    since: FailedSince = msgspec.field(name="from", default=None)
    until: FailedUntil = msgspec.field(name="to", default=None)
    limit: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        about("How many at most, the oldest first; never more than CRONSPACE_MAX_BACKFILL."),
    ] = None


class SentRequest(Answer, frozen=True, kw_only=True):
    """The request that a dead letter keeps, masked. Variables stand as the trigger has them."""

    method: Method
    url: str
    headers: dict[str, str]
    payload: Annotated[msgspec.Raw, about("Any JSON value; null for none.", type=JSON_TYPES)]
    timeout_seconds: float


class ShownExecution(ListedExecution, frozen=True, kw_only=True):
    """What became of one slot, with every attempt."""

    attempts: list[ShownAttempt]
    request: Annotated[
        SentRequest | None, about("Of a dead letter: what was sent, and what a retry sends. Else null.")
    ]
    retried_as: Annotated[str | None, about("Of a dead letter: the execution that retried it.")]


class ExecutionList(WorkspaceAnswer, frozen=True, kw_only=True):
    """A page of executions, newest first."""

    count: Annotated[int, about("How many are on this page.")]
    executions: list[ListedExecution]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


class ExecutionAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """One execution."""

    execution: ShownExecution


class ExecutionRetried(WorkspaceAnswer, frozen=True, kw_only=True):
    """The execution that retries a dead letter."""

    execution_id: str
    retried: Annotated[str, about("The dead letter.")]
    repeated: Annotated[bool, about("Whether this is the answer to an earlier call with the same key.")]


class LettersRetried(WorkspaceAnswer, frozen=True, kw_only=True):
    """The executions that retry dead letters."""

    count: int
    execution_ids: list[str]
    remaining: Annotated[int, about("Dead letters of that kind that were never retried, beyond these.")]
    repeated: Annotated[bool, about("Whether this is the answer to an earlier call with the same key.")]


class LettersDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """Dead letters are gone."""

    deleted: int


class ExecutionStats(WorkspaceAnswer, frozen=True, kw_only=True):
    """Executions as they are now, and as they were counted."""

    now: Annotated[ExecutionCounts, about("By state, as far as they are kept.")]
    first_day: Annotated[str, about("The first UTC day that was counted.", format="date")]
    last_day: Annotated[str, about("The last one.", format="date")]
    counted: Annotated[Period, about("Of these days together, whatever is kept.")]


@noun.operation("GET", "/executions")
async def list_executions(shard: Shard, workspace_id: WorkspaceId, query: ListQuery) -> ExecutionList:
    """Executions, newest first.

    The time that the list and `from` and `to` go by is the end of what has ended; of open executions it is
    when they were queued, and the slot of those that wait for a free place. A page may hold fewer than
    `limit` where matches are rare: go on while there is a `next_cursor`.
    """
    page = await store.list_newest(shard, workspace_id, **filters_of(query, query.trigger, query.tag))
    return _shown_page(workspace_id, page)


@noun.operation("GET", "/triggers/{trigger_id}/executions", errors=(NotFound,))
async def list_trigger_executions(
    shard: Shard, workspace_id: WorkspaceId, trigger_id: TriggerId, query: TriggerExecutionsQuery
) -> ExecutionList:
    """Executions of one trigger, newest first."""
    await need_trigger(shard, workspace_id, trigger_id)
    page = await store.list_newest(shard, workspace_id, **filters_of(query, trigger_id))
    return _shown_page(workspace_id, page)


@noun.operation("GET", "/executions/stats")
async def get_execution_stats(shard: Shard, workspace_id: WorkspaceId, query: DaysQuery) -> ExecutionStats:
    """Executions by state now, and how those of a day or a range of days went; today, if not told."""
    (held,) = await workspaces.counts(shard, [workspace_id])
    days = days_of(query, await shard.now_ms(), shard.settings.keep_days, 1)
    return ExecutionStats(
        workspace_id=workspace_id,
        now=ExecutionCounts(**held.executions),
        first_day=shown_day(days.start),
        last_day=shown_day(days.stop - 1),
        counted=period(await history.days(shard, workspace_id, "", days)),
    )


@noun.operation("GET", "/executions/{execution_id}", errors=(NotFound,))
async def get_execution(
    shard: Shard, call: Call, workspace_id: WorkspaceId, execution_id: ExecutionId, query: Reveal
) -> ExecutionAnswer:
    """One execution with every attempt; a dead letter with its request."""
    return await _answer(shard, view_of(call, query), workspace_id, execution_id)


@noun.operation(
    "POST", "/executions/{execution_id}/cancel", scope="operate", errors=(NotFound, ExecutionFinished)
)
async def cancel_execution(
    shard: Shard, call: Call, workspace_id: WorkspaceId, execution_id: ExecutionId
) -> ExecutionAnswer:
    """Cancel an execution that is queued, retrying or running.

    A running request is cut off, on whichever worker it runs; whether it arrived is unknown.
    """
    execution = await _need(shard, workspace_id, execution_id)
    became = await orders.cancel(shard, [execution.id])
    if became[execution.id] == "finished":
        raise ExecutionFinished(f"{execution_id!r} has ended: there is nothing left to cancel.")
    call.told.before, call.told.after = {"state": execution.state}, {"cancel": "requested"}
    return await _answer(shard, view_of(call), workspace_id, execution_id)


@noun.operation(
    "POST",
    "/executions/{execution_id}/retry",
    scope="operate",
    status=202,
    errors=(NotFound, NotDeadLetter, AlreadyRetried, TooManyRuns, IdempotencyConflict),
)
async def retry_execution(
    shard: Shard, workspace_id: WorkspaceId, execution_id: ExecutionId, headers: Idempotency
) -> ExecutionRetried:
    """Send a dead letter once more, with the request that it keeps, even if its trigger has gone.

    The retry is an execution of its own, with the slot of the dead letter; it goes ahead at once.
    """
    letter = await _need_letter(shard, workspace_id, execution_id)
    made = await orders.make(
        shard,
        workspace_id,
        "retry",
        await _retries(shard, workspace_id, [letter.id]),
        idempotency_key=headers.idempotency_key or "",
        asked=f"retry {letter.id}".encode(),
    )
    if not made.executions:
        (retry,) = await orders.retried_as(shard, workspace_id, [letter.id])
        if retry is None:
            raise _gone(workspace_id, execution_id)
        raise AlreadyRetried(
            f"{execution_id!r} was retried before, as {retry!r}. Retry that one if it failed, too.",
            f"/api/workspaces/{workspace_id}/executions/{retry}",
        )
    return ExecutionRetried(
        workspace_id=workspace_id,
        execution_id=made.executions[0],
        retried=letter.id,
        repeated=made.repeated,
    )


@noun.operation(
    "POST",
    "/executions/retry",
    scope="operate",
    status=202,
    errors=(NotFound, TooManyRuns, IdempotencyConflict),
)
async def retry_dead_letters(
    shard: Shard, workspace_id: WorkspaceId, headers: Idempotency, body: RetryInput
) -> LettersRetried:
    """Send dead letters once more, the oldest first, a bounded number at once.

    Those that were retried before are passed over. These retries wait until no live execution is ready, so
    that they do not hold up what is due now. Call it again while some remain.
    """
    await _need_workspace(shard, workspace_id)
    ids = await orders.letters(
        shard, workspace_id, trigger=body.trigger, since=ms_of(body.since), until=ms_of(body.until)
    )
    retried = await orders.retried_as(shard, workspace_id, ids)
    waiting = [id_ for id_, retry in zip(ids, retried, strict=True) if retry is None]
    most = shard.settings.max_backfill
    chosen = waiting[: min(most, body.limit or most)]
    made = await orders.make(
        shard,
        workspace_id,
        "retry",
        await _retries(shard, workspace_id, chosen),
        yielding=True,
        idempotency_key=headers.idempotency_key or "",
        asked=b"retry letters " + msgspec.json.encode(body),
    )
    return LettersRetried(
        workspace_id=workspace_id,
        count=len(made.executions),
        execution_ids=made.executions,
        remaining=len(waiting) - (0 if made.repeated else len(chosen)),
        repeated=made.repeated,
    )


@noun.operation("DELETE", "/executions/{execution_id}", scope="operate", errors=(NotFound, NotDeadLetter))
async def delete_dead_letter(
    shard: Shard, workspace_id: WorkspaceId, execution_id: ExecutionId
) -> LettersDeleted:
    """Delete a dead letter. What was counted of it stays."""
    letter = await _need_letter(shard, workspace_id, execution_id)
    deleted = await orders.remove_letters(shard, workspace_id, [letter.id])
    return LettersDeleted(workspace_id=workspace_id, deleted=deleted)


@noun.operation("DELETE", "/executions", scope="operate")
async def delete_dead_letters(shard: Shard, workspace_id: WorkspaceId, query: LettersQuery) -> LettersDeleted:
    """Delete dead letters: of a trigger, of a time, or all. What was counted of them stays."""
    ids = await orders.letters(
        shard, workspace_id, trigger=query.trigger, since=ms_of(query.since), until=ms_of(query.until)
    )
    deleted = await orders.remove_letters(shard, workspace_id, ids)
    return LettersDeleted(workspace_id=workspace_id, deleted=deleted)


def filters_of(query: TriggerExecutionsQuery, trigger: str | None, tag: str | None = None) -> dict[str, Any]:
    """What a query asks of a list."""
    return {
        "state": query.state,
        "trigger": trigger,
        "tag": tag,
        "since": ms_of(query.since),
        "until": ms_of(query.until),
        "limit": query.limit,
        "cursor": query.cursor,
    }


def _shown_page(workspace: str, page: store.Page) -> ExecutionList:
    return ExecutionList(
        workspace_id=workspace,
        count=len(page.executions),
        executions=[listed(execution) for execution in page.executions],
        next_cursor=page.next_cursor,
    )


async def _answer(shard: Shard, view: View, workspace: str, id_: str) -> ExecutionAnswer:
    execution = await _need(shard, workspace, id_)
    request, retry = None, None
    if execution.state == State.FAILED:
        (sent,) = await orders.requests_of(shard, workspace, [id_])
        (retry,) = await orders.retried_as(shard, workspace, [id_])
        request = None if sent is None else _sent(sent, view)
    shown = ShownExecution(
        **msgspec.structs.asdict(listed(execution)),
        attempts=[shown_attempt(number, one, view) for number, one in enumerate(execution.attempts, 1)],
        request=request,
        retried_as=retry,
    )
    return ExecutionAnswer(workspace_id=workspace, execution=shown)


def _sent(definition: Definition, view: View) -> SentRequest:
    return SentRequest(
        method=definition.method,
        url=mask_url(definition.url, view),
        headers=mask_headers(definition.headers, view),
        payload=msgspec.Raw(mask_payload(definition.payload, view) or b"null"),
        timeout_seconds=definition.timeout_seconds,
    )


async def _retries(shard: Shard, workspace: str, ids: list[str]) -> list[orders.Order]:
    kept = await orders.requests_of(shard, workspace, ids)
    return [orders.retry_of(id_, one) for id_, one in zip(ids, kept, strict=True)]


async def _need(shard: Shard, workspace: str, id_: str) -> Execution:
    execution = await store.get(shard, workspace, id_)
    if execution is None:
        raise _gone(workspace, id_)
    return execution


async def _need_letter(shard: Shard, workspace: str, id_: str) -> Execution:
    execution = await _need(shard, workspace, id_)
    if execution.state != State.FAILED:
        raise NotDeadLetter(f"{id_!r} is {execution.state}: only what failed for good is a dead letter.")
    return execution


async def _need_workspace(shard: Shard, workspace: str) -> None:
    if await workspaces.get(shard, workspace) is None:
        raise NotFound(f"There is no workspace {workspace!r}.")


def _gone(workspace: str, id_: str) -> NotFound:
    return NotFound(
        f"There is no execution {id_!r} in {workspace!r}: its id is wrong, or it is kept no more."
    )
