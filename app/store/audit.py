"""The audit: who changed what. A capped stream per workspace, which goes with it, and one for the rest."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import Struct

from app.auth.callers import CallerKind
from app.store.shard import Shard, pack

_AT_ONCE = 500
_MOST_LOOKED_AT = 5000  # entries, for one page


class Change(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A change: who, from where, what, and what it did. Nothing in it is secret."""

    kind: CallerKind
    caller: str  # its id
    name: str = ""  # its name
    address: str = ""
    action: str  # the operation
    workspace: str = ""
    target: str = ""  # trigger, execution, revision or key
    before: Any = None
    after: Any = None


class Entry(Struct, frozen=True):
    """A change with its place in the stream, which begins with the time (ms) by Redis's clock."""

    id: str
    change: Change

    @property
    def at(self) -> int:
        """When, ms."""
        return int(self.id.partition("-")[0])


_unpack = msgspec.msgpack.Decoder(Change).decode


async def note(shard: Shard, change: Change, *, everywhere: bool = False) -> None:
    """Write a change into its workspace's audit, or (``everywhere``) the general one, of the first shard."""
    workspace = "" if everywhere else change.workspace
    stream = shard.keys.audit if everywhere else shard.keys.of(workspace, "audit")
    token = secrets.token_hex(8)
    kept = shard.settings.keep_audit
    await shard.run("note_change", workspace, token, shard.sealer.seal(pack(change)), kept, keys=(stream,))


async def page(
    shard: Shard,
    workspace: str | None,
    matches: Callable[[Change], bool],
    *,
    since: int | None = None,
    until: int | None = None,
    before: str | None = None,
    limit: int = 50,
) -> tuple[list[Entry], str | None]:
    """Changes of a workspace (None: the general ones), newest first, and before which the next page begins.

    ``since`` ≤ time < ``until``, ms. Where matches are rare a page may have fewer than ``limit``, or none.
    """
    stream = shard.keys.audit if workspace is None else shard.keys.of(workspace, "audit")
    end = f"({before}" if before else "+" if until is None else f"({max(0, until)}-0"
    if end == "(0-0":  # Redis refuses what ends before it begins
        return [], None
    begin = "-" if since is None else str(max(0, since))
    found: list[Entry] = []
    for _ in range(_MOST_LOOKED_AT // _AT_ONCE):
        some = await shard.redis.xrevrange(stream, end, begin, count=_AT_ONCE)
        for raw, fields in some:
            id_, change = raw.decode(), _unpack(shard.sealer.open(fields[b"entry"]))
            end = f"({id_}"
            if matches(change):
                found.append(Entry(id_, change))
                if len(found) == limit:
                    return found, id_
        if len(some) < _AT_ONCE:
            return found, None
    return found, end.removeprefix("(")
