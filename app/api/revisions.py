"""The versions of a workspace's set: listed, looked at, compared, brought back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.trigger_inputs import Condition, Planning
from app.api.trigger_sets import MAKE_ERRORS, plan_of
from app.api.trigger_shapes import ETAG, Revision, SetPlan, ShownChange, etag, fields_of, shown_fields
from app.api.views import Reveal, view_of
from app.clock import rfc3339
from app.declared.inputs import TriggerFields
from app.errors import ConfirmationRequired, NotFound
from app.formats import Moment
from app.models import Changes, Definition
from app.plan import DETAILED, count_changes, field_changes, set_changes
from app.store import Shard, revisions
from app.store import triggers as store

noun = Noun(
    "revisions",
    "Every accepted change of a set is a revision. The last ones are kept (`CRONSPACE_KEEP_REVISIONS`).",
    "/api/workspaces/{workspace_id}/revisions",
)

Number = Annotated[int, Meta(ge=1, le=10**15, description="A revision's number.")]


class RevisionHead(Answer, frozen=True, kw_only=True):
    """What a revision did."""

    revision: Revision
    created_at: Moment
    action: Annotated[str, about("What was called.", enum=["replace", "edit", "rollback"])]
    count: Annotated[int, about("The size of the set.")]
    created: int
    updated: int
    deleted: int
    moved: Annotated[int, about("Triggers that only took another place in the set.")]
    live: Annotated[bool, about("This is the set as it is.")]


class RevisionList(WorkspaceAnswer, frozen=True, kw_only=True):
    """The revisions that are kept, newest first."""

    count: int
    revisions: list[RevisionHead]


class FormerTrigger(TriggerFields, frozen=True, kw_only=True):
    """A trigger's definition in a revision."""

    id: TriggerId


class RevisionAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """The set of a revision."""

    revision: RevisionHead
    triggers: list[FormerTrigger]


class DiffQuery(Reveal, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Compared with what."""

    to: Annotated[Number | None, about("The other revision; the live one, if left out.")] = None


class Diff(WorkspaceAnswer, frozen=True, kw_only=True):
    """What leads from one revision's set to another's."""

    revision: Revision
    to: Revision
    changes: Changes
    triggers: Annotated[
        list[ShownChange], about(f"The first {DETAILED} changes: deleted, then updated, then created.")
    ]


class RolledBack(WorkspaceAnswer, frozen=True, kw_only=True):
    """A former set was brought back."""

    revision: Revision
    rolled_back_to: Revision
    removed: Annotated[int, about("The size of the set before.")]
    added: Annotated[int, about("The size of the set brought back.")]
    changes: Changes


@noun.operation("GET")
async def list_revisions(shard: Shard, workspace_id: WorkspaceId) -> RevisionList:
    """The revisions that are kept, newest first."""
    heads = await revisions.heads(shard, workspace_id)
    newest = max(heads, default=0)
    return RevisionList(
        workspace_id=workspace_id,
        count=len(heads),
        revisions=[_head(number, head, newest) for number, head in heads.items()],
    )


@noun.operation("GET", "/{revision}", errors=(NotFound,))
async def get_revision(
    shard: Shard, call: Call, workspace_id: WorkspaceId, revision: Number, query: Reveal
) -> RevisionAnswer:
    """The set of a revision, in its order."""
    view = view_of(call, query)
    former = await _set_of(shard, workspace_id, revision)
    heads = await revisions.heads(shard, workspace_id)
    if revision not in heads:
        raise _none(workspace_id, revision)
    return RevisionAnswer(
        workspace_id=workspace_id,
        revision=_head(revision, heads[revision], max(heads)),
        triggers=[FormerTrigger(id=id_, **fields_of(one, view)) for id_, one in former.items()],
    )


@noun.operation("GET", "/{revision}/diff", errors=(NotFound,))
async def diff_revisions(
    shard: Shard, call: Call, workspace_id: WorkspaceId, revision: Number, query: DiffQuery
) -> Diff:
    """What differs between a revision and another one, field by field.

    What is masked is told to have changed, not what it was.
    """
    view = view_of(call, query)
    to = query.to or await revisions.current(shard, workspace_id)
    old, new = [await _set_of(shard, workspace_id, number) for number in (revision, to)]
    changes = set_changes(old, new)
    return Diff(
        workspace_id=workspace_id,
        revision=revision,
        to=to,
        changes=count_changes(changes, len(new)),
        triggers=[
            ShownChange(
                id=id_,
                change=change,
                fields=shown_fields(field_changes(old[id_], new[id_], view)) if change == "updated" else [],
            )
            for id_, change in changes[:DETAILED]
        ],
    )


@noun.operation(
    "POST",
    "/{revision}/rollback",
    headers=ETAG,
    errors=(*MAKE_ERRORS, ConfirmationRequired, NotFound),
)
async def roll_back(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    revision: Number,
    query: Planning,
    headers: Condition,
) -> RolledBack | SetPlan:
    """Bring a former set back, as a new revision.

    One-offs in the past come back as they were: they are not sent again. With `dry_run=true` the answer is
    the plan.
    """
    wanted = list((await _set_of(shard, workspace_id, revision)).items())
    if query.dry_run:
        plan = await plan_of(shard, workspace_id, wanted, headers.revision, any_at=True)
        call.headers["etag"] = etag(plan.revision)
        return plan
    done = await store.replace(
        shard,
        workspace_id,
        wanted,
        if_revision=headers.revision,
        confirmed=query.confirm,
        action="rollback",
    )
    call.headers["etag"] = etag(done.revision)
    return RolledBack(
        workspace_id=workspace_id,
        revision=done.revision,
        rolled_back_to=revision,
        removed=done.removed,
        added=done.added,
        changes=done.changes,
    )


async def _set_of(shard: Shard, workspace: str, revision: int) -> dict[str, Definition]:
    """The definitions of a revision by trigger, in its order; raises :class:`NotFound`."""
    former = await revisions.at(shard, workspace, revision)
    if former is None:
        raise _none(workspace, revision)
    return {id_: placed.definition for id_, placed in former.items()}


def _none(workspace: str, revision: int) -> NotFound:
    return NotFound(f"There is no revision {revision} of {workspace!r}: it never was, or is kept no more.")


def _head(number: int, head: revisions.Revision, newest: int) -> RevisionHead:
    return RevisionHead(
        revision=number,
        created_at=rfc3339(head.at),
        action=head.action,
        count=head.count,
        created=head.created,
        updated=head.updated,
        deleted=head.deleted,
        moved=head.moved,
        live=number == newest,
    )
