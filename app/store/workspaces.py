"""Workspaces: what each sets for itself, which there are, and what they hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from app.errors import WorkspaceErasing
from app.keys import FINISHED_STATES
from app.models import Pause
from app.store.shard import Shard, reply, unpack


class WorkspaceSettings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a workspace sets for itself; None: as the deployment has it.

    The first five go for what is there at once; the zone, the time-out and the retries are filled in when a
    trigger is stored that leaves them out.
    """

    max_concurrency: int | None = None
    max_rate: float | None = None
    keep_succeeded_seconds: int | None = None
    keep_succeeded: int | None = None
    keep_failed: int | None = None
    timezone: str | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    description: str | None = None


class Workspace(Struct, frozen=True, kw_only=True):
    """A workspace. Times are ms since the epoch."""

    id: str
    created: int
    revision: int
    settings: WorkspaceSettings
    pause: Pause | None
    spans: list[tuple[int, int, str]]  # former pauses: from, to, note
    triggers: int


class Counts(Struct, frozen=True, kw_only=True):
    """How many triggers and executions a workspace holds, by what they are at."""

    triggers: dict[str, int]
    executions: dict[str, int]


_NAMES = WorkspaceSettings.__struct_fields__
_TEXTS = ("timezone", "description")
_AT_ONCE = 1000  # keys a command


async def get(shard: Shard, workspace: str) -> Workspace | None:
    """A workspace, or None."""
    return (await _load(shard, [workspace]))[0]


async def settings_of(shard: Shard, workspace: str) -> WorkspaceSettings:
    """What a workspace sets for itself; nothing where there is none."""
    found = await reply(shard.redis.hmget(shard.keys.of(workspace, "meta"), list(_NAMES)))
    return _settings(dict(zip(_NAMES, found, strict=True)))


async def configure(shard: Shard, workspace: str, settings: WorkspaceSettings) -> bool:
    """Set all of a workspace's settings; it exists from then on. Returns whether it is new.

    Raises :class:`WorkspaceErasing`.
    """
    return await _configure(shard, workspace, msgspec.structs.asdict(settings), create=True) == "created"


async def change(shard: Shard, workspace: str, changes: Mapping[str, Any]) -> bool:
    """Change some of a workspace's settings; None unsets one. False: there is no such workspace.

    Raises :class:`WorkspaceErasing`.
    """
    return await _configure(shard, workspace, changes, create=False) == "changed"


async def _configure(shard: Shard, workspace: str, changes: Mapping[str, Any], create: bool) -> str:
    values: list[str] = []
    for name, value in changes.items():
        values += [name, "" if value is None else str(value)]
    status = await shard.run("configure_workspace", shard.policy, workspace, int(create), *values)
    if status == b"erasing":
        raise WorkspaceErasing(f"The workspace {workspace!r} is being erased; try again in a moment.")
    return cast(bytes, status).decode()


async def page(
    shard: Shard, after: str = "", limit: int = 100, *, only: Collection[str] | None = None
) -> tuple[list[Workspace], str | None]:
    """Workspaces in the order of their ids, and after which the next page begins.

    With ``only`` just those of them that there are; a page may then have fewer than ``limit``.
    """
    if only is None:
        start = f"({after}" if after else "-"
        ids = await shard.redis.zrangebylex(shard.keys.workspaces, start, "+", 0, limit + 1)
        names = [id_.decode() for id_ in ids]
    else:
        names = sorted(name for name in only if name > after)[: limit + 1]
    found = [one for one in await _load(shard, names[:limit]) if one is not None]
    return found, names[limit - 1] if len(names) > limit else None


async def all_ids(shard: Shard) -> list[str]:
    """The ids of all workspaces, ascending."""
    return [id_.decode() for id_ in await shard.redis.zrange(shard.keys.workspaces, 0, -1)]


async def any_exists(shard: Shard) -> bool:
    """Whether there is any workspace."""
    return bool(await shard.redis.exists(shard.keys.workspaces))


async def counts(shard: Shard, workspaces: Sequence[str]) -> list[Counts]:
    """What each workspace holds: open executions, and finished ones as far as they are kept."""
    of = shard.keys.of
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace in workspaces:
            pipe.hlen(of(workspace, "definitions"))
            pipe.scard(of(workspace, "finished"))
            for part in ("disabled", "pauses", "errors"):
                pipe.hlen(of(workspace, part))
            for part in ("backlog", "waiting", "late", "lined", *FINISHED_STATES):
                pipe.zcard(of(workspace, part))
            pipe.zrange(of(workspace, "admitted"), 0, -1)
        replies = await pipe.execute()
    if not workspaces:
        return []
    size = len(replies) // len(workspaces)
    rows = [replies[start : start + size] for start in range(0, len(replies), size)]
    running = await _running(shard, [row[-1] for row in rows])
    triggers = await _standings(shard, workspaces, [row[:5] for row in rows])
    return [_counts(*one) for one in zip(rows, running, triggers, strict=True)]


async def _standings(
    shard: Shard, workspaces: Sequence[str], sizes: Sequence[Sequence[int]]
) -> list[dict[str, int]]:
    """Triggers by where they stand; what comes first in :class:`app.models.Standing` hides the rest."""
    of = shard.keys.of
    mixed = [
        workspace
        for workspace, size in zip(workspaces, sizes, strict=True)
        if sum(number > 0 for number in size[1:]) > 1
    ]
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace in mixed:
            pipe.hkeys(of(workspace, "disabled"))
            pipe.hkeys(of(workspace, "pauses"))
            pipe.smembers(of(workspace, "finished"))
            pipe.hkeys(of(workspace, "errors"))
        found = await pipe.execute()
    exact = {}
    for index, workspace in enumerate(mixed):
        seen: set[bytes] = set()
        numbers = []
        for ids in found[index * 4 : index * 4 + 4]:
            numbers.append(len(set(ids) - seen))
            seen.update(ids)
        exact[workspace] = numbers
    standings = []
    for workspace, (total, finished, disabled, paused, errors) in zip(workspaces, sizes, strict=True):
        numbers = exact.get(workspace, [disabled, paused, finished, errors])
        active = max(0, total - sum(numbers))
        names = ("disabled", "paused", "finished", "error")
        standings.append({"total": total, "active": active, **dict(zip(names, numbers, strict=True))})
    return standings


async def _running(shard: Shard, admitted: Sequence[Sequence[bytes]]) -> list[int]:
    """How many of executions that have a place are being sent: those that have an owner."""
    numbers = []
    async with shard.redis.pipeline(transaction=False) as pipe:
        for ids in admitted:
            owners = [shard.keys.arq_in_progress(id_.decode()) for id_ in ids]
            parts = [owners[start : start + _AT_ONCE] for start in range(0, len(owners), _AT_ONCE)]
            for part in parts:
                pipe.exists(*part)
            numbers.append(len(parts))
        found = iter(await pipe.execute() if any(numbers) else [])
    return [sum(next(found) for _ in range(number)) for number in numbers]


def _counts(row: list[Any], running: int, triggers: dict[str, int]) -> Counts:
    backlog, waiting, late, lined, *ended, admitted = row[5:]
    executions = {
        "queued": len(admitted) - running + backlog + late + lined,
        "running": running,
        "retrying": waiting,
        **dict(zip(FINISHED_STATES, ended, strict=True)),
    }
    return Counts(triggers=triggers, executions=executions)


async def _load(shard: Shard, workspaces: list[str]) -> list[Workspace | None]:
    of = shard.keys.of
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace in workspaces:
            pipe.zscore(shard.keys.workspaces, workspace)
            pipe.hgetall(of(workspace, "meta"))
            pipe.hlen(of(workspace, "definitions"))
        replies = await pipe.execute()
    found: list[Workspace | None] = []
    for index, workspace in enumerate(workspaces):
        score, raw, triggers = replies[index * 3 : index * 3 + 3]
        if score is None:
            found.append(None)
            continue
        meta = {name.decode(): value for name, value in raw.items()}
        pause = unpack(meta["paused"]) if "paused" in meta else None
        found.append(
            Workspace(
                id=workspace,
                created=int(meta.get("created", 0)),
                revision=int(meta.get("revision", 0)),
                settings=_settings(meta),
                pause=Pause(pause[0], pause[1]) if pause else None,
                spans=[(one[0], one[1], one[2]) for one in unpack(meta["spans"])] if "spans" in meta else [],
                triggers=triggers,
            )
        )
    return found


def _settings(meta: dict[str, Any]) -> WorkspaceSettings:
    given = {name: meta[name].decode() for name in _NAMES if meta.get(name) is not None}
    texts = {name: given.pop(name) for name in _TEXTS if name in given}
    return msgspec.structs.replace(msgspec.convert(given, WorkspaceSettings, strict=False), **texts)
