"""Where a workspace's requests may go beside what the deployment says: given by admins of all workspaces."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from msgspec import Meta, Struct, structs

from app.api.fields import WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.egress import parse_rules
from app.errors import Fault, InvalidRequest, ReplaceConflict, TooManyWorkspaces, WorkspaceErasing
from app.formats import EgressEntry
from app.outgoing import Outgoing, OwnEgress
from app.store import Shard
from app.store import outgoing as store

noun = Noun(
    "egress",
    "Where a workspace's requests may go: wider and tighter than the deployment's settings.",
    "/api/workspaces/{workspace_id}/egress",
)

_MOST = 200

Entries = Annotated[list[EgressEntry], Meta(max_length=_MOST)]
PortList = Annotated[list[Annotated[int, Meta(ge=1, le=65535)]], Meta(max_length=_MOST)]

_ALLOW = about("What may be sent to although it is not public, or the deployment does not allow it.")
_DENY = about("What nothing may be sent to; `*`: all that `allow` does not name.")
_PORTS = about("The only ports, in the place of the deployment's; empty: those.")


class EgressInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A workspace's own lists: hosts, networks, `.example.com` for all below a host, `*`."""

    allow: Annotated[Entries, _ALLOW] = []
    deny: Annotated[Entries, _DENY] = []
    ports: Annotated[PortList, _PORTS] = []


class EgressAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """A workspace's own lists; all are empty where only the deployment's go."""

    allow: Annotated[list[str], _ALLOW]
    deny: Annotated[list[str], _DENY]
    ports: Annotated[list[int], _PORTS]


@noun.operation("GET")
async def get_egress(shard: Shard, workspace_id: WorkspaceId) -> EgressAnswer:
    """The workspace's own lists."""
    return _answer(workspace_id, (await store.read(shard, workspace_id)).egress)


@noun.operation("PUT", scope="admin", errors=(TooManyWorkspaces, ReplaceConflict, WorkspaceErasing))
async def put_egress(shard: Shard, call: Call, workspace_id: WorkspaceId, body: EgressInput) -> EgressAnswer:
    """Put other lists in the place of the workspace's own; they go for the next attempt.

    They are looked at before the deployment's, whose deny list goes on denying what it names. It needs the
    scope for all workspaces: who is admin of one must not open the network that all are in.
    """
    call.caller.need_everywhere("admin")
    faults = [fault for name in ("allow", "deny") for fault in _faults(name, getattr(body, name))]
    if faults:
        raise InvalidRequest("The body is not valid; nothing was done.", faults)
    own = OwnEgress(tuple(body.allow), tuple(body.deny), tuple(body.ports))
    return await _put(shard, call, workspace_id, None if own == OwnEgress() else own)


@noun.operation("DELETE", scope="admin", errors=(ReplaceConflict, WorkspaceErasing))
async def delete_egress(shard: Shard, call: Call, workspace_id: WorkspaceId) -> EgressAnswer:
    """Let only the deployment's lists go. It needs the scope for all workspaces."""
    call.caller.need_everywhere("admin")
    return await _put(shard, call, workspace_id, None)


async def _put(shard: Shard, call: Call, workspace: str, own: OwnEgress | None) -> EgressAnswer:
    before: OwnEgress | None = None

    def put(stored: Outgoing) -> Outgoing:
        nonlocal before
        before = stored.egress
        return structs.replace(stored, egress=own)

    await store.change(shard, workspace, put)
    call.told.nothing = before == own
    call.told.before, call.told.after = (structs.asdict(one or OwnEgress()) for one in (before, own))
    return _answer(workspace, own)


def _answer(workspace: str, own: OwnEgress | None) -> EgressAnswer:
    one = own or OwnEgress()
    return EgressAnswer(
        workspace_id=workspace, allow=list(one.allow), deny=list(one.deny), ports=list(one.ports)
    )


def _faults(name: str, entries: list[str]) -> Iterator[Fault]:
    for index, entry in enumerate(entries):
        try:
            if "," in entry or not entry.strip():
                raise ValueError(f"{entry!r} is neither a host nor a network")
            parse_rules(entry)
        except ValueError as error:
            yield Fault(f"{name}[{index}]", str(error))
