"""What has to be cleared away in small steps: executions of removed triggers, and old ones."""

from __future__ import annotations

from app.store.shard import Shard

_LEASE_MS = 30_000
_STEP = 200  # entries a script call

_PARTS = ("backlog", "retrying", "admitted", "last")


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
                if cursor == b"0":
                    break
    return len(chores)


async def trim_finished(shard: Shard, at_most: int = 20) -> int:
    """Remove executions past their retention, of some workspaces; returns how many were removed."""
    chores, _ = await shard.take_chores(shard.keys.trims, at_most, _LEASE_MS)
    removed = 0
    for workspace in chores:
        removed += await shard.run("trim_finished", shard.policy, workspace, _STEP)
    return removed
