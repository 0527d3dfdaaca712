"""What answers show of triggers: a job of a replace, a whole trigger, a change, a plan."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, about, moment
from app.api.shapes import ShownPause, shown_pause
from app.clock import rfc3339
from app.declared.fields import ANY_JSON
from app.declared.inputs import TriggerFields, shown
from app.declared.masking import View, mask_url
from app.formats import Moment
from app.models import Changes, Definition, Method, Standing, State, Trigger
from app.plan import DETAILED, FIRST_RUNS, LONGEST_VALUE, Change, FieldChange, Plan

Revision = Annotated[int, about("Counts the accepted versions of the set.", minimum=0)]
JobId = Annotated[str, about("The workspace's id and the trigger's.")]
JobName = Annotated[str, about("A name for display.")]
NextRun = Annotated[Moment | None, about("The next slot; null when there is none.")]

ETAG = {"ETag": "The set's revision, in quotes: for `If-Match` in a later call."}


def etag(revision: int) -> str:
    """A revision as the header shows it."""
    return f'"{revision}"'


class Job(Answer, frozen=True, kw_only=True):
    """A trigger as a replace shows it."""

    job_id: JobId = msgspec.field(name="jobId")
    job_name: JobName = msgspec.field(name="jobName")
    cron: str | None
    interval: Annotated[int | None, about("Seconds.")]
    at: Moment | None
    url: str
    method: Method
    id: TriggerId
    name: str | None
    timezone: str
    enabled: bool
    next_run_at: NextRun


class ShownLast(Answer, frozen=True, kw_only=True):
    """What became of a trigger's last slot."""

    scheduled_at: Moment
    state: State
    status: Annotated[int | None, about("The target's answer; null when there was none.")]
    lateness_ms: int
    duration_ms: int


class ShownTrigger(TriggerFields, frozen=True, kw_only=True):
    """A trigger with its whole definition, and how it stands."""

    job_id: JobId = msgspec.field(name="jobId")
    job_name: JobName = msgspec.field(name="jobName")
    id: TriggerId
    state: Annotated[Standing, about("What comes first hides what comes after, in the order of the values.")]
    pause: Annotated[ShownPause | None, about("Null unless it is paused.")]
    next_run_at: NextRun
    runs: Annotated[int | None, about("Executions made, counted where `max_runs` is set.")]
    error: Annotated[str | None, about("Why its next slot can't be computed.")]
    last: Annotated[
        ShownLast | UnsetType | None,
        about("The slot that ended last; left out where a whole set is listed: ask for pages with `limit`."),
    ] = UNSET


class TriggerAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """One trigger."""

    revision: Revision
    trigger: ShownTrigger


class ShownFieldChange(Answer, frozen=True, kw_only=True):
    """A field that differs. Values longer than that are shown by their beginning, as a string."""

    field: Annotated[str, about("Its name; a header's is `headers['X-Key']`.")]
    old: Annotated[Raw, about(f"Up to {LONGEST_VALUE} bytes.", **ANY_JSON)]
    new: Annotated[Raw, about(f"Up to {LONGEST_VALUE} bytes.", **ANY_JSON)]
    masked: Annotated[bool, about("It changed, and at least a part of it is not shown: it may be secret.")]


class ShownChange(Answer, frozen=True, kw_only=True):
    """What became of a trigger between two sets."""

    id: TriggerId
    change: Change
    fields: Annotated[list[ShownFieldChange], about("What differs, of an updated one.")]


class PlannedTrigger(ShownChange, frozen=True, kw_only=True):
    """What would become of a trigger."""

    runs_added: int
    runs_lost: int
    first_added: Annotated[list[Moment], about(f"The first {FIRST_RUNS} of them.")]
    first_lost: Annotated[list[Moment], about(f"The first {FIRST_RUNS} of them.")]


class PlannedRuns(Answer, frozen=True, kw_only=True):
    """How many runs would come and go. What is disabled or paused has none."""

    after: Moment
    until: Annotated[Moment, about("A day later.")]
    added: int
    lost: int


class SetPlan(WorkspaceAnswer, frozen=True, kw_only=True):
    """What the call would do: nothing was stored."""

    dry_run: Annotated[bool, about("Always true.", const=True)] = True
    revision: Annotated[int, about("Of the set as it is.", minimum=0)]
    removed: Annotated[int, about("The size of the set as it is.")]
    added: Annotated[int, about("The size of the new set.")]
    changes: Changes
    needs_confirmation: Annotated[bool, about("So much would be deleted that the call needs `confirm=true`.")]
    runs: PlannedRuns
    triggers: Annotated[
        list[PlannedTrigger], about(f"The first {DETAILED} changes: deleted, then updated, then created.")
    ]


def job_of(workspace: str, id_: str, definition: Definition, next_slot: int | None) -> Job:
    """Ids and names in the form that clients expect."""
    return Job(
        job_id=f"{workspace}:{id_}",
        job_name=f"{workspace}-trigger-{id_}",
        cron=definition.cron or None,
        interval=definition.interval or None,
        at=moment(definition.at or None),
        url=mask_url(definition.url),
        method=definition.method,
        id=id_,
        name=definition.name or None,
        timezone=definition.timezone,
        enabled=definition.enabled,
        next_run_at=moment(next_slot),
    )


def shown_trigger(workspace: str, trigger: Trigger, view: View, with_last: bool = True) -> ShownTrigger:
    """A stored trigger, masked as the view has it; without its last slot where that was not read."""
    held, last = trigger.pause, trigger.last
    ended = None
    if last is not None:
        ended = ShownLast(
            scheduled_at=rfc3339(last.slot),
            state=last.state,
            status=last.status or None,
            lateness_ms=last.lateness,
            duration_ms=last.duration,
        )
    return ShownTrigger(
        **fields_of(trigger.definition, view),
        job_id=f"{workspace}:{trigger.id}",
        job_name=f"{workspace}-trigger-{trigger.id}",
        id=trigger.id,
        state=trigger.standing,
        pause=shown_pause(held),
        next_run_at=moment(trigger.next_slot),
        runs=trigger.runs if trigger.definition.max_runs else None,
        error=trigger.error,
        last=ended if with_last else UNSET,
    )


def fields_of(definition: Definition, view: View) -> dict[str, Any]:
    """A definition's fields as answers show them, to build an answer from."""
    return msgspec.structs.asdict(shown(definition, view))


def shown_fields(changes: list[FieldChange]) -> list[ShownFieldChange]:
    """Field changes in an answer."""
    return [ShownFieldChange(**msgspec.structs.asdict(one)) for one in changes]


def shown_plan(
    workspace: str, plan: Plan, revision: int, removed: int, added: int, needs_confirmation: bool
) -> SetPlan:
    """The answer of a dry run."""
    return SetPlan(
        workspace_id=workspace,
        revision=revision,
        removed=removed,
        added=added,
        changes=plan.changes,
        needs_confirmation=needs_confirmation,
        runs=PlannedRuns(
            after=rfc3339(plan.after), until=rfc3339(plan.until), added=plan.added, lost=plan.lost
        ),
        triggers=[
            PlannedTrigger(
                id=one.id,
                change=one.change,
                fields=shown_fields(one.fields),
                runs_added=one.added,
                runs_lost=one.lost,
                first_added=[rfc3339(slot) for slot in one.first_added],
                first_lost=[rfc3339(slot) for slot in one.first_lost],
            )
            for one in plan.triggers
        ],
    )
