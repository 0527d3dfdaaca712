"""How a trigger fares, and why it did or did not run."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about, moment
from app.api.operations import Noun
from app.api.ranges import Instant
from app.api.shapes import Failure, Period, ShownSlot, failure, need_trigger, period, shown_slot
from app.api.workspace_shapes import effective
from app.clock import LAST_ASKED_MS, day_of, rfc3339, to_ms
from app.errors import InvalidSchedule, NotFound
from app.explain import Asked, Facts, Finding, Open, Span, explain, explain_slot
from app.formats import Moment
from app.health_score import consecutive_failures, health_score
from app.keys import execution_id
from app.models import Execution, LastSlot, State, Trigger
from app.schedule import schedule_of
from app.store import Shard, catalog, executions, history, witness, workers, workspaces
from app.tally import tally
from app.wording import Code

noun = Noun(
    "insight",
    "How a trigger fares, and why it did or did not run.",
    "/api/workspaces/{workspace_id}/triggers/{trigger_id}",
)

_DAYS = 7
_OPEN_LOOKED_AT = 20
_OPEN_STATES = (State.QUEUED, State.RUNNING, State.RETRYING)


class LastFailure(Answer, frozen=True, kw_only=True):
    """The newest dead letter of a trigger."""

    execution_id: str
    finished_at: Moment | None
    error: Failure | None


class Metrics(WorkspaceAnswer, frozen=True, kw_only=True):
    """How a trigger fares."""

    trigger_id: TriggerId
    runs: Annotated[int, about("What succeeded or failed in the last seven days, by hand too.")]
    success_rate: Annotated[float | None, about("The share of `runs` that succeeded, 0 to 1.")]
    consecutive_failures: Annotated[int, about("Of its last slots, since one succeeded.")]
    health_score: Annotated[
        int | None,
        about(
            "0 to 100; null before the first run. 60 x the share of its last slots that succeeded, each"
            " weighing 0.9 of the one after it; 20 x the share of the slots of seven days that were neither"
            " missed nor skipped; 10 x punctuality, from 1 (95 of 100 within a second) to 0 (a minute or"
            " more) on a logarithmic scale; 10 x 0.5 to the power of `consecutive_failures`.",
            minimum=0,
            maximum=100,
        ),
    ]
    last_run: Annotated[ShownSlot | None, about("Its last slot that was sent to its end.")]
    last_failure: Annotated[LastFailure | None, about("Its newest dead letter that is kept.")]
    week: Annotated[Period, about("The last seven UTC days, with today.")]


class ExplainQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is asked about."""

    at: Annotated[
        Instant | None, about("The slot at this moment, or the nearest one; else how things stand now.")
    ] = None


class ShownFinding(Answer, frozen=True, kw_only=True):
    """One thing that explains something."""

    code: Annotated[Code, about("What it is, for programs: it will not change.")]
    message: Annotated[str, about("The same for people, in the trigger's time zone.")]
    at: Annotated[Moment | None, about("The moment that it speaks of.")]
    execution_id: str | None


class Explanation(WorkspaceAnswer, frozen=True, kw_only=True):
    """Why a trigger did or did not run."""

    trigger_id: TriggerId
    slot: Annotated[Moment | None, about("The slot in question; null when it was asked how things stand.")]
    summary: Annotated[str, about("What matters most, in one sentence.")]
    findings: Annotated[list[ShownFinding], about("What matters most first.")]


@noun.operation("GET", "/metrics", errors=(NotFound,))
async def get_trigger_metrics(shard: Shard, workspace_id: WorkspaceId, trigger_id: TriggerId) -> Metrics:
    """Runs, success rate, failures in a row, last run and error, percentiles, and a health score.

    What is counted is of the last seven UTC days, with today; `history` has every day.
    """
    await need_trigger(shard, workspace_id, trigger_id)
    today = day_of(await shard.now_ms())
    week = period(await history.days(shard, workspace_id, trigger_id, range(today - _DAYS + 1, today + 1)))
    last = await executions.last_slots(shard, workspace_id, trigger_id)
    states = [slot.state for slot in last]
    page = await executions.list_newest(shard, workspace_id, state=State.FAILED, trigger=trigger_id, limit=1)
    sent = (week.states, week.by_hand)
    return Metrics(
        workspace_id=workspace_id,
        trigger_id=trigger_id,
        runs=sum(one.succeeded + one.failed for one in sent),
        success_rate=week.success_rate,
        consecutive_failures=consecutive_failures(states),
        health_score=health_score(
            states,
            due=week.due,
            absent=week.states.missed + week.states.skipped,
            lateness_p95=week.lateness_ms.p95,
        ),
        last_run=_last_run(last),
        last_failure=_last_failure(page.executions),
        week=week,
    )


@noun.operation("GET", "/explain", errors=(NotFound,))
async def explain_trigger(
    shard: Shard, workspace_id: WorkspaceId, trigger_id: TriggerId, query: ExplainQuery
) -> Explanation:
    """Why a trigger did or did not run, in words.

    Without `at` how things stand: what holds the trigger up, what comes next, what is open, what was last.
    With `at` whether that was a slot of its schedule as it is now, and what became of it. A trigger that is
    gone is explained as long as executions of it are kept.
    """
    facts = await _facts(shard, workspace_id, trigger_id)
    if facts.trigger is None and not facts.open:
        page = await executions.list_newest(shard, workspace_id, trigger=trigger_id, limit=1)
        if not page.executions:
            raise NotFound(
                f"There is no trigger {trigger_id!r} in {workspace_id!r}, and nothing is kept of one."
            )
    slot = None
    if query.at is None:
        findings = explain(facts)
    else:
        asked = await _asked(shard, facts, min(max(0, to_ms(query.at)), LAST_ASKED_MS))
        slot, findings = asked.slot, explain_slot(facts, asked)
    return Explanation(
        workspace_id=workspace_id,
        trigger_id=trigger_id,
        slot=moment(slot),
        summary=findings[0].message,
        findings=[_shown(finding) for finding in findings],
    )


async def _facts(shard: Shard, workspace: str, trigger: str) -> Facts:
    found = await workspaces.get(shard, workspace)
    page = await executions.list_newest(
        shard, workspace, state=_OPEN_STATES, trigger=trigger, limit=_OPEN_LOOKED_AT
    )
    places = await executions.waits_in(shard, workspace, [one.id for one in page.executions])
    runs = await history.runs(shard, workspace, trigger)
    spans = [Span(run.first, run.last, run.count, run.state, run.reason) for run in runs]
    usual = workspaces.WorkspaceSettings()
    goes = effective(found.settings if found else usual, shard.settings)
    last = await executions.last_slots(shard, workspace, trigger)
    newest = execution_id(workspace, trigger, last[0].slot) if last else None
    if found is not None:
        spans += [Span(since, until, 0, "workspace_paused", note) for since, until, note in found.spans]
    status = await witness.status(shard)
    return Facts(
        now=status.now,
        workspace=workspace,
        trigger_id=trigger,
        trigger=await catalog.read_one(shard, workspace, trigger),
        workspace_pause=found.pause if found else None,
        spans=spans,
        newest=None if newest is None else await executions.get(shard, workspace, newest),
        last=last,
        open=[Open(one, place) for one, place in zip(page.executions, places, strict=True)],
        max_concurrency=goes.max_concurrency,
        max_rate=goes.max_rate,
        held=await executions.places_held(shard, workspace),
        deadline_seconds=shard.settings.start_deadline_seconds,
        served=any(not one.is_silent(status.now) for one in await workers.all_seen(shard)),
        worker_seen=status.worker_seen,
        firing_held=" ".join(hold.detail for hold in status.holds),
    )


async def _asked(shard: Shard, facts: Facts, at: int) -> Asked:
    slot = at if facts.trigger is None else _nearest(facts.workspace, facts.trigger, at)
    id_ = execution_id(facts.workspace, facts.trigger_id, slot)
    execution = await executions.get(shard, facts.workspace, id_)
    (waits_in,) = await executions.waits_in(shard, facts.workspace, [id_])
    days = await history.days(shard, facts.workspace, facts.trigger_id, [day_of(slot)])
    return Asked(
        at=at,
        slot=slot,
        execution=execution,
        waits_in=waits_in,
        day=tally(day.counts for day in days),
    )


def _nearest(workspace: str, trigger: Trigger, at: int) -> int:
    """The slot at a moment, else the nearest; the moment itself where there is none."""
    try:
        schedule = schedule_of(trigger.definition, workspace, trigger.id, trigger.anchor)
    except InvalidSchedule:
        return at
    near = [slot for slot in (schedule.previous(at + 1), *schedule.slots(at, 1)) if slot is not None]
    return min(near, key=lambda slot: abs(slot - at), default=at)


def _last_run(last: list[LastSlot]) -> ShownSlot | None:
    sent = (slot for slot in last if slot.state in (State.SUCCEEDED, State.FAILED))
    newest = next(sent, None)
    return None if newest is None else shown_slot(newest)


def _last_failure(found: list[Execution]) -> LastFailure | None:
    if not found:
        return None
    (letter,) = found
    last = letter.attempts[-1] if letter.attempts else None
    return LastFailure(
        execution_id=letter.id,
        finished_at=moment(letter.finished),
        error=failure(last) if last else None,
    )


def _shown(finding: Finding) -> ShownFinding:
    return ShownFinding(
        code=finding.code,
        message=finding.message,
        at=None if finding.at is None else rfc3339(finding.at),
        execution_id=finding.execution,
    )
