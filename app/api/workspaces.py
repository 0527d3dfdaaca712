"""Workspaces: what each sets for itself, pausing them, and erasing them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, UnsetType

from app.api.fields import WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.shapes import shown_pause
from app.api.workspace_shapes import (
    DEPLOYMENT_SETTINGS,
    WorkspaceErased,
    WorkspaceList,
    WorkspacePaused,
    WorkspaceShown,
    listed_workspace,
    shown_workspace,
)
from app.config import Settings
from app.errors import (
    ConfirmationRequired,
    Fault,
    InvalidRequest,
    InvalidSchedule,
    NotFound,
    TooManyWorkspaces,
    WorkspaceErasing,
)
from app.formats import Cursor, Zone
from app.schedule.zones import load_zone
from app.store import Shard, Shards, everywhere, holds, upkeep
from app.store import workspaces as store

noun = Noun("workspaces", "The tenants: their settings and their pauses.", "/api/workspaces")

_YEARS = 10 * 366 * 86_400

MaxConcurrency = Annotated[
    int, Meta(ge=0, le=100_000, description="Executions at once over all workers; 0: no bound.")
]
MaxRate = Annotated[
    float,
    Meta(
        ge=0,
        le=100_000,
        description="Requests a second over all workers, evenly spread: 10, or 0.5 for one every two seconds;"
        " 0: no bound.",
    ),
]
KeepSeconds = Annotated[
    int, Meta(ge=1, le=_YEARS, description="How long what did not fail is kept after its end.")
]
KeepSucceeded = Annotated[
    int,
    Meta(
        ge=0,
        le=1_000_000,
        description="How many succeeded, and how many cancelled, skipped and missed executions are kept.",
    ),
]
KeepFailed = Annotated[int, Meta(ge=0, le=1_000_000, description="How many dead letters are kept.")]
ZoneName = Annotated[Zone, Meta(description="The zone of triggers that name none.")]
Timeout = Annotated[float, Meta(gt=0, le=3600, description="Of attempts whose trigger names none.")]
MaxRetries = Annotated[int, Meta(ge=0, le=100, description="Of triggers that name none.")]
Description = Annotated[str, Meta(max_length=4096, description="For people.")]


class SettingsInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a workspace sets for itself; null, or left out: as the deployment has it.

    Zone, time-out and retries are filled in when a trigger is stored; the others go for what is there.
    """

    max_concurrency: MaxConcurrency | None = None
    max_rate: MaxRate | None = None
    keep_succeeded_seconds: KeepSeconds | None = None
    keep_succeeded: KeepSucceeded | None = None
    keep_failed: KeepFailed | None = None
    timezone: ZoneName | None = None
    timeout_seconds: Timeout | None = None
    max_retries: MaxRetries | None = None
    description: Description | None = None


class SettingsPatch(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What changes of a workspace's settings; null: as the deployment has it again."""

    max_concurrency: MaxConcurrency | UnsetType | None = UNSET
    max_rate: MaxRate | UnsetType | None = UNSET
    keep_succeeded_seconds: KeepSeconds | UnsetType | None = UNSET
    keep_succeeded: KeepSucceeded | UnsetType | None = UNSET
    keep_failed: KeepFailed | UnsetType | None = UNSET
    timezone: ZoneName | UnsetType | None = UNSET
    timeout_seconds: Timeout | UnsetType | None = UNSET
    max_retries: MaxRetries | UnsetType | None = UNSET
    description: Description | UnsetType | None = UNSET


class WorkspacesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which page."""

    limit: Annotated[int, Meta(ge=1, le=500, description="How many at most.")] = 100
    cursor: Annotated[Cursor | None, about("Begins after the page that gave it.")] = None


class EraseQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A protection against erasing by mistake."""

    confirm: Annotated[str | None, about("The workspace's id once more; without it nothing is erased.")] = (
        None
    )


class WorkspacePauseInput(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Why."""

    note: Annotated[str, Meta(max_length=1000, description="For those who find it paused.")] = ""


@noun.operation("GET")
async def list_workspaces(shards: Shards, call: Call, query: WorkspacesQuery) -> WorkspaceList:
    """The workspaces that there are and that you may see, with what they hold."""
    found, following = await everywhere.list_workspaces(
        shards, query.cursor or "", query.limit, only=call.caller.workspaces
    )
    counts = await everywhere.counts(shards, [one.id for one in found])
    shown = [listed_workspace(one, held) for one, held in zip(found, counts, strict=True)]
    return WorkspaceList(count=len(shown), workspaces=shown, next_cursor=following)


@noun.operation("GET", "/{workspace_id}", errors=(NotFound,))
async def get_workspace(shard: Shard, workspace_id: WorkspaceId) -> WorkspaceShown:
    """A workspace with its settings, what goes for it, and what it holds."""
    return _known(workspace_id, await _shown(shard, workspace_id))


@noun.operation("PUT", "/{workspace_id}", status=(200, 201), errors=(WorkspaceErasing, TooManyWorkspaces))
async def put_workspace(
    shard: Shard, call: Call, workspace_id: WorkspaceId, body: SettingsInput
) -> WorkspaceShown:
    """Set all settings of a workspace, which is made if there is none.

    A workspace is also made by storing triggers in it. 201 when it is new. Limits beyond the deployment's
    need the scope `admin` for all workspaces: they are there for the others.
    """
    _check_zone(body.timezone)
    values = msgspec.structs.asdict(body)
    before = msgspec.structs.asdict(await store.settings_of(shard, workspace_id))
    _check_limits(call, before, values, shard.settings)
    if await store.configure(shard, workspace_id, store.WorkspaceSettings(**values)):
        call.status = 201
    _tell(call, before, values)
    shown = await _shown(shard, workspace_id)
    if shown is None:
        raise WorkspaceErasing(f"The workspace {workspace_id!r} was erased at the same moment; try again.")
    return shown


@noun.operation("PATCH", "/{workspace_id}", errors=(NotFound, WorkspaceErasing))
async def patch_workspace(
    shard: Shard, call: Call, workspace_id: WorkspaceId, body: SettingsPatch
) -> WorkspaceShown:
    """Change some settings of a workspace; what is left out stays.

    Limits beyond the deployment's need the scope `admin` for all workspaces.
    """
    given = {name: value for name, value in msgspec.structs.asdict(body).items() if value is not UNSET}
    _check_zone(given.get("timezone"))
    before = msgspec.structs.asdict(await store.settings_of(shard, workspace_id))
    _check_limits(call, before, given, shard.settings)
    if not await store.change(shard, workspace_id, given):
        raise _none(workspace_id)
    _tell(call, before, given)
    return _known(workspace_id, await _shown(shard, workspace_id))


@noun.operation("DELETE", "/{workspace_id}", scope="admin", errors=(NotFound, ConfirmationRequired))
async def erase_workspace(
    shard: Shard, call: Call, workspace_id: WorkspaceId, query: EraseQuery
) -> WorkspaceErased:
    """Erase a workspace: triggers, executions, dead letters, history, revisions, settings.

    Running requests are cut off. Nothing can be brought back, so `confirm` has to repeat the id. Its audit
    goes, too; that it was erased stands in the general one.
    """
    if query.confirm != workspace_id:
        raise ConfirmationRequired(
            f"This erases {workspace_id!r} with everything of it: repeat it with ?confirm={workspace_id}."
        )
    if not await upkeep.erase(shard, workspace_id):
        raise _none(workspace_id)
    call.told.everywhere = True
    return WorkspaceErased(workspace_id=workspace_id)


@noun.operation("POST", "/{workspace_id}/pause", scope="operate", errors=(NotFound,))
async def pause_workspace(
    shard: Shard, workspace_id: WorkspaceId, body: WorkspacePauseInput | None
) -> WorkspacePaused:
    """Pause a workspace: no slot of it is due until it is resumed.

    What is queued or running goes on, and runs by hand are possible. The slots in between do not count as
    missed: the ledger shows the span.
    """
    changed = await holds.pause_workspace(shard, workspace_id, "" if body is None else body.note)
    return await _held(shard, workspace_id, changed)


@noun.operation("POST", "/{workspace_id}/resume", scope="operate", errors=(NotFound,))
async def resume_workspace(shard: Shard, workspace_id: WorkspaceId) -> WorkspacePaused:
    """Resume a workspace; slots from now on are due."""
    return await _held(shard, workspace_id, await holds.resume_workspace(shard, workspace_id))


async def _held(shard: Shard, workspace: str, changed: bool | None) -> WorkspacePaused:
    found = await store.get(shard, workspace)
    if changed is None or found is None:
        raise _none(workspace)
    return WorkspacePaused(workspace_id=workspace, changed=changed, pause=shown_pause(found.pause))


def _tell(call: Call, before: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Tell the audit which settings became what."""
    changed = [name for name, value in given.items() if value != before[name]]
    call.told.nothing = not changed and call.status != 201
    call.told.before = {name: before[name] for name in changed}
    call.told.after = {name: given[name] for name in changed}


def _known(workspace: str, shown: WorkspaceShown | None) -> WorkspaceShown:
    if shown is None:
        raise _none(workspace)
    return shown


async def _shown(shard: Shard, workspace: str) -> WorkspaceShown | None:
    found = await store.get(shard, workspace)
    if found is None:
        return None
    (held,) = await store.counts(shard, [workspace])
    return WorkspaceShown(workspace_id=workspace, workspace=shown_workspace(found, held, shard.settings))


_UNBOUNDED_BY_0 = ("max_concurrency", "max_rate")


def _check_limits(
    call: Call, before: Mapping[str, Any], given: Mapping[str, Any], settings: Settings
) -> None:
    """Raise :class:`app.errors.Forbidden` for more than the deployment, or an admin, has given."""

    def reach(name: str, limit: float | None) -> float:
        if limit is None:
            return 0
        return math.inf if limit == 0 and name in _UNBOUNDED_BY_0 else limit

    for name in DEPLOYMENT_SETTINGS:
        most = max(reach(name, getattr(settings, name)), reach(name, before[name]))
        if reach(name, given.get(name)) > most:
            call.caller.need_everywhere("admin")


def _check_zone(zone: str | None) -> None:
    if zone is None:
        return
    try:
        load_zone(zone)
    except InvalidSchedule as error:
        fault = Fault("timezone", str(error))
        raise InvalidRequest("The body is not valid; nothing was done.", [fault]) from error


def _none(workspace: str) -> NotFound:
    return NotFound(f"There is no workspace {workspace!r}: store triggers in it, or PUT its settings.")
