"""What people order of a trigger by hand: a run now, a backfill; and the question when it runs next."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, tzinfo
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.reading import aside
from app.api.shapes import ShownPause, need_trigger, shown_pause
from app.api.trigger_inputs import TRIGGERS_PATH, Idempotency
from app.clock import LAST_ASKED_MS, from_ms, parse_moment, rfc3339, to_ms
from app.declared.bodies import payload_faults
from app.declared.fields import Moment as MomentText
from app.declared.inputs import stored_payload
from app.declared.variables import names_of
from app.errors import Fault, IdempotencyConflict, InvalidRequest, InvalidSchedule, NotFound, TooManyRuns
from app.formats import Moment, Zone
from app.keys import assigned_time, execution_id
from app.models import Definition, Standing, Trigger
from app.schedule import Schedule, schedule_of
from app.schedule.zones import load_zone
from app.store import Shard, orders, outgoing, workspaces

noun = Noun("triggers", "", TRIGGERS_PATH)

FIRST_SLOTS = 10  # that the count of a backfill shows

ExecutionIds = Annotated[list[str], about("The ids of the executions that were made.")]
Repeated = Annotated[bool, about("The idempotency key was used before: these are that call's executions.")]


class RunInput(Struct, frozen=True, forbid_unknown_fields=True):
    """A run by hand."""

    payload: Annotated[
        Raw | UnsetType,
        Meta(description="Sent once in the place of the trigger's own; may hold variables. Null: no body."),
    ] = UNSET


class RunAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """A run by hand that was queued."""

    trigger_id: TriggerId
    execution_id: Annotated[
        str | None,
        about("The execution that was made; null where the backlog is full and no record of that is kept."),
    ]
    repeated: Repeated


class BackfillInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which slots to send once more, or late."""

    from_: MomentText = msgspec.field(name="from")
    to: MomentText
    overlap_policy: Annotated[
        Literal["queue", "allow"],
        Meta(description="One after another, or as many at once as there are places."),
    ] = "queue"
    dry_run: Annotated[bool, Meta(description="Only count.")] = False


class BackfillAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """A backfill: counted (200), or queued (202)."""

    trigger_id: TriggerId
    dry_run: bool
    from_: Annotated[Moment, about("Slots from this moment on.")] = msgspec.field(name="from")
    to: Annotated[Moment, about("Slots before this moment; never in the future.")]
    count: Annotated[int, about("The slots in that range.")]
    at_most: Annotated[int, about("So many one backfill may make.")]
    first: Annotated[list[Moment], about(f"The first {FIRST_SLOTS} of them.")]
    execution_ids: ExecutionIds
    repeated: Repeated


class NextRunsQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which runs."""

    count: Annotated[int, Meta(ge=1, le=100, description="How many.")] = 5
    after: (
        Annotated[datetime, Meta(tz=True, description="Runs after this moment; now, if left out.")] | None
    ) = None


class NextRun(Answer, frozen=True, kw_only=True):
    """A slot to come."""

    scheduled_at: Annotated[Moment, about("The slot.")]
    local: Annotated[str, about("The slot in the trigger's time zone.", format="date-time")]
    assigned_at: Annotated[Moment, about("When it may start: later than the slot by a part of the jitter.")]


class NextRuns(WorkspaceAnswer, frozen=True, kw_only=True):
    """When a trigger runs next. One that is held shows what its schedule says."""

    trigger_id: TriggerId
    state: Standing
    pause: Annotated[ShownPause | None, about("Of the trigger; while it is paused nothing runs.")]
    workspace_pause: Annotated[ShownPause | None, about("Of the workspace; the same.")]
    timezone: Zone
    error: Annotated[str | None, about("Why the slots can't be computed.")]
    runs: list[NextRun]


@noun.operation(
    "POST",
    "/{trigger_id}/run",
    scope="operate",
    status=202,
    headers={"Location": "The execution."},
    errors=(NotFound, TooManyRuns, IdempotencyConflict),
)
async def run_trigger(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    trigger_id: TriggerId,
    headers: Idempotency,
    body: RunInput | None,
) -> RunAnswer:
    """Run a trigger now, beside its schedule, whether it is paused, disabled or finished.

    The execution takes one of the places of the workspace's `max_concurrency`, or waits for one. A payload
    with named secrets that the trigger does not use needs the scope `write`.
    """
    trigger = await need_trigger(shard, workspace_id, trigger_id)
    request = None
    if body is not None and body.payload is not UNSET:
        payload = bytes(body.payload)
        request = await aside(payload, _with_payload, trigger.definition, body.payload)
        if not await aside(payload, names_of, request) <= names_of(trigger.definition):
            call.caller.need("write")
        await outgoing.check_secrets(shard, workspace_id, [(trigger_id, request)], in_set=False)
    made = await orders.make(
        shard,
        workspace_id,
        "run",
        [orders.Order(trigger_id, await shard.now_ms(), request)],
        idempotency_key=headers.idempotency_key or "",
        asked=msgspec.json.encode(["run", trigger_id, body]),
    )
    execution = made.executions[0] if made.executions else None
    if execution is not None:
        call.headers["location"] = _location(workspace_id, execution)
    return RunAnswer(
        workspace_id=workspace_id,
        trigger_id=trigger_id,
        execution_id=execution,
        repeated=made.repeated,
    )


@noun.operation(
    "POST",
    "/{trigger_id}/backfill",
    scope="operate",
    status=(202, 200),
    errors=(NotFound, IdempotencyConflict),
)
async def backfill_trigger(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    trigger_id: TriggerId,
    headers: Idempotency,
    body: BackfillInput,
) -> BackfillAnswer:
    """Make an execution for every slot from one moment on, before another.

    Slots in the future are the schedule's own business: the range is cut at the present. Executions wait
    until nothing live is ready. More slots than `CRONSPACE_MAX_BACKFILL` are refused; `dry_run` only counts.
    """
    trigger = await need_trigger(shard, workspace_id, trigger_id)
    now = await shard.now_ms()
    schedule = _schedule(workspace_id, trigger)
    begin, end = _range(body, trigger.definition, now)
    at_most = shard.settings.max_backfill
    count = await asyncio.to_thread(schedule.count, begin - 1, end - 1)
    wanted = FIRST_SLOTS if body.dry_run else at_most
    if count > at_most and not body.dry_run:
        message = f"there are {count} slots up to here; one backfill makes at most {at_most}"
        raise InvalidRequest("The backfill is too large; nothing was done.", [Fault("to", message)])
    slots = await asyncio.to_thread(schedule.slots, begin - 1, min(count, wanted))
    made = orders.Made([])
    if body.dry_run:
        call.status = 200
    else:
        made = await orders.make(
            shard,
            workspace_id,
            "backfill",
            [orders.Order(trigger_id, slot) for slot in slots],
            one_by_one=body.overlap_policy == "queue",
            yielding=True,
            idempotency_key=headers.idempotency_key or "",
            asked=msgspec.json.encode(["backfill", trigger_id, body]),
        )
    return BackfillAnswer(
        workspace_id=workspace_id,
        trigger_id=trigger_id,
        dry_run=body.dry_run,
        from_=rfc3339(begin),
        to=rfc3339(end),
        count=count,
        at_most=at_most,
        first=[rfc3339(slot) for slot in slots[:FIRST_SLOTS]],
        execution_ids=made.executions,
        repeated=made.repeated,
    )


@noun.operation("GET", "/{trigger_id}/next-runs", errors=(NotFound,))
async def get_next_runs(
    shard: Shard, workspace_id: WorkspaceId, trigger_id: TriggerId, query: NextRunsQuery
) -> NextRuns:
    """When a trigger runs next: its slots, and with jitter the times assigned to them.

    What is paused, disabled or finished does not run: `state` and the pauses say so, and `runs` shows the
    schedule.
    """
    trigger = await need_trigger(shard, workspace_id, trigger_id)
    workspace = await workspaces.get(shard, workspace_id)
    after = await shard.now_ms() if query.after is None else max(0, to_ms(query.after))
    error = trigger.error
    slots: list[int] = []
    zone: tzinfo = UTC
    try:
        zone = load_zone(trigger.definition.timezone)
        if after < LAST_ASKED_MS:
            schedule = schedule_of(trigger.definition, workspace_id, trigger_id, trigger.anchor)
            slots = await asyncio.to_thread(schedule.slots, after, _runs_left(trigger, query.count))
    except InvalidSchedule as invalid:
        error = str(invalid)
    jitter = trigger.definition.jitter_seconds * 1000
    return NextRuns(
        workspace_id=workspace_id,
        trigger_id=trigger_id,
        state=trigger.standing,
        pause=shown_pause(trigger.pause),
        workspace_pause=shown_pause(workspace.pause if workspace else None),
        timezone=trigger.definition.timezone,
        error=error,
        runs=[
            NextRun(
                scheduled_at=rfc3339(slot),
                local=from_ms(slot, zone).isoformat(timespec="seconds"),
                assigned_at=rfc3339(
                    assigned_time(execution_id(workspace_id, trigger_id, slot), slot, jitter)
                ),
            )
            for slot in slots
        ],
    )


def _with_payload(definition: Definition, payload: Raw) -> Definition:
    """A definition with another payload; raises :class:`InvalidRequest`."""
    faults = payload_faults(payload)
    if faults:
        raise InvalidRequest("The payload is not valid; nothing was done.", faults)
    return msgspec.structs.replace(definition, payload=stored_payload(payload))


def _schedule(workspace: str, trigger: Trigger) -> Schedule:
    try:
        return schedule_of(trigger.definition, workspace, trigger.id, trigger.anchor)
    except InvalidSchedule as error:
        raise InvalidRequest(
            "The trigger's schedule can't be used any more; nothing was done.", [Fault("", str(error))]
        ) from error


def _range(body: BackfillInput, definition: Definition, now: int) -> tuple[int, int]:
    """The moments [from, to) of a backfill, cut at the present; raises :class:`InvalidRequest`."""
    zone = load_zone(definition.timezone)
    faults, found = [], {}
    for name, text in (("from", body.from_), ("to", body.to)):
        try:
            found[name] = parse_moment(text, zone)
        except ValueError as error:
            faults.append(Fault(name, str(error)))
    if not faults and found["from"] > now:
        faults.append(Fault("from", "it lies in the future: a backfill is for slots that were"))
    elif not faults and found["to"] <= found["from"]:
        faults.append(Fault("to", "it does not lie after 'from'"))
    if faults:
        raise InvalidRequest("The body is not valid; nothing was done.", faults)
    return found["from"], min(found["to"], now + 1)


def _runs_left(trigger: Trigger, count: int) -> int:
    """How many of so many runs `max_runs` leaves."""
    bound = trigger.definition.max_runs
    return min(count, max(0, bound - trigger.runs)) if bound else count


def _location(workspace: str, execution: str) -> str:
    return f"/api/workspaces/{workspace}/executions/{execution}"
