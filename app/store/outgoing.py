"""What workspaces' requests go out with beside their triggers: read, changed, and loaded by workers."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable, Sequence

from app.declared.variables import names_of, secrets_of
from app.errors import Fault, InvalidRequest, ReplaceConflict, SealError, WorkspaceErasing, unknown_name
from app.models import Definition
from app.outgoing import NOTHING, Outgoing, pack_outgoing, unpack_outgoing
from app.store import catalog
from app.store.shard import Shard

_TRIES = 8
_VERSION_BITS = 50  # scores are exact up to 53
_PAGE = 500  # triggers looked at together

Stored = tuple[int, Outgoing]  # with its version, 0 where there is nothing


async def read(shard: Shard, workspace: str) -> Outgoing:
    """What a workspace's requests go out with; raises :class:`SealError`."""
    return (await _read(shard, workspace))[1]


async def change(shard: Shard, workspace: str, alter: Callable[[Outgoing], Outgoing]) -> Outgoing:
    """Put what ``alter`` makes of it in its place; it may be asked again when another change came between.

    Raises :class:`ReplaceConflict`, :class:`WorkspaceErasing`, :class:`SealError`, and what ``alter`` does.
    """
    async with shard.turn(f"{workspace}:outgoing"):
        return await _change(shard, workspace, alter)


async def _change(shard: Shard, workspace: str, alter: Callable[[Outgoing], Outgoing]) -> Outgoing:
    for _ in range(_TRIES):
        base, before = await _read(shard, workspace)
        after = alter(before)
        packed = pack_outgoing(after)
        version = 1 + secrets.randbits(_VERSION_BITS) if packed else 0
        status = await shard.run(
            "change_outgoing", workspace, base, version, shard.sealer.seal(packed) if packed else b""
        )
        if status == b"erasing":
            raise WorkspaceErasing(f"The workspace {workspace!r} is being erased; try again in a moment.")
        if status == b"done":
            return after
    raise ReplaceConflict("Other changes of the same workspace kept coming between; try again.")


async def load(shard: Shard, workspaces: Sequence[str]) -> dict[str, tuple[int, bytes | SealError | None]]:
    """Version and packed value of workspaces, of those that have any, in one read.

    What can't be opened comes as the error, so that it fails its own workspace only. None: Redis has the
    version and lost the value, as with a policy that evicts. That is not the same as having nothing.
    """
    async with shard.redis.pipeline(transaction=True) as pipe:  # or a version might get another's value
        pipe.zmscore(shard.keys.outgoing, list(workspaces))
        for workspace in workspaces:
            pipe.get(shard.keys.of(workspace, "outgoing"))
        versions, *values = await shard.read_together(pipe)
    return {
        workspace: (int(version), None if value is None else _opened(shard, value))
        for workspace, version, value in zip(workspaces, versions, values, strict=True)
        if version is not None
    }


async def users(shard: Shard, workspace: str) -> dict[str, list[str]]:
    """The triggers that use named secrets, by secret, in their order."""
    found: dict[str, list[str]] = {}
    position: int | None = -1
    while position is not None:
        page = await catalog.find(shard, workspace, after=position, limit=_PAGE)
        for trigger in page.triggers:
            for name in names_of(trigger.definition):
                found.setdefault(name, []).append(trigger.id)
        position = page.next_position
    return found


async def check_secrets(
    shard: Shard, workspace: str, wanted: Sequence[tuple[str, Definition]], *, in_set: bool
) -> None:
    """A trigger uses secrets that the workspace has, or that it used before; raises :class:`InvalidRequest`.

    ``in_set``: the triggers are a whole set's, and a fault says which of them it is.
    """
    uses = {index: found for index, (_, one) in enumerate(wanted) if (found := secrets_of(one))}
    if not uses:
        return
    known = (await read(shard, workspace)).secrets
    strange = {
        index: unknown
        for index, found in uses.items()
        if (
            unknown := [
                (place, name) for place, names in found.items() for name in names if name not in known
            ]
        )
    }
    before = await catalog.read_some(shard, workspace, [wanted[index][0] for index in strange])
    faults = []
    for (index, unknown), trigger in zip(strange.items(), before, strict=True):
        used = set() if trigger is None else names_of(trigger.definition)
        begin = f"triggers[{index}]." if in_set else ""
        faults += [
            Fault(f"{begin}{place}", unknown_secret(name, known))
            for place, name in unknown
            if name not in used
        ]
    if faults:
        raise InvalidRequest("A secret is used that the workspace does not have; nothing was stored.", faults)


def unknown_secret(name: str, known: Iterable[str]) -> str:
    """The message about a secret that is not there."""
    return f"{name!r}: {unknown_name(name, sorted(known), 'secret')}"


async def _read(shard: Shard, workspace: str) -> Stored:
    found = (await load(shard, [workspace])).get(workspace)
    if found is None:
        return 0, NOTHING
    version, packed = found
    if isinstance(packed, SealError):
        raise packed
    return version, NOTHING if packed is None else unpack_outgoing(packed)  # so that it can be put again


def _opened(shard: Shard, value: bytes) -> bytes | SealError:
    try:
        return shard.sealer.open(value)
    except SealError as error:
        return error
