"""What has to be cleared away in small steps: executions of removed triggers, and old ones."""

from __future__ import annotations

from app.store.shard import Shard, reply

_LEASE_MS = 30_000
_STEP = 200  # entries a script call

_PARTS = ("lined", "late", "backlog", "waiting", "admitted", "pauses", "exceptions", "last")


async def clear_removed(shard: Shard) -> int:
    """End the executions of removed triggers, of one workspace; returns how many workspaces had any."""
    chores, later = await shard.take_chores(shard.keys.clears, 1, _LEASE_MS)
    for workspace in chores:
        for part in _PARTS:
            cursor = b"0"
            while True:
                cursor, _ = await shard.run(
                    "clear_removed", shard.policy, workspace, part, cursor, _STEP, later
                )
                if cursor == b"done":
                    break
    return len(chores)


async def trim_finished(shard: Shard, at_most: int = 20) -> int:
    """Remove executions past their retention, of some workspaces; returns how many were removed."""
    chores, _ = await shard.take_chores(shard.keys.trims, at_most, _LEASE_MS)
    removed = 0
    for workspace in chores:
        removed += await shard.run("trim_finished", shard.policy, workspace, _STEP)
    return removed


async def erase(shard: Shard, workspace: str) -> bool:
    """Erase a workspace with everything of it; False when there is none."""
    created = await reply(shard.redis.hget(shard.keys.of(workspace, "meta"), "created"))
    return await _erase(shard, workspace, created or b"0")


async def finish_erasing(shard: Shard) -> int:
    """Go on with what an API process began to erase and did not finish; returns how many it were."""
    chores, _ = await shard.take_chores(shard.keys.erases, 1, _LEASE_MS)
    for workspace in chores:
        await _erase(shard, workspace.decode(), b"")
    return len(chores)


async def _erase(shard: Shard, workspace: str, created: str | bytes) -> bool:
    """Erase the workspace that was created then, or go on with one; others may do so at the same time."""
    done, found = 0, False
    while done == 0:
        done = await shard.run("erase_workspace", workspace, created, _STEP, shard.settings.keep_days)
        found = found or done >= 0
    return found
