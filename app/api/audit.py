"""The audit: who changed what, when, and from where."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta, Struct

from app.api.fields import JSON_TYPES, Answer, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.ranges import Instant, ms_of
from app.auth.callers import CallerKind
from app.clock import rfc3339
from app.cursors import no_place, read_cursor, write_cursor
from app.formats import Cursor, Moment
from app.store import Shard, Shards
from app.store import audit as store

noun = Noun("audit", "Who changed what, when, and from where.", "/api")


class AuditQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which changes."""

    action: Annotated[str | None, about("Only this operation, such as `put_trigger`.")] = None
    caller: Annotated[str | None, about("Only of this key's id, or token's subject.")] = None
    target: Annotated[str | None, about("Only of this trigger, execution, revision or key.")] = None
    since: Annotated[Instant | None, about("From this moment on.")] = msgspec.field(name="from", default=None)
    until: Annotated[Instant | None, about("Before this moment.")] = msgspec.field(name="to", default=None)
    limit: Annotated[int, Meta(ge=1, le=500, description="How many at most.")] = 50
    cursor: Annotated[Cursor | None, about("Begins after the page that gave it.")] = None


class Who(Answer, frozen=True, kw_only=True):
    """Who made a change."""

    kind: CallerKind
    id: Annotated[str, about("The key's id, or the token's subject.")]
    name: Annotated[str, about("For people.")]
    address: Annotated[str, about("Where the call came from; empty where that is not known.")]


class ShownEntry(Answer, frozen=True, kw_only=True):
    """A change. Credentials are masked, long values cut."""

    at: Annotated[Moment, about("By Redis's clock.")]
    who: Who
    action: Annotated[str, about("The operation.")]
    workspace_id: Annotated[str | None, about("Null for what belongs to none.")]
    target: Annotated[str | None, about("The trigger, execution, revision or key.")]
    before: Annotated[Any, about("What was there, as far as it changed.", type=JSON_TYPES)]
    after: Annotated[Any, about("What is there, as far as it changed, or what was done.", type=JSON_TYPES)]


class Audit(Answer, frozen=True, kw_only=True):
    """A page of changes, newest first."""

    count: Annotated[int, about("How many are on this page.")]
    entries: list[ShownEntry]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


class WorkspaceAudit(WorkspaceAnswer, frozen=True, kw_only=True):
    """A page of a workspace's changes, newest first."""

    count: Annotated[int, about("How many are on this page.")]
    entries: list[ShownEntry]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


@noun.operation("GET", "/workspaces/{workspace_id}/audit", scope="admin")
async def get_audit(shard: Shard, workspace_id: WorkspaceId, query: AuditQuery) -> WorkspaceAudit:
    """What was changed in a workspace, the newest first.

    The last `CRONSPACE_KEEP_AUDIT` changes are kept. A page may have fewer than `limit` where matches are
    rare: go on while there is a `next_cursor`.
    """
    entries, following = await _page(shard, workspace_id, query)
    return WorkspaceAudit(
        workspace_id=workspace_id, count=len(entries), entries=entries, next_cursor=following
    )


@noun.operation("GET", "/audit", scope="admin")
async def get_general_audit(shards: Shards, call: Call, query: AuditQuery) -> Audit:
    """What was changed that belongs to no workspace: API keys, and the erasing of workspaces.

    It needs the scope for all workspaces.
    """
    call.caller.need_everywhere("admin")
    entries, following = await _page(shards.first, None, query)
    return Audit(count=len(entries), entries=entries, next_cursor=following)


async def _page(
    shard: Shard, workspace: str | None, query: AuditQuery
) -> tuple[list[ShownEntry], str | None]:
    def matches(change: store.Change) -> bool:
        return (
            query.action in (None, change.action)
            and query.caller in (None, change.caller)
            and query.target in (None, change.target)
        )

    found, following = await store.page(
        shard,
        workspace,
        matches,
        since=ms_of(query.since),
        until=ms_of(query.until),
        before=None if query.cursor is None else _stream_id(query.cursor),
        limit=query.limit,
    )
    return [_shown(entry) for entry in found], None if following is None else _cursor(following)


def _cursor(stream_id: str) -> str:
    at, _, number = stream_id.partition("-")
    return write_cursor((int(at), number))


def _stream_id(cursor: str) -> str:
    """The place of a cursor in the stream; what is none of this list's is refused."""
    at, number = read_cursor(cursor)
    try:
        return f"{max(0, min(at, 2**63))}-{max(0, min(int(number), 2**63))}"
    except ValueError as error:
        raise no_place() from error


def _shown(entry: store.Entry) -> ShownEntry:
    change = entry.change
    return ShownEntry(
        at=rfc3339(entry.at),
        who=Who(kind=change.kind, id=change.caller, name=change.name, address=change.address),
        action=change.action,
        workspace_id=change.workspace or None,
        target=change.target or None,
        before=change.before,
        after=change.after,
    )
