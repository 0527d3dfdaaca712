"""A workspace's trigger set: the four calls whose shapes other programs rely on."""

from __future__ import annotations

import asyncio
import re
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType

from app.api.fields import JSON_TYPES, Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about, moment
from app.api.operations import Noun
from app.errors import Fault, InvalidRequest, ReplaceConflict
from app.formats import Cron, HttpUrl, Moment, Zone
from app.inputs import ReplaceInput, TriggerInput
from app.masking import MASK, mask_headers, unmask_headers
from app.models import Changes, Definition, Method
from app.models import Trigger as Stored
from app.store import Shard, catalog
from app.store import triggers as store
from app.validation import parse_replace

# Header names whose values are credentials by all likelihood; answers show MASK instead.
_SECRET_NAME = re.compile(r"auth|cookie|token|secret|password|signature|credential|api-?key|-key$", re.I)

noun = Noun(
    "triggers", "What to send and when: a workspace's set.", "/api/workspaces/{workspace_id}/triggers"
)

Revision = Annotated[int, about("Counts the accepted versions of the set.", minimum=0)]


class Job(Answer, frozen=True, kw_only=True):
    """A trigger as a replace shows it."""

    job_id: Annotated[str, about("The workspace's id and the trigger's.")] = msgspec.field(name="jobId")
    job_name: Annotated[str, about("A name for display.")] = msgspec.field(name="jobName")
    cron: Annotated[Cron, about("When, in the trigger's time zone.")]
    url: HttpUrl
    method: Method
    id: TriggerId
    name: str | None
    timezone: Zone
    enabled: bool
    next_run_at: Annotated[Moment | None, about("The next slot; null when there is none.")]


class ListedJob(Job, frozen=True, kw_only=True):
    """A trigger with its whole definition."""

    headers: Annotated[dict[str, str], about(f"Values that look like credentials are shown as {MASK}.")]
    timeout_seconds: float
    max_retries: int
    payload: Annotated[
        msgspec.Raw | UnsetType, about("Any JSON value; left out when there is none.", type=JSON_TYPES)
    ] = UNSET
    error: Annotated[str | UnsetType, about("Why its next slot can't be computed.")] = UNSET


class TriggersReplaced(WorkspaceAnswer, frozen=True, kw_only=True):
    """What a replace did."""

    removed: Annotated[int, about("The size of the old set.")]
    added: Annotated[int, about("The size of the new set.")]
    jobs: list[Job]
    revision: Revision
    changes: Changes


class TriggerList(WorkspaceAnswer, frozen=True, kw_only=True):
    """A whole set, in the order in which it was declared."""

    count: int
    jobs: list[ListedJob]
    revision: Revision


class TriggersDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """What emptying a set did."""

    removed: Annotated[int, about("The size of the old set.")]
    revision: Revision
    changes: Changes


@noun.operation("PUT", body=ReplaceInput, errors=(ReplaceConflict,), name="put_triggers")
@noun.operation("POST", body=ReplaceInput, errors=(ReplaceConflict,))
async def replace_triggers(shard: Shard, workspace_id: WorkspaceId, body: bytes) -> TriggersReplaced:
    """Put the body's set in the place of the workspace's own.

    The whole set is swapped at once. A trigger whose definition did not change keeps its next slot, its
    phase and its history; nothing of a removed trigger is sent any more.
    """
    inputs = await asyncio.to_thread(parse_replace, body, shard.settings)  # a large one takes a while
    ids = [str(index) if given.id is None else given.id for index, given in enumerate(inputs)]
    definitions = await _unmask(shard, workspace_id, ids, inputs)
    done = await store.replace(shard, workspace_id, list(zip(ids, definitions, strict=True)))
    return TriggersReplaced(
        workspace_id=workspace_id,
        removed=done.removed,
        added=done.added,
        jobs=[
            _job(workspace_id, id_, definition, slot)
            for id_, definition, slot in zip(ids, definitions, done.next_slots, strict=True)
        ],
        revision=done.revision,
        changes=done.changes,
    )


@noun.operation("GET")
async def list_triggers(shard: Shard, workspace_id: WorkspaceId) -> TriggerList:
    """The whole set, in the order in which it was declared."""
    current = await catalog.read(shard, workspace_id)
    return TriggerList(
        workspace_id=workspace_id,
        count=len(current.triggers),
        jobs=[_listed(workspace_id, trigger) for trigger in current.triggers],
        revision=current.revision,
    )


@noun.operation("DELETE", errors=(ReplaceConflict,))
async def delete_triggers(shard: Shard, workspace_id: WorkspaceId) -> TriggersDeleted:
    """Empty the set."""
    done = await store.replace(shard, workspace_id, [])
    return TriggersDeleted(
        workspace_id=workspace_id, removed=done.removed, revision=done.revision, changes=done.changes
    )


def _job(workspace: str, id_: str, definition: Definition, next_slot: int | None) -> Job:
    """Ids and names in the form that clients expect."""
    return Job(
        job_id=f"{workspace}:{id_}",
        job_name=f"{workspace}-trigger-{id_}",
        cron=definition.cron,
        url=definition.url,
        method=definition.method,
        id=id_,
        name=definition.name or None,
        timezone=definition.timezone,
        enabled=definition.enabled,
        next_run_at=moment(next_slot),
    )


def _listed(workspace: str, trigger: Stored) -> ListedJob:
    definition = trigger.definition
    return ListedJob(
        **msgspec.structs.asdict(_job(workspace, trigger.id, definition, trigger.next_slot)),
        headers=mask_headers(definition.headers),
        timeout_seconds=definition.timeout_seconds,
        max_retries=definition.max_retries,
        payload=msgspec.Raw(definition.payload) if definition.payload else UNSET,
        error=trigger.error or UNSET,
    )


async def _unmask(
    shard: Shard, workspace: str, ids: list[str], inputs: list[TriggerInput]
) -> list[Definition]:
    """The definitions, with what an answer had masked taken from what is stored."""
    definitions = [given.to_definition() for given in inputs]
    masked = [index for index, one in enumerate(definitions) if MASK in one.headers.values()]
    stored = await store.read_definitions(shard, workspace, [ids[index] for index in masked])
    faults = []
    for index, known in zip(masked, stored, strict=True):
        headers, strange = unmask_headers(
            definitions[index].headers, None if known is None else known.headers
        )
        message = "a masked value stands for a stored one, and here none is stored"
        faults += [Fault(f"triggers[{index}].headers[{name!r}]", message) for name in strange]
        definitions[index] = msgspec.structs.replace(definitions[index], headers=headers)
    if faults:
        raise InvalidRequest("The body has masked values that stand for nothing; nothing was stored.", faults)
    return definitions
