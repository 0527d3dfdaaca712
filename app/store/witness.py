"""The witness at work: noticing that Redis lost data or that its clock jumped, and going on after it.

What is compared, and why, is in :mod:`app.witness`.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct, structs

from app.clock import rfc3339
from app.counts import shards_named
from app.store.shard import Shard, pack, reply, unpack
from app.witness import HoldKind, Loss, Verdict

log = logging.getLogger(__name__)

LOSSES_KEPT = 20  # as in lua/_witness.lua
_STEP = 1000  # entries a script call
_ONE_EVENT_MS = 60_000

_loss = msgspec.msgpack.Decoder(Loss)
_losses = msgspec.msgpack.Decoder(list[Loss])


class Hold(Struct, frozen=True):
    """Why nothing is fired or claimed."""

    kind: HoldKind
    since: int  # ms
    noticed_by: str
    lost: tuple[int, int] = (0, 0)  # what Redis did from then (0: all) until then, ms
    jump: int = 0  # of the clock, ms

    @property
    def detail(self) -> str:
        """What happened, for people."""
        return _told_span(*self.lost) if self.kind == "data_loss" else _told_jump(self.jump)

    def is_like(self, other: Hold) -> bool:
        """Whether the two are of one event, which each shard of a Redis notices by itself."""
        alike = (self.kind, bool(self.lost[0]), self.jump > 0) == (
            other.kind,
            bool(other.lost[0]),
            other.jump > 0,
        )
        return alike and abs(self.since - other.since) < _ONE_EVENT_MS

    def together(self, other: Hold) -> Hold:
        """The event, as one of both tells it at most."""
        return structs.replace(
            min(self, other, key=lambda one: one.since),
            lost=(min(self.lost[0], other.lost[0]), max(self.lost[1], other.lost[1])),
            jump=max(self.jump, other.jump, key=abs),
        )


class Status(Struct, frozen=True):
    """How the data and the clock stand. Times are ms, by Redis's clock."""

    now: int
    epoch: str | None  # None: no process has called yet
    beat: int | None  # the last sign of life of any process
    worker_seen: int | None
    holds: list[Hold]
    losses: list[Loss]  # oldest first

    @property
    def firing(self) -> bool:
        """Whether due slots are fired, and ready executions claimed."""
        return not self.holds


def testimony(shard: Shard) -> bytes:
    """What this process saw last, as the scripts take it."""
    return pack(shard.witness.testify())


def hear(shard: Shard, found: list[Any], now: int) -> None:
    """Take in the verdict of a script that ran at ``now``; say so in the log when it has changed."""
    why, own, epoch, beat, term, packed = found
    loss = _loss.decode(packed) if packed else None
    verdict = Verdict(why.decode(), bool(own), epoch.decode(), beat.decode(), term)
    before = shard.witness.why
    shard.witness.hear(verdict, now)
    where = {"shard": shard.keys.shard}
    if loss is not None:
        level = logging.CRITICAL if loss.held or not loss.since else logging.WARNING
        log.log(level, "%s", told_loss(loss), extra=where)
    if verdict.why and verdict.why != before:
        log.critical(
            "nothing is fired or claimed (%s): `cronspace system` (GET /api/system) says why, and"
            " `cronspace system resume` (POST /api/system/resume) goes on",
            verdict.why,
            extra=where,
        )
    elif before and not verdict.why:
        log.warning("firing goes on", extra=where)


async def watch(shard: Shard) -> int | None:
    """Look whether all is as this process saw it last. Redis's clock in ms; None while firing is held."""
    now, found = await shard.run("watch", testimony(shard))
    hear(shard, found, now)
    return None if shard.witness.why else now


async def losses(shard: Shard) -> list[Loss]:
    """What Redis lost, oldest first; the last ones."""
    (packed,) = await reply(shard.redis.hmget(shard.keys.root, ["losses"]))
    return _losses.decode(packed) if packed else []


async def add_losses(shard: Shard, lost: Sequence[Loss]) -> None:
    """Note what another shard lost whose workspaces come to this one. For a shard that nobody works on."""
    known = await losses(shard)
    together = sorted({*known, *lost}, key=lambda loss: loss.noticed)
    if together != known:
        kept = pack(together[-LOSSES_KEPT:])
        await reply(shard.redis.hset(shard.keys.root, mapping={"losses": kept}))


async def status(shard: Shard) -> Status:
    """How the data and the clock stand: why firing is held, and what was lost so far."""
    fields = ["epoch", "beat", "pulse", "held_by_loss", "held_by_clock", "losses"]
    found = await reply(shard.redis.hmget(shard.keys.root, fields))
    epoch, beat, pulse, by_loss, by_clock, lost = found
    holds = []
    if by_loss:
        since, who, begin, end = unpack(by_loss)
        holds.append(Hold("data_loss", since, who, lost=(begin, end)))
    if by_clock:
        since, who, jump, _ = unpack(by_clock)
        holds.append(Hold("clock_jump", since, who, jump=jump))
    return Status(
        now=await shard.now_ms(),
        epoch=epoch.decode() if epoch else None,
        beat=int(beat.partition(b"-")[0]) if beat else None,
        worker_seen=int(pulse) if pulse else None,
        holds=holds,
        losses=_losses.decode(lost) if lost else [],
    )


def told_holds(found: Mapping[int, Status], shards: int) -> list[str]:
    """Why nothing is fired, by shard, of so many: what holds several alike is told once."""
    events: list[tuple[list[int], Hold]] = []
    for number, status_ in found.items():
        for hold in status_.holds:
            for index, (numbers, known) in enumerate(events):
                if hold.is_like(known):
                    events[index] = ([*numbers, number], hold.together(known))
                    break
            else:
                events.append(([number], hold))
    return [f"{shards_named(who)}: {hold.detail}" if shards > 1 else hold.detail for who, hold in events]


async def resume(shard: Shard) -> bool:
    """Accept what was lost and the time that Redis's clock shows; whether anything was held."""
    held = await shard.run("resume_firing", uuid.uuid4().hex[:12])
    if held == b"clock":
        await rebase(shard)
    return bool(held != b"nothing")


async def rebase(shard: Shard) -> None:
    """After a clock was wrong: nothing waits for a time that it showed."""
    cursor: str | bytes = "0"
    while cursor != b"done":
        cursor = await shard.run("rebase_times", int(shard.settings.lease_seconds * 1000), cursor, _STEP)


def told_loss(loss: Loss) -> str:
    """A loss in words."""
    return f"{_told_span(loss.since, loss.until)} Noticed by {loss.who}."


def _told_span(begin: int, end: int) -> str:
    if not begin:
        return f"Redis was emptied or replaced: nothing is left of what it held until {rfc3339(end)}."
    return f"Redis was rolled back: what it did from {rfc3339(begin)} until {rfc3339(end)} at most is lost."


def _told_jump(jump: int) -> str:
    way = "ahead of" if jump > 0 else "behind"
    return f"Redis's clock jumped: it is {abs(jump) / 1000:.1f} s {way} the time that passed."
