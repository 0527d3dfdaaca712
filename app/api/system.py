"""Whether Redis's data and clock can be trusted, and going on after they could not."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any, Literal

from app.api.fields import Answer, about, moment
from app.api.operations import Call, Noun
from app.clock import rfc3339
from app.formats import Moment
from app.store import Shards, everywhere, witness
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


class UnreadShard(Answer, frozen=True, kw_only=True):
    """A shard whose Redis can't be asked at the moment."""

    shard: ShardNumber
    reason: str


class System(Answer, frozen=True, kw_only=True):
    """How the data and the clock stand."""

    firing: Annotated[bool, about("Whether due slots are fired and sent: nothing is held, or can't be read.")]
    reasons: Annotated[list[str], about("Why not, for people; shards that are held alike in one.")]
    holds: Annotated[list[ShownHold], about("The same, of each shard.")]
    losses: Annotated[list[ShownLoss], about("What Redis lost so far, the last ones, oldest first.")]
    shards: list[ShownShard]
    unread: Annotated[list[UnreadShard], about("Shards that can't be asked: all else is of the others.")]


class Resumed(System, frozen=True, kw_only=True):
    """How the data and the clock stand after it."""

    changed: Annotated[bool, about("Whether anything was held.")]


@noun.operation("GET")
async def get_system(shards: Shards) -> System:
    """Whether firing is held because Redis lost data or its clock jumped, and what was lost so far."""
    return System(**await _shown(shards))


@noun.operation("POST", "/resume", scope="admin")
async def resume_system(shards: Shards, call: Call) -> Resumed:
    """Go on firing: what was lost is accepted, and the time that Redis's clock shows is taken for right.

    Look first: after a loss, whether the trigger sets are those that you want (put them again if not); after
    a jump of the clock, whether it is right now. Shards that can't be asked stay as they are: call again for
    them. Needs all workspaces.
    """
    call.caller.need_everywhere("admin")
    before, _ = await everywhere.ask_each(shards, witness.status)
    resumed, _ = await everywhere.ask_each(shards, witness.resume)
    after = await _shown(shards)
    call.told.before = _noted(hold for status in before.values() for hold in status.holds)
    call.told.after = _noted(after["holds"])
    return Resumed(**after, changed=any(resumed.values()))


def _noted(holds: Iterable[witness.Hold | ShownHold]) -> dict[str, list[str]]:
    """Holds, as the audit has them."""
    return {"holds": [f"{one.kind}: {one.detail}" for one in holds]}


async def _shown(shards: Shards) -> dict[str, Any]:
    found, unread = await everywhere.ask_each(shards, witness.status)
    return {
        "firing": not unread and all(status.firing for status in found.values()),
        "reasons": witness.told_holds(found, len(shards)),
        "holds": [
            ShownHold(
                shard=number,
                kind=one.kind,
                since=rfc3339(one.since),
                noticed_by=one.noticed_by,
                detail=one.detail,
            )
            for number, status in found.items()
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
            for number, status in found.items()
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
            for number, status in found.items()
        ],
        "unread": [UnreadShard(shard=number, reason=why) for number, why in unread.items()],
    }
