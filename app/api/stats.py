"""How many triggers and executions there are, of a workspace and of all."""

from __future__ import annotations

from collections import Counter

from app.api.fields import Answer, WorkspaceAnswer, WorkspaceId
from app.api.operations import Call, Noun
from app.api.workspace_shapes import ExecutionCounts, TriggerCounts
from app.errors import NotFound
from app.store import Shard, Shards, everywhere
from app.store import workspaces as store

noun = Noun("stats", "How much there is of everything.", "/api")

_AT_ONCE = 200  # workspaces


class WorkspaceStats(WorkspaceAnswer, frozen=True, kw_only=True):
    """What a workspace holds."""

    triggers: TriggerCounts
    executions: ExecutionCounts


class AllStats(Answer, frozen=True, kw_only=True):
    """What all workspaces hold together."""

    workspaces: int
    paused_workspaces: int
    triggers: TriggerCounts
    executions: ExecutionCounts


@noun.operation("GET", "/workspaces/{workspace_id}/stats", errors=(NotFound,))
async def get_workspace_stats(shard: Shard, workspace_id: WorkspaceId) -> WorkspaceStats:
    """Triggers by where they stand, executions by state."""
    if await store.get(shard, workspace_id) is None:
        raise NotFound(f"There is no workspace {workspace_id!r}.")
    (held,) = await store.counts(shard, [workspace_id])
    return WorkspaceStats(
        workspace_id=workspace_id,
        triggers=TriggerCounts(**held.triggers),
        executions=ExecutionCounts(**held.executions),
    )


@noun.operation("GET", "/stats")
async def get_stats(shards: Shards, call: Call) -> AllStats:
    """The same over all workspaces that you may see."""
    triggers = Counter(dict.fromkeys(TriggerCounts.__struct_fields__, 0))
    executions = Counter(dict.fromkeys(ExecutionCounts.__struct_fields__, 0))
    number = paused = 0
    cursor: str | None = ""
    while cursor is not None:
        found, cursor = await everywhere.list_workspaces(
            shards, cursor, _AT_ONCE, only=call.caller.workspaces
        )
        number += len(found)
        paused += sum(one.pause is not None for one in found)
        for held in await everywhere.counts(shards, [one.id for one in found]):
            triggers.update(held.triggers)
            executions.update(held.executions)
    return AllStats(
        workspaces=number,
        paused_workspaces=paused,
        triggers=TriggerCounts(**triggers),
        executions=ExecutionCounts(**executions),
    )
