"""Workspaces as answers show them: their settings, what goes for them, and what they hold."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.api.fields import Answer, WorkspaceAnswer, WorkspaceId, about
from app.api.shapes import ShownPause, shown_pause
from app.api.trigger_inputs import defaults_of
from app.clock import rfc3339
from app.config import Settings
from app.formats import Cursor, Moment, Zone
from app.store import workspaces as store

# What the deployment says where a workspace does not.
DEPLOYMENT_SETTINGS = (
    "max_concurrency",
    "max_rate",
    "keep_succeeded_seconds",
    "keep_succeeded",
    "keep_failed",
)


class OwnSettings(Answer, frozen=True, kw_only=True):
    """What a workspace sets for itself; null: as the deployment has it."""

    max_concurrency: int | None
    max_rate: float | None
    keep_succeeded_seconds: int | None
    keep_succeeded: int | None
    keep_failed: int | None
    timezone: Zone | None
    timeout_seconds: float | None
    max_retries: int | None
    description: str | None


class EffectiveSettings(Answer, frozen=True, kw_only=True):
    """What goes for a workspace."""

    max_concurrency: int
    max_rate: float
    keep_succeeded_seconds: int
    keep_succeeded: int
    keep_failed: int
    timezone: Zone
    timeout_seconds: float
    max_retries: int


class FormerPause(Answer, frozen=True, kw_only=True):
    """A pause that is over."""

    since: Moment
    until: Moment
    note: str


class TriggerCounts(Answer, frozen=True, kw_only=True):
    """Triggers by where they stand."""

    total: int
    active: int
    paused: int
    disabled: int
    finished: Annotated[int, about("Without a further slot.")]
    error: Annotated[int, about("Whose next slot can't be computed.")]


class ExecutionCounts(Answer, frozen=True, kw_only=True):
    """Executions by state: open ones, and finished ones as far as they are kept."""

    queued: int
    running: int
    retrying: Annotated[int, about("Waiting for a time: of the next attempt, or that jitter gave them.")]
    succeeded: int
    failed: Annotated[int, about("Dead letters.")]
    cancelled: int
    skipped: int
    missed: int


class ListedWorkspace(Answer, frozen=True, kw_only=True):
    """A workspace and what it holds."""

    id: WorkspaceId
    description: str | None
    created_at: Moment
    revision: Annotated[int, about("Of its trigger set; 0 before the first.")]
    pause: Annotated[ShownPause | None, about("Null when it is not paused.")]
    triggers: TriggerCounts
    executions: ExecutionCounts


class ShownWorkspace(ListedWorkspace, frozen=True, kw_only=True):
    """A workspace with its settings."""

    settings: OwnSettings
    effective: EffectiveSettings
    former_pauses: Annotated[list[FormerPause], about("The last ones, newest first.")]


class WorkspaceShown(WorkspaceAnswer, frozen=True, kw_only=True):
    """A workspace."""

    workspace: ShownWorkspace


class WorkspaceList(Answer, frozen=True, kw_only=True):
    """A page of workspaces, in the order of their ids."""

    count: Annotated[int, about("How many are on this page.")]
    workspaces: list[ListedWorkspace]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


class WorkspaceErased(WorkspaceAnswer, frozen=True, kw_only=True):
    """A workspace is gone with everything of it."""


class WorkspacePaused(WorkspaceAnswer, frozen=True, kw_only=True):
    """Whether a workspace is paused now."""

    changed: Annotated[bool, about("False when it was so already; a note given again replaces the first.")]
    pause: Annotated[ShownPause | None, about("Null when it is not paused.")]


def listed_workspace(found: store.Workspace, held: store.Counts) -> ListedWorkspace:
    """A workspace with what it holds."""
    return ListedWorkspace(
        id=found.id,
        description=found.settings.description,
        created_at=rfc3339(found.created),
        revision=found.revision,
        pause=shown_pause(found.pause),
        triggers=TriggerCounts(**held.triggers),
        executions=ExecutionCounts(**held.executions),
    )


def shown_workspace(found: store.Workspace, held: store.Counts, settings: Settings) -> ShownWorkspace:
    """A workspace with what it holds and what goes for it."""
    return ShownWorkspace(
        **msgspec.structs.asdict(listed_workspace(found, held)),
        settings=OwnSettings(**msgspec.structs.asdict(found.settings)),
        effective=effective(found.settings, settings),
        former_pauses=[
            FormerPause(since=rfc3339(since), until=rfc3339(until), note=note)
            for since, until, note in reversed(found.spans)
        ],
    )


def effective(own: store.WorkspaceSettings, settings: Settings) -> EffectiveSettings:
    """What goes for a workspace: its own settings, and the deployment's where it has none."""
    stored = defaults_of(own, settings)
    chosen = {name: getattr(own, name) for name in DEPLOYMENT_SETTINGS}
    return EffectiveSettings(
        **{name: getattr(settings, name) if value is None else value for name, value in chosen.items()},
        timezone=stored.timezone,
        timeout_seconds=stored.timeout_seconds,
        max_retries=stored.max_retries,
    )
