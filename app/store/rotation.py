"""Sealing anew what is stored, after the keys have changed, while everything goes on.

Each value is read, and put back by compare-and-set, some at a time. What is written meanwhile is written by
processes that have the new keys already. Whatever moved while it was looked for is found by another pass:
they go on until one finds nothing to do. So it can be interrupted at any point, and done again.
"""

from __future__ import annotations

import logging
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct
from redis.exceptions import RedisError

from app.errors import SealError
from app.keys import FINISHED_STATES
from app.models import FailureKind
from app.sealing import Sealer
from app.store import revisions, workspaces
from app.store.shard import Shard, pack, reply, unpack
from app.store.shards import Shards

log = logging.getLogger(__name__)

_AT_ONCE = 100  # values a script call
_PASSES = 5
_COPY_SECONDS = 600  # the copy of an audit goes by itself when its maker dies
_LOOKED_AT = 50  # workspaces, at the start of a process
_LOOK_AGAIN_SECONDS = 5.0  # at a Redis that was away
_FAR_SECONDS = 3600.0
_KIND, _MESSAGE, _SNIPPET = 3, 4, 5  # in an attempt, see app/models.py
# What scripts say of attempts of these kinds, and who lacks a key, is written plain, and tells nothing.
_PLAIN_KINDS = (
    FailureKind.WORKER_LOST,
    FailureKind.UNKNOWN_OUTCOME,
    FailureKind.CANCELLED,
    FailureKind.KEY,
)
# As executions move on, and those that wait again twice: what moves once meanwhile is met all the same.
_EXECUTION_SETS = ("lined", "waiting", "backlog", "late", "admitted", "waiting", *FINISHED_STATES)

Reseal = Callable[[Sealer, bytes], bytes | None]  # a value as it should be stored; None: it is


class Rotated(Struct, frozen=True):
    """What a rotation did, each by the kind of value."""

    resealed: Mapping[str, int]
    unreadable: Mapping[str, int]  # their keys are not there
    complete: bool  # the last pass found nothing left to do


def _reseal(sealer: Sealer, stored: bytes) -> bytes | None:
    return None if sealer.is_current(stored) else sealer.seal(sealer.open(stored))


def _reseal_record(sealer: Sealer, stored: bytes) -> bytes | None:
    """The same of arq's job or result, in which the texts of attempts are sealed."""
    try:
        record = unpack(stored)
        attempts = record["r"]["attempts"] if "r" in record else record["k"].get("attempts", [])
    except (msgspec.DecodeError, LookupError, TypeError):  # none of ours
        return None
    changed = False
    for attempt in attempts:
        for place in (_MESSAGE, _SNIPPET):
            text = attempt[place]
            may_be_plain = place == _MESSAGE and attempt[_KIND] in _PLAIN_KINDS
            if not sealer.is_current_text(text) and (not may_be_plain or sealer.is_sealed_text(text)):
                attempt[place] = sealer.seal_text(sealer.open_text(text))
                changed = True
    return pack(record) if changed else None


# The hashes of a workspace that hold sealed values.
_HASHES: dict[str, Reseal] = {
    "definitions": _reseal,
    "requests": _reseal,
    "undo": revisions.reseal_undo,
}


_STRINGS = ("outgoing",)  # and the strings: a workspace's secrets, where it has any


async def rotate(shards: Shards, sealer: Sealer) -> Rotated:
    """Store everything as ``sealer`` seals it: what another key has sealed, and what is plain."""
    resealed: Counter[str] = Counter()
    unreadable: Counter[str] = Counter()
    complete = True
    for shard in shards:
        one = await _rotate_shard(shard, sealer, resealed, is_first=shard is shards.first)
        unreadable.update(one.unreadable)
        complete = complete and not one.found
    return Rotated(resealed, unreadable, complete)


async def _rotate_shard(shard: Shard, sealer: Sealer, resealed: Counter[str], is_first: bool) -> _Pass:
    """Go over a shard until there is nothing to do, but not for ever; returns the last pass."""
    for _ in range(_PASSES):
        one = _Pass(shard, sealer)
        await one.run(is_first)
        resealed.update(one.resealed)
        if not one.found:
            break
    return one


class _Pass:
    """One look at everything in a shard."""

    def __init__(self, shard: Shard, sealer: Sealer) -> None:
        self._shard, self._sealer = shard, sealer
        self.found = 0  # values to be stored anew
        self.resealed: Counter[str] = Counter()
        self.unreadable: Counter[str] = Counter()

    async def run(self, is_first: bool) -> None:
        """Look, and seal anew; the first shard also has what belongs to no workspace."""
        shard = self._shard
        for workspace in await workspaces.all_ids(shard):
            for name, reseal in _HASHES.items():
                async for page in self._fields(workspace, name):
                    await self._store(workspace, name, name, page, reseal)
            for name in _STRINGS:
                key = shard.keys.of(workspace, name)
                value = await shard.redis.get(key)
                await self._store(workspace, "", name, [(key, value)] if value else [], _reseal)
            for name in _EXECUTION_SETS:
                async for ids in self._members(workspace, name):
                    keys = [*map(shard.keys.arq_job, ids), *map(shard.keys.arq_result, ids)]
                    values = await shard.redis.mget(keys)
                    found = [(key, value) for key, value in zip(keys, values, strict=True) if value]
                    await self._store(workspace, "", "attempts", found, _reseal_record)
            await self._reseal_audit(shard.keys.of(workspace, "audit"))
        if is_first:
            await self._reseal_audit(shard.keys.audit)

    async def _fields(self, workspace: str, name: str) -> AsyncIterator[list[tuple[str, bytes]]]:
        key, cursor = self._shard.keys.of(workspace, name), 0
        while True:
            cursor, page = await reply(self._shard.redis.hscan(key, cursor, count=_AT_ONCE))
            yield [(field.decode(), value) for field, value in page.items()]
            if not cursor:
                return

    async def _members(self, workspace: str, name: str) -> AsyncIterator[list[str]]:
        key, cursor = self._shard.keys.of(workspace, name), 0
        while True:
            cursor, page = await self._shard.redis.zscan(key, cursor, count=_AT_ONCE)
            if page:
                yield [member.decode() for member, _ in page]
            if not cursor:
                return

    async def _store(
        self, workspace: str, name: str, kind: str, values: Iterable[tuple[str, bytes]], reseal: Reseal
    ) -> None:
        changed: list[str | bytes] = []
        for field, old in values:
            new = self._try(kind, reseal, old)
            if new is not None:
                changed += [field, old, new]
        for start in range(0, len(changed), 3 * _AT_ONCE):
            some = changed[start : start + 3 * _AT_ONCE]
            self.resealed[kind] += await self._shard.run("reseal_values", workspace, name, *some)

    async def _reseal_audit(self, stream: str) -> None:
        """Entries of a stream can't be changed: a copy of all takes its place."""
        redis, copy, last, changed = self._shard.redis, f"{stream}:{secrets.token_hex(8)}", "", 0
        if not await self._is_outdated(stream):
            return
        async for page in self._entries(stream):
            async with redis.pipeline(transaction=False) as pipe:
                for id_, fields in page:
                    new = self._try("audit", _reseal, fields[b"entry"])
                    changed += new is not None
                    pipe.xadd(copy, {**fields, b"entry": new or fields[b"entry"]}, id=id_)
                    last = id_.decode()
                pipe.expire(copy, _COPY_SECONDS)
                await pipe.execute()
        if changed and await self._shard.run("reseal_audit", last, keys=(stream, copy)):
            self.resealed["audit"] += changed
        else:
            await redis.unlink(copy)

    async def _is_outdated(self, stream: str) -> bool:
        async for page in self._entries(stream):
            if not all(self._sealer.is_current(fields[b"entry"]) for _, fields in page):
                return True
        return False

    async def _entries(self, stream: str) -> AsyncIterator[list[tuple[bytes, dict[Any, bytes]]]]:
        begin = "-"
        while page := await self._shard.redis.xrange(stream, begin, count=_AT_ONCE):
            yield page
            begin = f"({page[-1][0].decode()}"

    def _try(self, kind: str, reseal: Reseal, stored: bytes) -> bytes | None:
        try:
            new = reseal(self._sealer, stored)
        except SealError:
            self.unreadable[kind] += 1
            return None
        self.found += new is not None
        return new


class KeyCheck:
    """Says in the log what is wrong with the keys, as a process starts; of a shard that is away, later."""

    def __init__(self, shards: Iterable[Shard], pause_seconds: float = _LOOK_AGAIN_SECONDS) -> None:
        self._left = list(shards)
        self._pause_seconds = pause_seconds

    async def once(self) -> float:
        """Look at what has not been seen; the body of a loop."""
        asked = {shard: await _seen_of(shard) for shard in self._left}
        for warning in _told(sum(filter(None, asked.values()), Counter())):
            log.warning("%s", warning)
        self._left = [shard for shard, seen in asked.items() if seen is None]
        return self._pause_seconds if self._left else _FAR_SECONDS


async def warnings(shard: Shard) -> list[str]:
    """What is wrong with the keys, from a look at some definitions of a shard."""
    return _told(await _look(shard))


async def _seen_of(shard: Shard) -> Counter[str] | None:
    try:
        return await _look(shard)
    except (RedisError, OSError):
        return None


async def _look(shard: Shard) -> Counter[str]:
    """Some definitions: how many there are, how many can't be opened, and how many have another key."""
    redis, of = shard.redis, shard.keys.of
    some = await reply(redis.zrandmember(shard.keys.workspaces, _LOOKED_AT))
    async with redis.pipeline(transaction=False) as pipe:
        for workspace in some:
            pipe.hrandfield(of(workspace.decode(), "definitions"), 1, withvalues=True)
        found = [field[1] for field in await pipe.execute() if field]
    seen = Counter(found=len(found))
    for stored in found:
        try:
            shard.sealer.open(stored)
            seen["outdated"] += not shard.sealer.is_current(stored)
        except SealError:
            seen["unreadable"] += 1
    return seen


def _told(seen: Counter[str]) -> list[str]:
    told = []
    if unreadable := seen["unreadable"]:
        told.append(
            f"{unreadable} of {seen['found']} definitions seen CAN'T BE DECRYPTED, so nothing of theirs is"
            " sent here: CRONSPACE_ENCRYPTION_KEYS lacks their key"
        )
    if outdated := seen["outdated"]:
        told.append(
            f"{outdated} of {seen['found']} definitions seen are not encrypted with the first key of"
            " CRONSPACE_ENCRYPTION_KEYS: run `cronspace rotate-keys`"
        )
    return told
