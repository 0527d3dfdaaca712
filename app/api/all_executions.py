"""Executions over all workspaces: what failed everywhere, between two and half past."""

from __future__ import annotations

from typing import Annotated

import msgspec

from app.api.executions import ListQuery, filters_of
from app.api.fields import Answer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.api.shapes import ListedExecution, listed
from app.errors import InvalidRequest
from app.formats import Cursor
from app.store import Shards, everywhere, executions

_LOOKED_AT = 10_000  # workspaces: each has lists of its own that are looked at first, 0.2 ms of this process

noun = Noun("all executions", "What became of the slots of all workspaces.", "/api/executions")


class AllQuery(ListQuery, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which executions, of which workspaces."""

    workspace: Annotated[
        Annotated[list[WorkspaceId], msgspec.Meta(min_length=1)] | None,
        about("Only those of these workspaces."),
    ] = None


class AllExecutions(Answer, frozen=True, kw_only=True):
    """A page of executions of all workspaces, newest first."""

    count: Annotated[int, about("How many are on this page.")]
    executions: list[ListedExecution]
    next_cursor: Annotated[Cursor | None, about("Gives the next page; null on the last one.")]


@noun.operation("GET")
async def list_all_executions(shards: Shards, call: Call, query: AllQuery) -> AllExecutions:
    """Executions of all workspaces that you may see, newest first, such as all failures between two moments.

    The time that the list and `from` and `to` go by is the end of what has ended; of open executions it is
    when they were queued, and the slot of those that wait for a free place. A page may hold fewer than
    `limit` where matches are rare: go on while there is a `next_cursor`. With more than 10,000 workspaces say
    which are meant.
    """
    ids = query.workspace or call.caller.workspaces
    if ids is None:
        ids = await everywhere.all_ids(shards)
    if len(ids) > _LOOKED_AT:
        raise InvalidRequest(
            f"These are {len(ids)} workspaces, and one call looks at {_LOOKED_AT} at most: name those that"
            " are meant, such as workspace=acme,beta."
        )
    page = await executions.list_everywhere(
        shards.split(id_ for id_ in dict.fromkeys(ids) if call.caller.sees(id_)),
        **filters_of(query, query.trigger, query.tag),
    )
    return AllExecutions(
        count=len(page.executions),
        executions=[listed(execution) for execution in page.executions],
        next_cursor=page.next_cursor,
    )
