"""One action on many triggers, chosen by ids or by tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Struct

from app.api.auditing import shortened
from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.trigger_inputs import TRIGGERS_PATH, Condition, Confirm, IdempotencyKey
from app.api.trigger_sets import CHANGE_ERRORS
from app.api.trigger_shapes import ETAG, Revision, etag
from app.declared.fields import MOST_TAGS, Tag
from app.errors import ConfirmationRequired, Fault, IdempotencyConflict, InvalidRequest, NotFound
from app.keys import split_execution_id
from app.models import Definition, Trigger
from app.store import Shard, catalog, checks, holds, orders, revisions
from app.store import triggers as store

noun = Noun("triggers", "", TRIGGERS_PATH)

MOST = 1000  # triggers that one call handles

Action = Literal["pause", "resume", "run", "delete", "enable", "disable"]
Outcome = Literal["paused", "resumed", "started", "deleted", "enabled", "disabled", "unchanged", "not_found"]

_DONE: dict[Action, Outcome] = {
    "pause": "paused",
    "resume": "resumed",
    "run": "started",
    "delete": "deleted",
    "enable": "enabled",
    "disable": "disabled",
}
# Whether an action changes a trigger.
_CHANGES: dict[Action, Callable[[Trigger], bool]] = {
    "pause": lambda trigger: trigger.pause is None,
    "resume": lambda trigger: trigger.pause is not None,
    "run": lambda _: True,
    "delete": lambda _: True,
    "enable": lambda trigger: not trigger.definition.enabled,
    "disable": lambda trigger: trigger.definition.enabled,
}


class BulkInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to do, and with which triggers: exactly one of `ids` and `tags` is given."""

    action: Action
    ids: Annotated[list[TriggerId], Meta(min_length=1, max_length=MOST, description="Those.")] | None = None
    tags: (
        Annotated[
            list[Tag],
            Meta(min_length=1, max_length=MOST_TAGS, description="All that have any of these tags."),
        ]
        | None
    ) = None
    note: Annotated[str, Meta(max_length=500, description="Of a pause.")] = ""
    dry_run: Annotated[bool, Meta(description="Say what would happen, and do nothing.")] = False


class BulkHeaders(Condition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The condition is looked at before the first trigger is; the key is for `run`."""

    idempotency_key: IdempotencyKey | None = None


class BulkResult(Answer, frozen=True, kw_only=True):
    """What happened to a trigger."""

    id: TriggerId
    outcome: Outcome
    execution_id: Annotated[str | None, about("The execution that was made for it.")]


class BulkAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """What happened, trigger by trigger."""

    action: Action
    dry_run: bool
    revision: Revision
    count: Annotated[int, about("How many were changed or started, or would be.")]
    more: Annotated[bool, about(f"There are more than {MOST} with these tags: call again for the rest.")]
    results: list[BulkResult]


@noun.operation(
    "POST",
    "/bulk",
    scope="operate",
    headers=ETAG,
    errors=(*CHANGE_ERRORS, ConfirmationRequired, IdempotencyConflict),
)
async def change_triggers(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    query: Confirm,
    headers: BulkHeaders,
    body: BulkInput,
) -> BulkAnswer:
    """Pause, resume, run, delete, enable or disable many triggers.

    By tags only those count that the action changes, at most 1,000 a call; `more` says that there are others.
    Deleting, enabling and disabling make one revision for every 250 triggers, and need the scope `write`.
    """
    if body.action not in ("pause", "resume", "run"):
        call.caller.need("write")
    if headers.revision is not None:
        checks.check_revision(await revisions.current(shard, workspace_id), headers.revision)
    results, more = await _chosen(shard, workspace_id, body)
    changed = [id_ for id_, outcome in results.items() if outcome == _DONE[body.action]]
    made: dict[str, str] = {}
    if changed and not body.dry_run:
        match body.action:
            case "pause":
                held = await holds.pause_triggers(shard, workspace_id, changed, body.note)
                results |= {id_: _told(body.action, held.get(id_)) for id_ in changed}
            case "resume":
                held = await holds.resume_triggers(shard, workspace_id, changed)
                results |= {id_: _told(body.action, held.get(id_)) for id_ in changed}
            case "run":
                made = await _run(shard, workspace_id, changed, headers.idempotency_key, body)
                results |= {id_: _told(body.action, id_ in made) for id_ in changed}
            case _:
                became = await _edit(shard, workspace_id, body.action, changed, headers, query.confirm)
                results |= {id_: _told(body.action, became.get(id_)) for id_ in changed}
    revision = await revisions.current(shard, workspace_id)
    call.headers["etag"] = etag(revision)
    done = [id_ for id_, outcome in results.items() if outcome == _DONE[body.action]]
    call.told.nothing = not done
    told = {"note": body.note, "count": len(done), "ids": shortened(done), "revision": revision}
    call.told.after = {"action": body.action, **told}
    return BulkAnswer(
        workspace_id=workspace_id,
        action=body.action,
        dry_run=body.dry_run,
        revision=revision,
        count=len(done),
        more=more,
        results=[
            BulkResult(id=id_, outcome=outcome, execution_id=made.get(id_))
            for id_, outcome in results.items()
        ],
    )


async def _chosen(shard: Shard, workspace: str, body: BulkInput) -> tuple[dict[str, Outcome], bool]:
    """The triggers meant, with what the action would do to each, and whether there are more."""
    changes = _CHANGES[body.action]
    if (body.ids is None) == (body.tags is None):
        raise _refused("ids", "exactly one of 'ids' and 'tags' is to be given")
    most = min(MOST, shard.settings.max_backfill) if body.action == "run" else MOST
    if body.ids is not None:
        ids = list(dict.fromkeys(body.ids))
        if len(ids) > most:
            raise _refused("ids", f"{len(ids)} triggers; a call runs at most {most}")
        found = await catalog.read_some(shard, workspace, ids)
        outcomes: dict[str, Outcome] = {}
        for id_, trigger in zip(ids, found, strict=True):
            if trigger is None:
                outcomes[id_] = "not_found"
            else:
                outcomes[id_] = _DONE[body.action] if changes(trigger) else "unchanged"
        return outcomes, False
    tags = frozenset(body.tags or ())
    chosen: dict[str, Outcome] = {}
    position: int | None = -1
    while position is not None and len(chosen) < most:
        page = await catalog.find(
            shard,
            workspace,
            lambda trigger: not tags.isdisjoint(trigger.definition.tags) and changes(trigger),
            after=position,
            limit=most - len(chosen),
        )
        chosen |= {trigger.id: _DONE[body.action] for trigger in page.triggers}
        position = page.next_position
    if body.action == "run" and position is not None:
        raise _refused("tags", f"more than {most} triggers have these tags; a call runs no more: name them")
    return chosen, position is not None


async def _run(
    shard: Shard, workspace: str, ids: Sequence[str], key: str | None, body: BulkInput
) -> dict[str, str]:
    """Run triggers; returns the executions by trigger, nothing where the workspace has just gone."""
    now = await shard.now_ms()
    try:
        made = await orders.make(
            shard,
            workspace,
            "run",
            [orders.Order(id_, now) for id_ in ids],
            idempotency_key=key or "",
            asked=msgspec.json.encode(["bulk", body]),
        )
    except NotFound:
        return {}
    return {split_execution_id(execution)[1]: execution for execution in made.executions}


async def _edit(
    shard: Shard, workspace: str, action: Action, ids: Sequence[str], headers: BulkHeaders, confirmed: bool
) -> dict[str, bool]:
    """Delete, enable or disable triggers; returns for each that was there whether it changed.

    The condition is for the first step.
    """

    def change(current: Mapping[str, Definition | None]) -> Mapping[str, Definition | None]:
        there = {id_: one for id_, one in current.items() if one is not None}
        if action == "delete":
            return dict.fromkeys(there)
        enabled = action == "enable"
        return {id_: msgspec.structs.replace(one, enabled=enabled) for id_, one in there.items()}

    if action == "delete":
        checks.check_share(shard, len(ids), await catalog.size(shard, workspace), confirmed)
    became: dict[str, bool] = {}
    if_revision = headers.revision
    for some in store.batches(ids):
        done = await store.edit(shard, workspace, some, change, if_revision=if_revision)
        became |= {id_: what != "unchanged" for id_, what in done.changes.items()}
        if_revision = None
    return became


def _told(action: Action, changed: bool | None) -> Outcome:
    """What happened to a trigger, in the words of the answer; None: it has just gone."""
    if changed is None:
        return "not_found"
    return _DONE[action] if changed else "unchanged"


def _refused(field: str, message: str) -> InvalidRequest:
    return InvalidRequest("The body is not valid; nothing was done.", [Fault(field, message)])
