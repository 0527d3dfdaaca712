"""What was counted and timed day by day; it stays when executions are long gone."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.api.fields import TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Noun
from app.api.ranges import DaysQuery, TriggerDaysQuery, days_of, shown_day
from app.api.shapes import Period, need_trigger, period
from app.errors import NotFound
from app.store import Shard, history

noun = Noun("history", "What was counted and timed, day by day.", "/api/workspaces/{workspace_id}")

_USUAL_DAYS = 30


class HistoryDay(Period, frozen=True, kw_only=True):
    """What was counted and timed on a UTC day."""

    day: Annotated[str, about("The UTC day.", format="date")]


class History(WorkspaceAnswer, frozen=True, kw_only=True):
    """Days, oldest first, those without anything too."""

    trigger_id: Annotated[TriggerId | None, about("Null for all triggers together.")]
    days: list[HistoryDay]


class HistoryStats(WorkspaceAnswer, frozen=True, kw_only=True):
    """A range of days as one."""

    trigger_id: Annotated[TriggerId | None, about("Null for all triggers together.")]
    first_day: Annotated[str, about("The first UTC day that was counted.", format="date")]
    last_day: Annotated[str, about("The last one.", format="date")]
    counted: Period


@noun.operation("GET", "/history")
async def get_history(shard: Shard, workspace_id: WorkspaceId, query: TriggerDaysQuery) -> History:
    """Day by day: counts per state, durations and latenesses; the last 30 days, if not told.

    A slot belongs to its own day, and what a person started to the day on which it ended.
    """
    return await _history(shard, workspace_id, query.trigger, query)


@noun.operation("GET", "/triggers/{trigger_id}/history", errors=(NotFound,))
async def get_trigger_history(
    shard: Shard, workspace_id: WorkspaceId, trigger_id: TriggerId, query: DaysQuery
) -> History:
    """The same of one trigger."""
    await need_trigger(shard, workspace_id, trigger_id)
    return await _history(shard, workspace_id, trigger_id, query)


@noun.operation("GET", "/history/stats")
async def get_history_stats(shard: Shard, workspace_id: WorkspaceId, query: TriggerDaysQuery) -> HistoryStats:
    """A range of days as one; the last 30, if not told."""
    days = await _days(shard, query)
    return HistoryStats(
        workspace_id=workspace_id,
        trigger_id=query.trigger,
        first_day=shown_day(days.start),
        last_day=shown_day(days.stop - 1),
        counted=period(await history.days(shard, workspace_id, query.trigger or "", days)),
    )


async def _history(shard: Shard, workspace: str, trigger: str | None, query: DaysQuery) -> History:
    found = await history.days(shard, workspace, trigger or "", await _days(shard, query))
    return History(
        workspace_id=workspace,
        trigger_id=trigger,
        days=[HistoryDay(day=shown_day(one.day), **msgspec.structs.asdict(period([one]))) for one in found],
    )


async def _days(shard: Shard, query: DaysQuery) -> range:
    return days_of(query, await shard.now_ms(), shard.settings.keep_days, _USUAL_DAYS)
