"""One trigger: created, read, put, patched, deleted, paused and resumed."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.api.fields import TriggerId, WorkspaceAnswer, WorkspaceId
from app.api.operations import Call, Noun
from app.api.reading import aside
from app.api.shapes import need_trigger, no_trigger
from app.api.trigger_inputs import TRIGGERS_PATH, Condition, read_defaults, unmask
from app.api.trigger_sets import CHANGE_ERRORS, MAKE_ERRORS
from app.api.trigger_shapes import ETAG, Revision, TriggerAnswer, etag, shown_trigger
from app.api.views import Reveal, view_of
from app.declared.bodies import parse_patch, parse_trigger
from app.declared.inputs import PatchInput, TriggerInput
from app.errors import Fault, InvalidRequest, NotFound, SetTooLarge, TriggerExists
from app.models import Definition, Standing, Trigger
from app.store import Shard, catalog, holds, revisions
from app.store import triggers as store

noun = Noun("triggers", "", TRIGGERS_PATH)

# Small letters and digits that are not taken for one another.
_ALPHABET = "23456789abcdefghjkmnpqrstuvwxyz"
_LONGEST_SLUG = 40

Wanted = Mapping[str, Definition | None]


class TriggerDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """A trigger that was deleted."""

    trigger_id: TriggerId
    revision: Revision


class PauseInput(Struct, frozen=True, forbid_unknown_fields=True):
    """Why something is paused."""

    note: Annotated[str, Meta(max_length=500, description="For people.")] = ""


@noun.operation(
    "POST",
    "/new",
    body=TriggerInput,
    status=201,
    headers={**ETAG, "Location": "The trigger's own path."},
    errors=(*MAKE_ERRORS, TriggerExists),
)
async def create_trigger(
    shard: Shard, call: Call, workspace_id: WorkspaceId, headers: Condition, body: bytes
) -> TriggerAnswer:
    """Add a trigger to the set.

    Without an id the server makes one: from the name, where there is one, and a random part.
    """
    defaults = await read_defaults(shard, workspace_id)
    given = await aside(body, parse_trigger, body, defaults)
    wanted = await aside(body, given.to_definition, defaults)
    id_ = given.id or _new_id(given.name or "")

    def create(current: Wanted) -> Wanted:
        if current[id_] is not None:
            raise TriggerExists(f"There is a trigger {id_!r} in {workspace_id!r} already.")
        unmasked = unmask(wanted, None)
        call.told.definition(id_, None, unmasked)
        return {id_: unmasked}

    done = await store.edit(shard, workspace_id, [id_], create, if_revision=headers.revision)
    call.headers["location"] = f"{TRIGGERS_PATH.format(workspace_id=workspace_id)}/{id_}"
    return await _stored(shard, call, workspace_id, id_, wanted, done)


@noun.operation("GET", "/{trigger_id}", headers=ETAG, errors=(NotFound,))
async def get_trigger(
    shard: Shard, call: Call, workspace_id: WorkspaceId, trigger_id: TriggerId, query: Reveal
) -> TriggerAnswer:
    """One trigger: its definition, and how it stands."""
    return await _answer(shard, call, workspace_id, trigger_id, query)


@noun.operation(
    "PUT", "/{trigger_id}", body=TriggerInput, status=(200, 201), headers=ETAG, errors=MAKE_ERRORS
)
async def put_trigger(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    trigger_id: TriggerId,
    headers: Condition,
    body: bytes,
) -> TriggerAnswer:
    """Put a trigger's definition in the place of the one it has, or create it (201).

    The others of the set stay as they are. A masked value keeps what is stored.
    """
    defaults = await read_defaults(shard, workspace_id)
    given = await aside(body, parse_trigger, body, defaults)
    if given.id not in (None, trigger_id):
        message = f"the path says {trigger_id!r}; a trigger keeps its id"
        raise InvalidRequest("The body is not valid; nothing was stored.", [Fault("id", message)])
    wanted = await aside(body, given.to_definition, defaults)

    def put(current: Wanted) -> Wanted:
        unmasked = unmask(wanted, current[trigger_id])
        call.told.definition(trigger_id, current[trigger_id], unmasked)
        return {trigger_id: unmasked}

    done = await store.edit(shard, workspace_id, [trigger_id], put, if_revision=headers.revision)
    if done.changes[trigger_id] == "created":
        call.status = 201
    return await _stored(shard, call, workspace_id, trigger_id, wanted, done)


@noun.operation(
    "PATCH", "/{trigger_id}", body=PatchInput, headers=ETAG, errors=(*CHANGE_ERRORS, SetTooLarge, NotFound)
)
async def patch_trigger(
    shard: Shard,
    call: Call,
    workspace_id: WorkspaceId,
    trigger_id: TriggerId,
    headers: Condition,
    body: bytes,
) -> TriggerAnswer:
    """Change some of a trigger's fields: a JSON merge patch (RFC 7396).

    Null unsets a field; headers, and an object as payload, are merged. A patch that names another of `cron`,
    `interval` and `at` replaces the one that was there.
    """
    defaults = await read_defaults(shard, workspace_id)
    patched: dict[str, Definition] = {}

    def patch(current: Wanted) -> Wanted:
        before = current[trigger_id]
        if before is None:
            raise no_trigger(workspace_id, trigger_id)
        patched[trigger_id] = parse_patch(body, before, defaults, trigger_id)
        call.told.definition(trigger_id, before, patched[trigger_id])
        return patched

    done = await store.edit(shard, workspace_id, [trigger_id], patch, if_revision=headers.revision)
    return await _stored(shard, call, workspace_id, trigger_id, patched[trigger_id], done)


@noun.operation("DELETE", "/{trigger_id}", headers=ETAG, errors=(*CHANGE_ERRORS, NotFound))
async def delete_trigger(
    shard: Shard, call: Call, workspace_id: WorkspaceId, trigger_id: TriggerId, headers: Condition
) -> TriggerDeleted:
    """Delete a trigger. Nothing of it is sent any more; what a worker has begun may end."""

    def delete(current: Wanted) -> Wanted:
        if current[trigger_id] is None:
            raise no_trigger(workspace_id, trigger_id)
        call.told.definition(trigger_id, current[trigger_id], None)
        return {trigger_id: None}

    done = await store.edit(shard, workspace_id, [trigger_id], delete, if_revision=headers.revision)
    call.headers["etag"] = etag(done.revision)
    return TriggerDeleted(workspace_id=workspace_id, trigger_id=trigger_id, revision=done.revision)


@noun.operation("POST", "/{trigger_id}/pause", scope="operate", headers=ETAG, errors=(NotFound,))
async def pause_trigger(
    shard: Shard, call: Call, workspace_id: WorkspaceId, trigger_id: TriggerId, body: PauseInput | None
) -> TriggerAnswer:
    """Pause a trigger: no slot of it is due until it is resumed. What is open goes on.

    A pause stands beside the definition: it is no revision, and a replace does not lift it. Of a paused one
    only the note changes.
    """
    note = "" if body is None else body.note
    if not await holds.pause_triggers(shard, workspace_id, [trigger_id], note):
        raise no_trigger(workspace_id, trigger_id)
    call.told.after = {"paused": True, "note": note}
    return await _answer(shard, call, workspace_id, trigger_id)


@noun.operation("POST", "/{trigger_id}/resume", scope="operate", headers=ETAG, errors=(NotFound,))
async def resume_trigger(
    shard: Shard, call: Call, workspace_id: WorkspaceId, trigger_id: TriggerId
) -> TriggerAnswer:
    """Resume a paused trigger. Slots that fell into the pause stay unsent."""
    resumed = await holds.resume_triggers(shard, workspace_id, [trigger_id])
    if not resumed:
        raise no_trigger(workspace_id, trigger_id)
    call.told.nothing = not resumed[trigger_id]
    call.told.before, call.told.after = {"paused": True}, {"paused": False}
    return await _answer(shard, call, workspace_id, trigger_id)


async def _answer(
    shard: Shard, call: Call, workspace: str, trigger: str, query: Reveal | None = None
) -> TriggerAnswer:
    """A trigger as it is now; raises :class:`NotFound`."""
    view = view_of(call, query)
    revision = await revisions.current(shard, workspace)
    stored = await need_trigger(shard, workspace, trigger)
    call.headers["etag"] = etag(revision)
    shown = await aside(stored.definition.payload, shown_trigger, workspace, stored, view)
    return TriggerAnswer(workspace_id=workspace, revision=revision, trigger=shown)


async def _stored(
    shard: Shard, call: Call, workspace: str, trigger: str, definition: Definition, done: store.Edited
) -> TriggerAnswer:
    """A trigger after an edit: how it stands now, with what this call stored."""
    call.headers["etag"] = etag(done.revision)
    stored = await catalog.read_one(shard, workspace, trigger)
    if stored is None:  # somebody has deleted it since
        standing = Standing.ACTIVE if definition.enabled else Standing.DISABLED
        slot = done.next_slots[trigger]
        stored = Trigger(
            id=trigger, definition=definition, position=0, version=0, standing=standing, next_slot=slot
        )
    made = msgspec.structs.replace(stored, definition=definition)
    shown = await aside(definition.payload, shown_trigger, workspace, made, view_of(call))
    return TriggerAnswer(workspace_id=workspace, revision=done.revision, trigger=shown)


def _new_id(name: str) -> str:
    """An id for a trigger without one: readable, and short."""
    slug = re.sub(r"[^a-z0-9]+", "-", name.casefold())[:_LONGEST_SLUG].strip("-") or "trigger"
    return f"{slug}-{''.join(secrets.choice(_ALPHABET) for _ in range(8))}"
