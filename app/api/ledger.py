"""The ledger: every slot that was due, accounted for. It is recorded as it happens, not inferred."""

from __future__ import annotations

from typing import Annotated

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Noun
from app.api.ranges import TriggerDaysQuery, days_of, shown_day
from app.api.shapes import ShownSlot, shown_slot
from app.clock import day_of, rfc3339
from app.formats import Moment
from app.models import State
from app.store import Shard, catalog, executions, history, workspaces
from app.tally import Ends, tally

noun = Noun("ledger", "Every slot that was due, accounted for.", "/api/workspaces/{workspace_id}/ledger")

_USUAL_DAYS = 7


class End(Answer, frozen=True, kw_only=True):
    """How many ended in one way."""

    state: State
    reason: Annotated[str | None, about("Null where the state says it all.")]
    count: int


class LedgerDay(Answer, frozen=True, kw_only=True):
    """The slots of a UTC day: `due` is the sum of `ended` and `open`."""

    day: Annotated[str, about("The UTC day.", format="date")]
    due: int
    open: Annotated[int, about("Those that have not ended.")]
    ended: list[End]
    by_hand: Annotated[list[End], about("How runs, backfills and retries ended; they are no slots.")]


class ExceptionalRun(Answer, frozen=True, kw_only=True):
    """Slots that followed each other and ended in the same way, other than well."""

    first: Moment
    last: Moment
    count: int
    state: State
    reason: str | None


class Span(Answer, frozen=True, kw_only=True):
    """A time in which no slot was due."""

    since: Moment
    until: Annotated[Moment | None, about("Null while it lasts.")]
    what: Annotated[
        str,
        about(
            "What was held; `trigger_changed`: it got another schedule while nothing could be fired.",
            enum=["trigger_paused", "trigger_disabled", "trigger_changed", "workspace_paused"],
        ),
    ]
    note: str | None


class Ledger(WorkspaceAnswer, frozen=True, kw_only=True):
    """Days, exceptions, spans, and the last slots one by one."""

    trigger_id: Annotated[TriggerId | None, about("Null for all triggers together.")]
    days: Annotated[list[LedgerDay], about("Oldest first, those without anything too.")]
    exceptions: Annotated[
        list[ExceptionalRun], about("Of a trigger that is there: the last ones in that time, newest first.")
    ]
    spans: Annotated[list[Span], about("The last ones in that time, newest first.")]
    slots: Annotated[
        list[ShownSlot], about("Of a trigger that is there: the last slots that ended, newest first.")
    ]


@noun.operation("GET")
async def get_ledger(shard: Shard, workspace_id: WorkspaceId, query: TriggerDaysQuery) -> Ledger:
    """What became of every slot of a trigger, or how many there were of all; the last 7 days, if not told.

    For every day the slots due are those that ended, by state and reason, and those that are open. The
    counters are written when a schedule moves past a slot and when an execution ends, so they do not depend
    on executions that are kept no more. `exceptions` and `slots` are bounded in number; `days` is complete.
    """
    days = days_of(query, await shard.now_ms(), shard.settings.keep_days, _USUAL_DAYS)
    found = await history.days(shard, workspace_id, query.trigger or "", days)
    exceptions: list[ExceptionalRun] = []
    spans = await _workspace_spans(shard, workspace_id)
    slots: list[ShownSlot] = []
    if query.trigger is not None:
        runs = await history.runs(shard, workspace_id, query.trigger)
        exceptions = [_run(run) for run in runs if run.count and _meets(run.first, run.last, days)]
        spans += [_span(run) for run in runs if not run.count]
        spans += await _held(shard, workspace_id, query.trigger)
        last = await executions.last_slots(shard, workspace_id, query.trigger)
        slots = [shown_slot(slot) for slot in last if day_of(slot.slot) in days]
    kept = [span for span in spans if _touches(span, days)]
    return Ledger(
        workspace_id=workspace_id,
        trigger_id=query.trigger,
        days=[_day(day) for day in found],
        exceptions=exceptions,
        spans=sorted(kept, key=lambda span: span.since, reverse=True),
        slots=slots,
    )


def _day(day: history.Day) -> LedgerDay:
    counted = tally([day.counts])
    return LedgerDay(
        day=shown_day(day.day),
        due=counted.due,
        open=counted.open,
        ended=_ends(counted.ended),
        by_hand=_ends(counted.by_hand),
    )


def _ends(ends: Ends) -> list[End]:
    return [
        End(state=State(state), reason=reason or None, count=number)
        for (state, reason), number in sorted(ends.items())
    ]


def _run(run: history.Run) -> ExceptionalRun:
    return ExceptionalRun(
        first=rfc3339(run.first),
        last=rfc3339(run.last),
        count=run.count,
        state=State(run.state),
        reason=run.reason or None,
    )


def _span(run: history.Run) -> Span:
    return Span(
        since=rfc3339(run.first),
        until=rfc3339(run.last),
        what=f"trigger_{run.state}",
        note=run.reason or None,
    )


async def _workspace_spans(shard: Shard, workspace: str) -> list[Span]:
    found = await workspaces.get(shard, workspace)
    if found is None:
        return []
    spans = [
        Span(since=rfc3339(since), until=rfc3339(until), what="workspace_paused", note=note or None)
        for since, until, note in found.spans
    ]
    if found.pause is not None:
        spans.append(_lasting(found.pause.since, "workspace_paused", found.pause.note))
    return spans


async def _held(shard: Shard, workspace: str, trigger: str) -> list[Span]:
    found = await catalog.read_one(shard, workspace, trigger)
    spans = []
    if found is not None and found.pause is not None:
        spans.append(_lasting(found.pause.since, "trigger_paused", found.pause.note))
    if found is not None and found.disabled_since is not None:
        spans.append(_lasting(found.disabled_since, "trigger_disabled", ""))
    return spans


def _lasting(since: int, what: str, note: str) -> Span:
    return Span(since=rfc3339(since), until=None, what=what, note=note or None)


def _meets(first: int, last: int, days: range) -> bool:
    return day_of(first) < days.stop and day_of(last) >= days.start


def _touches(span: Span, days: range) -> bool:
    return span.since[:10] <= shown_day(days.stop - 1) and (
        span.until is None or span.until[:10] >= shown_day(days.start)
    )
