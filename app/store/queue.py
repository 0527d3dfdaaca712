"""arq's queue: executions are claimed from it under a lease, and finished."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec
from msgspec import Struct, structs

from app.errors import SealError
from app.keys import split_execution_id
from app.models import ArqJob, Attempt, FailureKind, State
from app.store import witness
from app.store.shard import Shard, pack

OFTEN_OPENED = 4096  # bytes; larger definitions are opened anew each time, so that memory stays bounded

_job = msgspec.msgpack.Decoder(ArqJob)


class Claimed(Struct, frozen=True):
    """An execution that this worker is to send, under a lease that its token stands for."""

    id: str
    workspace: str
    trigger: str
    slot: int  # ms since the epoch
    attempts: list[Attempt]  # made before; their texts are as they are stored
    definition: bytes
    anchor: int  # from where the trigger's interval counts, ms; 0 for none
    token: str
    outgoing: int = 0  # version of what the workspace's requests go out with; 0: nothing
    unreadable: str = ""  # why there is no definition: its key is missing


class Claim(Struct, frozen=True):
    """The reply to a claim. Times are ms since the epoch, by Redis's clock."""

    now: int
    next_ready: int | None  # when the next may be ready
    executions: list[Claimed]


What = Literal["succeeded", "failed", "retry", "release"]


class Ended(Struct, frozen=True):
    """What became of an attempt: a final state, or another try after ``delay_ms``. With ``release`` nothing
    was sent.

    With ``failed`` comes the definition, which the dead letter keeps. ``gone``: the target said so (410),
    and its trigger is to be disabled for that.
    """

    id: str
    token: str
    what: What
    delay_ms: int = 0
    attempt: Attempt | None = None
    definition: bytes = b""  # as it was sent: a dead letter keeps it; empty: as it is stored
    gone: bool = False  # the target wants no more of this trigger


async def claim(shard: Shard, worker: str, number: int, at_most: int) -> Claim:
    """Take up to ``at_most`` ready executions; the same ``number`` again gets the same ones again."""
    reply = await shard.run(
        "claim_ready",
        shard.policy,
        worker,
        number,
        at_most,
        int(shard.settings.lease_seconds * 1000),
        shard.settings.max_takeovers,
        witness.testimony(shard),
    )
    witness.hear(shard, reply[2], reply[0])
    outgoing = {
        name.decode(): int(version) for name, version in zip(reply[3][::2], reply[3][1::2], strict=True)
    }
    executions = []
    for index in range(4, len(reply), 5):
        id_, job, definition, anchor, token = reply[index : index + 5]
        execution = id_.decode()
        workspace, trigger, slot = split_execution_id(execution)
        attempts = _job.decode(job).k.get("attempts", [])
        plain, unreadable = _opened(shard, definition)
        executions.append(
            Claimed(
                execution,
                workspace,
                trigger,
                slot,
                attempts,
                plain,
                anchor,
                token.decode(),
                outgoing.get(workspace, 0),
                unreadable,
            )
        )
    return Claim(reply[0], None if reply[1] < 0 else reply[1], executions)


def _opened(shard: Shard, stored: bytes) -> tuple[bytes, str]:
    """A packed definition, or why it can't be read."""
    if not shard.sealer.is_sealed(stored):
        return stored, ""
    try:
        plain = shard.open_again(stored) if len(stored) <= OFTEN_OPENED else shard.sealer.open(stored)
        return plain, ""
    except SealError as error:
        return b"", str(error)


def _sealed(shard: Shard, attempt: Attempt | None) -> Attempt | None:
    """An attempt to be stored. Scripts unpack it, so only what a target may have put into it is sealed.

    Who lacks a key may have another that nobody else has: what they tell of that stays plain.
    """
    if attempt is None or attempt.kind == FailureKind.KEY:
        return attempt
    message, snippet = shard.sealer.seal_text(attempt.message), shard.sealer.seal_text(attempt.snippet)
    if message is attempt.message and snippet is attempt.snippet:
        return attempt
    return structs.replace(attempt, message=message, snippet=snippet)


async def finish(shard: Shard, outcomes: Sequence[Ended]) -> list[State | None]:
    """Record outcomes; returns the state that each execution is in now, None where the lease was lost."""
    batch = [[o.id, o.token, o.what, o.delay_ms, _sealed(shard, o.attempt), o.gone] for o in outcomes]
    definitions = [shard.sealer.seal(o.definition) for o in outcomes]
    states = await shard.run("finish_executions", shard.policy, pack(batch), *definitions)
    return [None if state == b"stale" else State(state.decode()) for state in states]


async def renew(shard: Shard, held: Mapping[str, str] | Iterable[tuple[str, str]]) -> set[str]:
    """Extend the leases of executions (id → token); returns the ids that are no longer ours."""
    pairs = [text for pair in dict(held).items() for text in pair]
    lost = await shard.run("renew_leases", int(shard.settings.lease_seconds * 1000), *pairs)
    return {id_.decode() for id_ in lost}
