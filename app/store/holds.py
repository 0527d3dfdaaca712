"""Pauses: an operator's hold beside the definitions, on triggers or on a whole workspace.

While a trigger or its workspace is paused no slot of it is due; what is open goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.store.shard import Shard
from app.store.triggers import fire_before

_AT_ONCE = 200


async def pause_triggers(
    shard: Shard, workspace: str, triggers: Sequence[str], note: str = ""
) -> dict[str, bool]:
    """Pause triggers; for each that there is, whether it was not paused before."""
    return await _hold(shard, workspace, "pause", note, triggers)


async def resume_triggers(shard: Shard, workspace: str, triggers: Sequence[str]) -> dict[str, bool]:
    """Resume triggers; for each that there is, whether it was paused before."""
    return await _hold(shard, workspace, "resume", "", triggers)


async def pause_workspace(shard: Shard, workspace: str, note: str = "") -> bool | None:
    """Pause a workspace; whether it was not paused before, None when there is none."""
    return _told(await _fired_first(shard, workspace, "hold_workspace", workspace, "pause", note))


async def resume_workspace(shard: Shard, workspace: str) -> bool | None:
    """Resume a workspace; whether it was paused before, None when there is none."""
    return _told(await shard.run("hold_workspace", workspace, "resume", "", 0))


async def _hold(
    shard: Shard, workspace: str, what: str, note: str, triggers: Sequence[str]
) -> dict[str, bool]:
    held: dict[str, bool] = {}
    for start in range(0, len(triggers), _AT_ONCE):
        some = triggers[start : start + _AT_ONCE]
        call = ("hold_triggers", shard.policy, workspace, what, note)
        changed = await _fired_first(shard, workspace, *call, then=some)
        held |= {id_: bool(one) for id_, one in zip(some, changed, strict=True) if one >= 0}
    return held


async def _fired_first(
    shard: Shard, workspace: str, script: str, *args: str | bytes, then: Sequence[str] = ()
) -> Any:
    """Run a script that answers ``due`` while slots have to be fired before what it does."""
    fire_first = True
    while True:
        answer = await shard.run(script, *args, int(fire_first), *then)
        if answer != b"due":
            return answer
        fire_first = await fire_before(shard, workspace)


def _told(changed: int) -> bool | None:
    return None if changed < 0 else bool(changed)
