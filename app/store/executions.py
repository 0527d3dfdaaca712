"""Reading executions: one by one, and listed newest first."""

from __future__ import annotations

import heapq
import re
import struct
from collections import deque
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from itertools import groupby
from typing import Any, cast

import msgspec
from msgspec import Struct, structs

from app.cursors import Place, read_cursor, write_cursor  # a place: score ms, execution id
from app.errors import SealError
from app.keys import FINISHED_STATES, split_execution_id
from app.models import ArqJob, ArqResult, Attempt, Execution, LastSlot, State
from app.sealing import Sealer
from app.store import definitions
from app.store.shard import Shard, reply

_job = msgspec.msgpack.Decoder(ArqJob)
_result = msgspec.msgpack.Decoder(ArqResult)

_PAGE = 200
_HEAD = 2  # read of each list at first, where there are many
_IDENTITY_TAIL = re.compile(r"~[0-9a-f]{8}\Z")  # tells a worker from others of its name
_READ_AT_ONCE = 1000  # lists a pipeline
_LOAD_LEAST = 50  # executions loaded at once, where not all turn out to be in the wanted state
_LOOKED_AT = 20_000  # executions that one page looks at; a rare match may be on the next
# Reads are pipelined, not in a transaction: these need not be of one moment (see `Shard.read_together`).
OPEN_SETS = ("admitted", "backlog", "waiting", "late", "lined")
_SETS_OF_STATE = {
    State.QUEUED: OPEN_SETS,
    State.RUNNING: ("admitted",),
    State.RETRYING: ("waiting",),
}


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


async def list_newest(shard: Shard, workspace: str, **wanted: Any) -> Page:
    """The executions of one workspace, newest first; see :func:`list_everywhere`."""
    return await list_everywhere([(shard, [workspace])], **wanted)


async def list_everywhere(
    of: Sequence[tuple[Shard, Sequence[str]]],
    *,
    state: State | Collection[State] | None = None,
    trigger: str | None = None,
    tag: str | None = None,
    since: int | None = None,
    until: int | None = None,
    cursor: str | None = None,
    limit: int = 50,
) -> Page:
    """The executions of workspaces, by the shard that has them (see ``Shards.split``), newest first.

    The time that the list goes by is the end of finished ones; of open ones when they were made, and the slot
    of those that wait for a free place. ``since`` (inclusive) and ``until`` (exclusive) bound it, in ms.
    ``tag``: only of triggers that have it now. Looks at a bounded number of executions, so a page may hold
    fewer than there are. Raises :class:`InvalidRequest` for a cursor that is none of ours.
    """
    states = frozenset({state} if isinstance(state, State) else state or State)
    after = read_cursor(cursor) if cursor else None
    names = dict.fromkeys(name for one in State if one in states for name in _SETS_OF_STATE.get(one, (one,)))
    streams = [
        _Stream(shard, shard.keys.of(workspace, name))
        for shard, workspaces in of
        for workspace in workspaces
        for name in names
    ]
    shard_of = {workspace: shard for shard, workspaces in of for workspace in workspaces}
    found: list[tuple[Place, Execution]] = []
    batch: list[Place] = []
    seen: set[str] = set()
    last, looked = None, 0
    async for place in _descend(streams, after, since, until):
        last, looked = place, looked + 1
        if place[1] not in seen and (trigger is None or split_execution_id(place[1])[1] == trigger):
            seen.add(place[1])  # it may move from one set to another while they are read
            batch.append(place)
        if looked == _LOOKED_AT or len(batch) >= max(limit + 1 - len(found), _LOAD_LEAST):
            await _take(shard_of, batch, states, tag, found)
            batch = []
            if looked == _LOOKED_AT or len(found) > limit:
                break
    await _take(shard_of, batch, states, tag, found)
    if len(found) > limit:
        last = found[limit - 1][0]
    elif looked < _LOOKED_AT:
        last = None
    return Page([execution for _, execution in found[:limit]], write_cursor(last) if last else None)


async def waits_in(shard: Shard, workspace: str, ids: Sequence[str]) -> list[str | None]:
    """Which set of open executions (see ``app/keys.py``) each is in; None: it is not open any more."""
    async with shard.redis.pipeline(transaction=False) as pipe:
        for id_ in ids:
            for name in OPEN_SETS:
                pipe.zscore(shard.keys.of(workspace, name), id_)
        scores = await pipe.execute()
    size = len(OPEN_SETS)
    return [
        next(
            (name for name, score in zip(OPEN_SETS, scores[i * size :], strict=False) if score is not None),
            None,
        )
        for i in range(len(ids))
    ]


async def places_held(shard: Shard, workspace: str) -> int:
    """How many of its places a workspace's executions hold: ready or running ones."""
    return await reply(shard.redis.zcard(shard.keys.of(workspace, "admitted")))


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


async def _take(
    shard_of: Mapping[str, Shard],
    places: list[Place],
    states: Collection[State],
    tag: str | None,
    found: list[tuple[Place, Execution]],
) -> None:
    """Load executions and keep those in the wanted states: they may have moved on since they were listed."""
    groups: dict[Shard, list[Place]] = {}
    for place in places:
        groups.setdefault(shard_of[split_execution_id(place[1])[0]], []).append(place)
    loaded: dict[Place, Execution | None] = {}
    for shard, some in groups.items():
        wanted = some if tag is None else await _tagged(shard, some, tag)
        loaded |= zip(wanted, await _load(shard, [id_ for _, id_ in wanted]), strict=True)
    for place in places:
        execution = loaded.get(place)
        if execution is not None and execution.state in states:
            found.append((place, execution))


async def _tagged(shard: Shard, places: list[Place], tag: str) -> list[Place]:
    """Those of triggers that have a tag."""
    owners = [split_execution_id(id_)[:2] for _, id_ in places]
    triggers = list(dict.fromkeys(owners))
    async with shard.redis.pipeline(transaction=False) as pipe:
        for workspace, trigger in triggers:
            pipe.hget(shard.keys.of(workspace, "definitions"), trigger)
        packed = await pipe.execute()
    tagged = {
        trigger
        for trigger, definition in zip(triggers, packed, strict=True)
        if definition is not None and tag in definitions.unsealed(shard, definition).tags
    }
    return [place for place, owner in zip(places, owners, strict=True) if owner in tagged]


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
        loaded.append(_execution(shard.sealer, id_, result, job, owner, score, waiting))
    return loaded


def _execution(
    sealer: Sealer,
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
        attempts = _readable(sealer, record.r.attempts)
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
    attempts = _readable(sealer, opened.k.get("attempts", []))
    started = attempts[0].started if attempts else None
    worker = None
    state = State.RETRYING if waiting is not None and attempts else State.QUEUED
    if owner is not None:
        state = State.RUNNING
        token, _, since = owner.decode().rpartition("|")
        worker = _name_of(token.rpartition(":")[0])
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


def _readable(sealer: Sealer, attempts: list[Attempt]) -> list[Attempt]:
    """Attempts with their texts opened, and with their workers' names: of one that was cut off, the script
    knows the identity only."""
    return [
        structs.replace(
            one,
            worker=_name_of(one.worker),
            message=_opened(sealer, one.message),
            snippet=_opened(sealer, one.snippet),
        )
        for one in attempts
    ]


def _opened(sealer: Sealer, stored: str) -> str:
    """A text of an attempt. One that can't be opened keeps nobody from reading the rest."""
    try:
        return sealer.open_text(stored)
    except SealError as error:
        return f"({error})"


def _name_of(identity: str) -> str:
    """A worker's name in what identifies it among those of that name."""
    return _IDENTITY_TAIL.sub("", identity)


class _Stream:
    """A sorted set that is read from its highest score down."""

    __slots__ = ("ended", "key", "places", "read", "shard")

    def __init__(self, shard: Shard, key: str) -> None:
        self.shard = shard
        self.key = key
        self.read = 0  # members so far
        self.places: deque[Place] = deque()
        self.ended = False


async def _descend(
    streams: Sequence[_Stream], after: Place | None, since: int | None, until: int | None
) -> AsyncIterator[Place]:
    """The members of sorted sets as one list, highest first, from a place on (without it)."""
    highest = "+inf" if until is None else f"({until}"
    if after is not None and (until is None or after[0] < until):
        highest = str(after[0])
    lowest = "-inf" if since is None else str(since)
    heads: list[tuple[tuple[int, tuple[int, ...]], int, Place]] = []

    async def read(some: Sequence[_Stream], size: int) -> None:
        async with some[0].shard.redis.pipeline(transaction=False) as pipe:
            for one in some:
                pipe.zrevrangebyscore(one.key, highest, lowest, start=one.read, num=size, withscores=True)
            replies = await pipe.execute()
        for one, members in zip(some, replies, strict=True):
            places = [(int(score), member.decode()) for member, score in members]
            one.places.extend(place for place in places if after is None or place < after)
            one.read += len(members)
            one.ended = len(members) < size

    async def push(number: int) -> None:
        stream = streams[number]
        while not stream.places and not stream.ended:
            await read([stream], _PAGE)
        if stream.places:
            place = stream.places.popleft()
            # The end of an id sorts behind its continuations, as Redis has it.
            order = -place[0], (*(-ord(letter) for letter in place[1]), 1)
            heapq.heappush(heads, (order, number, place))

    for _, own in groupby(streams, key=lambda stream: stream.shard):
        rest = list(own)
        for start in range(0, len(rest), _READ_AT_ONCE):
            some = rest[start : start + _READ_AT_ONCE]
            await read(some, _PAGE if len(streams) < 2 * len(State) + 1 else _HEAD)
    for number in range(len(streams)):
        await push(number)
    while heads:
        _, number, place = heapq.heappop(heads)
        yield place
        await push(number)
