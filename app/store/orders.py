"""What people order by hand: runs, backfills, retries of dead letters, cancellations."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from app.errors import IdempotencyConflict, NotFound, TooManyRuns
from app.keys import own_execution_id, split_execution_id
from app.models import Definition, pack_definition
from app.store import definitions
from app.store.shard import Shard, pack, reply, unpack

_LOOKED_AT = 500  # dead letters a step


class Order(Struct, frozen=True):
    """An execution to make. ``request`` is what it sends instead of its trigger's definition."""

    trigger: str
    slot: int  # ms
    request: Definition | None = None
    letter: str = ""  # the dead letter that it retries
    free: bool = False  # it is not void when its trigger goes


class Made(Struct, frozen=True):
    """The executions of an order, of this call or of the first with its idempotency key."""

    executions: list[str]
    repeated: bool = False


Kind = Literal["run", "backfill", "retry"]
_made = msgspec.msgpack.Decoder(list[str])


async def make(
    shard: Shard,
    workspace: str,
    kind: Kind,
    orders: Sequence[Order],
    *,
    one_by_one: bool = False,
    yielding: bool = False,
    idempotency_key: str = "",
    asked: bytes = b"",
) -> Made:
    """Make executions, all in one step; a dead letter that was retried before is passed over.

    ``one_by_one``: those of a trigger go one after another. ``yielding``: they wait until no live execution
    is ready. ``asked`` is the call that the idempotency key belongs to: another one with the same key raises
    :class:`IdempotencyConflict`. Raises :class:`NotFound` when there is no such workspace (any more), and
    :class:`TooManyRuns` when what is open would carry more bytes of requests than the settings allow.
    """
    token = uuid.uuid4().hex[:10]
    entries, requests = [], []
    for index, order in enumerate(orders):
        own = token if kind == "backfill" else f"{token}{index:x}"
        id_ = own_execution_id(workspace, order.trigger, order.slot, kind, own)
        marks = "c" * yielding + "o" * (order.request is not None) + "f" * order.free
        if order.request is not None and order.request.delivery == "at_most_once":
            marks += "1"
        entries.append([id_, order.trigger, order.slot, marks, order.letter])
        request = b"" if order.request is None else pack_definition(order.request)
        requests.append(shard.sealer.seal(request))
    key = hashlib.sha256(idempotency_key.encode()).hexdigest()[:32] if idempotency_key else ""
    status, kept = await shard.run(
        "make_executions",
        shard.policy,
        workspace,
        key,
        pack(shard.sealer.digests(asked)),
        "after" if one_by_one else "allow",
        pack(entries),
        *requests,
    )
    if status == b"different":
        raise IdempotencyConflict("This idempotency key was used for another call; take a new one.")
    if status == b"none":
        raise NotFound(f"There is no workspace {workspace!r}.")
    if status == b"full":
        carried, added = unpack(kept)
        raise TooManyRuns(
            f"Open runs and retries of {workspace!r} carry {carried:,} bytes of requests of their own, and"
            f" this call would add {added:,}; together they may be {shard.settings.max_kept_bytes:,}"
            " (CRONSPACE_MAX_KEPT_BYTES). Wait until some have ended, cancel some, or order fewer at once."
        )
    return Made(_made.decode(kept), status == b"repeated")


async def cancel(shard: Shard, executions: Sequence[str]) -> dict[str, str]:
    """Cancel executions; for each: ``cancelled``, ``finished`` (it had ended before) or ``none``."""
    became = await shard.run("cancel_executions", shard.policy, *executions) if executions else []
    return {id_: what.decode() for id_, what in zip(executions, became, strict=True)}


async def remove_letters(shard: Shard, workspace: str, executions: Sequence[str]) -> int:
    """Remove dead letters for good; returns how many there were."""
    removed = 0
    for start in range(0, len(executions), _LOOKED_AT):
        some = executions[start : start + _LOOKED_AT]
        removed += await shard.run("remove_letters", shard.policy, workspace, *some)
    return removed


def retry_of(letter: str, request: Definition | None) -> Order:
    """The retry of a dead letter, with the request that it keeps."""
    _, trigger, slot = split_execution_id(letter)
    return Order(trigger, slot, request, letter, free=True)


async def letters(
    shard: Shard,
    workspace: str,
    *,
    trigger: str | None = None,
    since: int | None = None,
    until: int | None = None,
) -> list[str]:
    """The ids of dead letters by when they failed, oldest first, of all or one trigger.

    ``since`` (inclusive) and ``until`` (exclusive) are ms.
    """
    highest = "+inf" if until is None else f"({until}"
    lowest = "-inf" if since is None else since
    ids = await shard.redis.zrangebyscore(shard.keys.of(workspace, "failed"), lowest, highest)
    found = [id_.decode() for id_ in ids]
    return [id_ for id_ in found if trigger is None or split_execution_id(id_)[1] == trigger]


async def requests_of(shard: Shard, workspace: str, executions: Sequence[str]) -> list[Definition | None]:
    """The requests that dead letters keep."""
    if not executions:
        return []
    found = await reply(shard.redis.hmget(shard.keys.of(workspace, "requests"), list(executions)))
    return [None if stored is None else definitions.unsealed(shard, stored) for stored in found]


async def retried_as(shard: Shard, workspace: str, executions: Sequence[str]) -> list[str | None]:
    """Which executions retried dead letters."""
    if not executions:
        return []
    found = await reply(shard.redis.hmget(shard.keys.of(workspace, "retried"), list(executions)))
    return [None if one is None else one.decode() for one in found]
