"""A workspace's trigger set as a whole: replaced, planned, listed, emptied."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

from msgspec import Meta

from app.api.fields import WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.reading import aside
from app.api.trigger_inputs import (
    TRIGGERS_PATH,
    Condition,
    Confirm,
    Planning,
    read_defaults,
    unmask_set,
)
from app.api.trigger_shapes import (
    ETAG,
    Job,
    Revision,
    SetPlan,
    ShownTrigger,
    etag,
    job_of,
    shown_plan,
    shown_trigger,
)
from app.api.views import Reveal, view_of
from app.cursors import Place, read_cursor, write_cursor
from app.declared.bodies import parse_replace
from app.declared.fields import Tag
from app.declared.inputs import ReplaceInput
from app.declared.masking import View, mask_url
from app.errors import (
    ConfirmationRequired,
    ReplaceConflict,
    RevisionConflict,
    SetTooLarge,
    TooManyTriggers,
    TooManyWorkspaces,
    WorkspaceErasing,
)
from app.formats import Cursor
from app.models import Changes, Definition, Standing, State, Trigger
from app.plan import plan_replace
from app.store import Shard, catalog, checks, outgoing, workspaces
from app.store import triggers as store

noun = Noun("triggers", "What to send and when: a workspace's set, and each trigger of it.", TRIGGERS_PATH)

CHANGE_ERRORS = (ReplaceConflict, WorkspaceErasing, RevisionConflict)
MAKE_ERRORS = (*CHANGE_ERRORS, TooManyTriggers, SetTooLarge, TooManyWorkspaces)

_PAGE = 100


class TriggersReplaced(WorkspaceAnswer, frozen=True, kw_only=True):
    """What a replace did."""

    removed: Annotated[int, about("The size of the old set.")]
    added: Annotated[int, about("The size of the new set.")]
    jobs: list[Job]
    revision: Revision
    changes: Changes


class TriggerList(WorkspaceAnswer, frozen=True, kw_only=True):
    """Triggers: a whole set, or a page of it."""

    count: Annotated[int, about("How many are in this answer.")]
    jobs: list[ShownTrigger]
    revision: Revision
    next_cursor: Annotated[
        Cursor | None, about("Gives the next page; null on the last one, and where there are no pages.")
    ]


class TriggersDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """What emptying a set did."""

    removed: Annotated[int, about("The size of the old set.")]
    revision: Revision
    changes: Changes


class TriggersQuery(Reveal, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which triggers."""

    tag: Annotated[list[Tag] | None, about("Only those with any of these tags.")] = None
    enabled: Annotated[bool | None, about("Only those that are enabled, or that are not.")] = None
    paused: Annotated[bool | None, about("Only those that are paused themselves, or that are not.")] = None
    state: Annotated[Standing | None, about("Only those that stand so.")] = None
    last_state: Annotated[State | None, about("Only those whose last slot ended so.")] = None
    q: Annotated[
        str, about("Only those with this in id, name, description or url (as it is shown), in either case.")
    ] = ""
    sort: Annotated[
        Literal["position", "next_run"],
        about("In the order of the set, or by the next run; the latter has only those that have one."),
    ] = "position"
    limit: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=1000,
                description="How many at most; without `limit` and `cursor` all. A page of rare matches may"
                " have fewer, or none, and still a `next_cursor`.",
            ),
        ]
        | None
    ) = None
    cursor: Annotated[Cursor | None, about("Begins after the page that gave it.")] = None


@noun.operation(
    "PUT", body=ReplaceInput, headers=ETAG, errors=(*MAKE_ERRORS, ConfirmationRequired), name="put_triggers"
)
@noun.operation("POST", body=ReplaceInput, headers=ETAG, errors=(*MAKE_ERRORS, ConfirmationRequired))
async def replace_triggers(
    shard: Shard, call: Call, workspace_id: WorkspaceId, query: Planning, headers: Condition, body: bytes
) -> TriggersReplaced | SetPlan:
    """Put the body's set in the place of the workspace's own.

    The whole set is swapped at once. A trigger whose definition did not change keeps its next slot, its
    phase and its history; nothing of a removed trigger is sent any more.

    With `dry_run=true` the answer is the plan: which triggers would be created, updated (field by field) and
    deleted, and which runs of the next 24 hours would come and go.
    """
    defaults = await read_defaults(shard, workspace_id)
    inputs = await aside(body, parse_replace, body, shard.settings, defaults)
    ids = [str(index) if given.id is None else given.id for index, given in enumerate(inputs)]
    given = await aside(body, lambda: [one.to_definition(defaults) for one in inputs])
    definitions = await unmask_set(shard, workspace_id, ids, given)
    wanted = list(zip(ids, definitions, strict=True))
    if query.dry_run:
        plan = await plan_of(shard, workspace_id, wanted, headers.revision)
        call.headers["etag"] = etag(plan.revision)
        return plan
    done = await store.replace(
        shard, workspace_id, wanted, if_revision=headers.revision, confirmed=query.confirm
    )
    call.headers["etag"] = etag(done.revision)
    return TriggersReplaced(
        workspace_id=workspace_id,
        removed=done.removed,
        added=done.added,
        jobs=[
            job_of(workspace_id, id_, definition, slot)
            for (id_, definition), slot in zip(wanted, done.next_slots, strict=True)
        ],
        revision=done.revision,
        changes=done.changes,
    )


@noun.operation("GET", headers=ETAG)
async def list_triggers(
    shard: Shard, call: Call, workspace_id: WorkspaceId, query: TriggersQuery
) -> TriggerList:
    """The whole set in the order in which it was declared, or pages of it, or some.

    The whole set is from one moment. Pages are not: between two of them the set may change.
    """
    view = view_of(call, query)
    revision, triggers, last = await _listed(shard, workspace_id, query, view)
    call.headers["etag"] = etag(revision)
    with_last = query.limit is not None or query.cursor is not None or query.last_state is not None
    jobs = [shown_trigger(workspace_id, trigger, view, with_last) for trigger in triggers]
    return TriggerList(
        workspace_id=workspace_id,
        count=len(jobs),
        jobs=jobs,
        revision=revision,
        next_cursor=None if last is None else write_cursor(last),
    )


@noun.operation("DELETE", headers=ETAG, errors=(*MAKE_ERRORS, ConfirmationRequired))
async def delete_triggers(
    shard: Shard, call: Call, workspace_id: WorkspaceId, query: Confirm, headers: Condition
) -> TriggersDeleted:
    """Empty the set."""
    done = await store.replace(shard, workspace_id, [], if_revision=headers.revision, confirmed=query.confirm)
    call.headers["etag"] = etag(done.revision)
    return TriggersDeleted(
        workspace_id=workspace_id, removed=done.removed, revision=done.revision, changes=done.changes
    )


async def plan_of(
    shard: Shard,
    workspace: str,
    wanted: Sequence[tuple[str, Definition]],
    if_revision: int | None,
    *,
    any_at: bool = False,
) -> SetPlan:
    """The plan for a set; raises what the replace would, but for the confirmation.

    ``any_at``: one-offs in the past are taken as they are.
    """
    live, own = await catalog.read(shard, workspace), await workspaces.get(shard, workspace)
    if if_revision is not None:
        checks.check_revision(live.revision, if_revision)
    now = await shard.now_ms()
    if not any_at:
        await checks.check_past(shard, workspace, wanted, now, in_set=True)
    await outgoing.check_secrets(shard, workspace, wanted, in_set=True)
    await store.check_fits(shard, workspace, wanted)
    paused = own is not None and own.pause is not None
    plan = await asyncio.to_thread(plan_replace, workspace, live.triggers, wanted, now, paused)
    size = len(live.triggers)
    confirmation = checks.wants_confirmation(shard, plan.changes.deleted, size)
    return shown_plan(workspace, plan, live.revision, size, len(wanted), confirmation)


async def _listed(
    shard: Shard, workspace: str, query: TriggersQuery, view: View
) -> tuple[int, list[Trigger], Place | None]:
    """The revision, the triggers of an answer, and where the next page begins."""
    matches = _matcher(query, view)
    if query.limit is None and query.cursor is None:
        return await _all(shard, workspace, query, matches)
    after = None if query.cursor is None else read_cursor(query.cursor)
    limit = query.limit or _PAGE
    if query.sort == "next_run":
        page = await catalog.soonest(shard, workspace, matches, after=after, limit=limit)
        return page.revision, page.triggers, page.next_place
    found = await catalog.find(
        shard, workspace, matches, after=-1 if after is None else after[0], limit=limit
    )
    ends = found.next_position
    return found.revision, found.triggers, None if ends is None else (ends, "")


async def _all(
    shard: Shard, workspace: str, query: TriggersQuery, matches: Callable[[Trigger], bool]
) -> tuple[int, list[Trigger], None]:
    current = await catalog.read(shard, workspace)
    triggers = current.triggers
    if query.last_state is not None:
        triggers = await catalog.with_last(shard, workspace, triggers)
    triggers = [trigger for trigger in triggers if matches(trigger)]
    if query.sort == "next_run":
        due = [(one.next_slot, one.id, one) for one in triggers if one.next_slot is not None]
        triggers = [one for *_, one in sorted(due, key=lambda item: item[:2])]
    return current.revision, triggers, None


def _matcher(query: TriggersQuery, view: View) -> Callable[[Trigger], bool]:
    """Whether a trigger is one of those asked for; nobody finds by what they are not shown."""
    tags = None if query.tag is None else frozenset(query.tag)
    text = query.q.casefold()

    def matches(trigger: Trigger) -> bool:
        one = trigger.definition
        return (
            (tags is None or not tags.isdisjoint(one.tags))
            and query.enabled in (None, one.enabled)
            and query.paused in (None, trigger.pause is not None)
            and query.state in (None, trigger.standing)
            and (
                query.last_state is None
                or (trigger.last is not None and trigger.last.state == query.last_state)
            )
            and (
                not text
                or any(
                    text in part.casefold()
                    for part in (trigger.id, one.name, one.description, mask_url(one.url, view))
                )
            )
        )

    return matches
