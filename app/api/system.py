"""Whether Redis's data and clock can be trusted, and going on after they could not."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from app.api.fields import Answer, about, moment
from app.api.operations import Call, Noun
from app.clock import rfc3339
from app.formats import Moment
from app.store import Shards, witness
from app.witness import HoldKind

noun = Noun("system", "Whether Redis's data and clock can be trusted.", "/api/system")


ShardNumber = Annotated[int, about("The shard, from 0 on: workspaces are spread over them.")]


class ShownHold(Answer, frozen=True, kw_only=True):
    """Why nothing of a shard is fired."""

    shard: ShardNumber
    kind: Annotated[HoldKind, about("`data_loss`: Redis lost data; `clock_jump`: its clock was set.")]
    since: Moment
    noticed_by: Annotated[str, about("The process that noticed it first.")]
    detail: Annotated[str, about("What happened, for people.")]


class ShownLoss(Answer, frozen=True, kw_only=True):
    """A time of which Redis lost what it did."""

    shard: ShardNumber
    kind: Annotated[Literal["emptied", "rolled_back"], about("Whether nothing was left, or an older state.")]
    since: Annotated[Moment | None, about("From then on; null: from the beginning.")]
    until: Annotated[Moment, about("Up to then.")]
    noticed_at: Moment
    noticed_by: str
    held: Annotated[bool, about("Whether firing was held for it.")]


class ShownShard(Answer, frozen=True, kw_only=True):
    """What a shard's data and clock are told by."""

    shard: ShardNumber
    now: Annotated[Moment, about("Redis's clock.")]
    epoch: Annotated[str | None, about("Changes with every loss and resume; null: nobody has called yet.")]
    beat: Annotated[Moment | None, about("The last sign of life of any process.")]
    worker_seen: Annotated[Moment | None, about("The last sign of life of a worker.")]


class System(Answer, frozen=True, kw_only=True):
    """How the data and the clock stand."""

    firing: Annotated[bool, about("Whether due slots are fired and sent: nothing is held.")]
    holds: Annotated[list[ShownHold], about("Why not.")]
    losses: Annotated[list[ShownLoss], about("What Redis lost so far, the last ones, oldest first.")]
    shards: list[ShownShard]


class Resumed(System, frozen=True, kw_only=True):
    """How the data and the clock stand after it."""

    changed: Annotated[bool, about("Whether anything was held.")]


@noun.operation("GET")
async def get_system(shards: Shards) -> System:
    """Whether firing is held because Redis lost data or its clock jumped, and what was lost so far."""
    return System(**_shown(await _status(shards)))


@noun.operation("POST", "/resume", scope="admin")
async def resume_system(shards: Shards, call: Call) -> Resumed:
    """Go on firing: what was lost is accepted, and the time that Redis's clock shows is taken for right.

    Look first: after a loss, whether the trigger sets are those that you want (put them again if not); after
    a jump of the clock, whether it is right now. Needs all workspaces.
    """
    call.caller.need_everywhere("admin")
    before = await _status(shards)
    resumed = [await witness.resume(shard) for shard in shards]
    call.told.before = {"holds": [f"{one.kind}: {one.detail}" for status in before for one in status.holds]}
    call.told.after = {"holds": []}
    return Resumed(**_shown(await _status(shards)), changed=any(resumed))


async def _status(shards: Shards) -> list[witness.Status]:
    return await asyncio.gather(*(witness.status(shard) for shard in shards))


def _shown(found: list[witness.Status]) -> dict[str, Any]:
    return {
        "firing": all(status.firing for status in found),
        "holds": [
            ShownHold(
                shard=number,
                kind=one.kind,
                since=rfc3339(one.since),
                noticed_by=one.noticed_by,
                detail=one.detail,
            )
            for number, status in enumerate(found)
            for one in status.holds
        ],
        "losses": [
            ShownLoss(
                shard=number,
                kind=one.kind,
                since=moment(one.since or None),
                until=rfc3339(one.until),
                noticed_at=rfc3339(one.noticed),
                noticed_by=one.who,
                held=one.held,
            )
            for number, status in enumerate(found)
            for one in status.losses
        ],
        "shards": [
            ShownShard(
                shard=number,
                now=rfc3339(status.now),
                epoch=status.epoch,
                beat=moment(status.beat),
                worker_seen=moment(status.worker_seen),
            )
            for number, status in enumerate(found)
        ],
    }
