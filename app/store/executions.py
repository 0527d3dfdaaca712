"""Reading executions: one by one, and listed newest first."""

from __future__ import annotations

import base64
import binascii
import heapq
import struct
from collections.abc import AsyncIterator, Iterable
from typing import cast

import msgspec
from msgspec import Struct

from app.keys import FINISHED_STATES, split_execution_id
from app.models import ArqJob, ArqResult, Execution, LastSlot, State
from app.store.shard import Shard, reply

_job = msgspec.msgpack.Decoder(ArqJob)
_result = msgspec.msgpack.Decoder(ArqResult)

_PAGE = 200
_LOAD_LEAST = 50  # executions loaded at once, where not all turn out to be in the wanted state
# Reads are pipelined, not in a transaction: under maxmemory Redis refuses those even for reads.
_OPEN_SETS = ("admitted", "backlog", "waiting", "late", "lined")
_SETS_OF_STATE = {
    State.QUEUED: _OPEN_SETS,
    State.RUNNING: ("admitted",),
    State.RETRYING: ("waiting",),
}

Place = tuple[int, str]  # score ms, execution id: the order of a list


class Page(Struct, frozen=True):
    """Some executions, and where the next page begins (None: there is none)."""

    executions: list[Execution]
    next_cursor: str | None


async def get(shard: Shard, workspace: str, execution: str) -> Execution | None:
    """One execution of a workspace, or None."""
    try:
        owner = split_execution_id(execution)[0]
    except ValueError:
        return None
    if owner != workspace:
        return None
    return (await _load(shard, [execution]))[0]


async def list_newest(
    shard: Shard,
    workspace: str,
    *,
    state: State | None = None,
    trigger: str | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """A workspace's executions, newest first: open ones by when they were made, finished ones by their end.

    Raises ``ValueError`` for a cursor that is none of ours.
    """
    after = _read_cursor(cursor) if cursor else None
    names = (*_OPEN_SETS, *FINISHED_STATES) if state is None else _SETS_OF_STATE.get(state, (str(state),))
    streams = [_descend(shard, shard.keys.of(workspace, name), after) for name in names]
    found: list[tuple[Place, Execution]] = []
    batch: list[Place] = []
    seen: set[str] = set()
    async for place in _merge(streams):
        if place[1] in seen or (trigger is not None and split_execution_id(place[1])[1] != trigger):
            continue  # it may move from one set to another while they are read
        seen.add(place[1])
        batch.append(place)
        if len(batch) >= max(limit + 1 - len(found), _LOAD_LEAST):
            await _take(shard, batch, state, found)
            batch = []
            if len(found) > limit:
                break
    await _take(shard, batch, state, found)
    executions = [execution for _, execution in found[:limit]]
    return Page(executions, _write_cursor(found[limit - 1][0]) if len(found) > limit else None)


async def last_slots(shard: Shard, workspace: str, trigger: str) -> list[LastSlot]:
    """A trigger's last slots, newest first. They outlive their executions."""
    stored = await reply(shard.redis.hget(shard.keys.of(workspace, "last"), trigger))
    return unpack_last_slots(cast(bytes, stored or b""))[: shard.settings.keep_slots]


def unpack_last_slots(packed: bytes) -> list[LastSlot]:
    """Last slots as ``store/lua/_end.lua`` packs them, newest first."""
    codes = [State(state) for state in FINISHED_STATES]
    slots = []
    for start in range(0, len(packed), 17):
        high, low, code, status, late, duration = struct.unpack_from(">HIBHII", packed, start)
        slots.append(LastSlot((high << 32) + low, codes[code - 1], status, late, duration))
    return slots[::-1]


async def open_ids(shard: Shard, workspace: str) -> set[str]:
    """The ids of all executions that have not ended."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        for name in _OPEN_SETS:
            pipe.zrange(shard.keys.of(workspace, name), 0, -1)
        return {id_.decode() for ids in await pipe.execute() for id_ in ids}


async def _take(
    shard: Shard, places: list[Place], state: State | None, found: list[tuple[Place, Execution]]
) -> None:
    """Load executions and keep those in the wanted state: they may have moved on since they were listed."""
    loaded = await _load(shard, [id_ for _, id_ in places]) if places else []
    for place, execution in zip(places, loaded, strict=True):
        if execution is not None and (state is None or execution.state == state):
            found.append((place, execution))


async def _load(shard: Shard, ids: list[str]) -> list[Execution | None]:
    keys = shard.keys
    async with shard.redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            pipe.mget(keys.arq_result(id_), keys.arq_job(id_), keys.arq_in_progress(id_))
            pipe.zscore(keys.queue, keys.job_id(id_))
            pipe.zscore(keys.of(split_execution_id(id_)[0], "waiting"), id_)
        replies = await pipe.execute()
    loaded = []
    for index, id_ in enumerate(ids):
        (result, job, owner), score, waiting = replies[index * 3 : index * 3 + 3]
        loaded.append(_execution(id_, result, job, owner, score, waiting))
    return loaded


def _execution(
    id_: str,
    result: bytes | None,
    job: bytes | None,
    owner: bytes | None,
    score: float | None,
    waiting: float | None,
) -> Execution | None:
    workspace, trigger, slot = split_execution_id(id_)
    if result is not None:
        record = _result.decode(result)
        attempts = record.r.attempts
        return Execution(
            id=id_,
            workspace=workspace,
            trigger=trigger,
            state=record.r.state,
            slot=slot,
            queued=record.et,
            started=attempts[0].started if attempts else None,
            finished=record.ft,
            reason=record.r.reason or None,
            worker=attempts[-1].worker if attempts else None,
            attempts=attempts,
        )
    if job is None:
        return None
    opened = _job.decode(job)
    attempts = opened.k.get("attempts", [])
    started = attempts[0].started if attempts else None
    worker = None
    state = State.RETRYING if waiting is not None and attempts else State.QUEUED
    if owner is not None:
        state = State.RUNNING
        token, _, since = owner.decode().rpartition("|")
        worker = token.rpartition(":")[0]
        started = int(since) if started is None else started
    return Execution(
        id=id_,
        workspace=workspace,
        trigger=trigger,
        state=state,
        slot=slot,
        queued=opened.et,
        started=started,
        next_attempt=int(score) if waiting is not None and owner is None and score is not None else None,
        worker=worker,
        attempts=attempts,
    )


async def _descend(shard: Shard, key: str, after: Place | None) -> AsyncIterator[Place]:
    """The members of a sorted set, highest first, from a place on (without it)."""
    highest = "+inf" if after is None else after[0]
    offset = 0
    while True:
        members = await shard.redis.zrevrangebyscore(
            key, highest, "-inf", start=offset, num=_PAGE, withscores=True
        )
        for member, score in members:
            place = int(score), member.decode()
            if after is None or place < after:
                yield place
        if len(members) < _PAGE:
            return
        offset += _PAGE


async def _merge(streams: Iterable[AsyncIterator[Place]]) -> AsyncIterator[Place]:
    """Several descending streams as one."""
    heads: list[tuple[tuple[int, tuple[int, ...]], int, Place, AsyncIterator[Place]]] = []

    async def push(number: int, stream: AsyncIterator[Place]) -> None:
        place = await anext(stream, None)
        if place is not None:
            order = -place[0], tuple(-ord(letter) for letter in place[1])
            heapq.heappush(heads, (order, number, place, stream))

    for number, stream in enumerate(streams):
        await push(number, stream)
    while heads:
        _, number, place, stream = heapq.heappop(heads)
        yield place
        await push(number, stream)


def _write_cursor(place: Place) -> str:
    return base64.urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def _read_cursor(text: str) -> Place:
    try:
        score, id_ = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(":", 1)
        split_execution_id(id_)
        return int(score), id_
    except (binascii.Error, UnicodeDecodeError, ValueError) as error:
        raise ValueError("not a cursor of this list") from error
