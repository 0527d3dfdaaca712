"""Every Redis key, with its type. The Lua scripts build theirs in ``store/lua/_keys.lua``, from one root.

A workspace lives in one shard, and every key of a shard carries the shard's hash tag, so that a script
touches one node only. Ids never contain ``:`` (see :data:`app.models.ID_PATTERN`), which therefore separates.
"""

from __future__ import annotations

import hashlib
import re

FINISHED_STATES = ("succeeded", "failed", "cancelled", "skipped", "missed")


FIRST = "cs:{0}:"  # what keys of the first shard begin with
# HASH: what every process has to agree on: shards (their number), format (of what is stored), moving (the
# number that workspaces are being moved to), counted:{SHARD} (its totals are in the first shard's already)
DEPLOYMENT = f"{FIRST}deployment"


def shard_number(workspace: str, shards: int) -> int:
    """The shard of a workspace, 0 to ``shards`` - 1. One more shard moves one workspace in that number.

    Jump consistent hash (Lamping and Veach, 2014) of the first eight bytes of the id's SHA-256.
    """
    key = int.from_bytes(hashlib.sha256(workspace.encode()).digest()[:8])
    found, following = 0, 0
    while following < shards:
        found = following
        key = key * 2862933555777941757 + 1 & 0xFFFF_FFFF_FFFF_FFFF
        following = int((found + 1) * (1 << 31) / ((key >> 33) + 1))
    return found


class Keys:
    """The keys of one shard."""

    def __init__(self, shard: int = 0) -> None:
        self.shard = shard
        self.tag = f"{{{shard}}}"
        self.prefix = f"cs:{self.tag}:"
        # HASH: serial (the last number given to a change), pulse (when a worker last called, ms),
        # takeover_after (ms), strays (queue entries that were none of ours), and what the witness needs:
        # epoch, beat, … (see ``store/lua/_witness.lua``). Every script is routed by it.
        self.root = f"{self.prefix}shard"
        # ZSET: beat → its time, ms; the last ones
        self.beats = f"{self.prefix}beats"
        # ZSET: workspace → the earliest slot in its own due index, ms
        self.due = f"{self.prefix}due"
        # ZSET: arq's queue: arq job id → ready time of a queued or retrying execution, lease expiry of a
        # running one, ms
        self.queue = f"{self.prefix}queue"
        # ZSET: workspace → 0, in the order of their ids: the workspaces that exist
        self.workspaces = f"{self.prefix}workspaces"
        # ZSET: workspace with caught-up executions in its `late` → when it last had its turn, ms
        self.late = f"{self.prefix}late"
        # ZSET: workspace whose backlog waits for its rate → when the next is let in, ms
        self.paced = f"{self.prefix}paced"
        # SET: target hosts that executions wait for (see ``store/lua/_host.lua``)
        self.hosts = f"{self.prefix}hosts"
        # Chores are ZSETs of what is to be done and when (ms); whoever takes one moves it a lease ahead.
        self.refills = f"{self.prefix}refills"  # workspace:trigger whose held slots run low or out
        self.clears = f"{self.prefix}clears"  # workspace with executions of removed triggers
        self.trims = f"{self.prefix}trims"  # workspace with finished executions that get too old
        self.erases = f"{self.prefix}erases"  # workspace that is being erased
        # ZSET: workspace → version of what its requests go out with beside its triggers, if anything
        self.outgoing = f"{self.prefix}outgoing"
        # HASH: what happened since ever, over all workspaces → how often: due, each final state (with its
        # reason), takeovers
        self.totals = f"{self.prefix}totals"
        # ZSET: worker → its last heartbeat, ms; HASH: worker → what it told then (msgpack)
        self.workers = f"{self.prefix}workers"
        self.worker_facts = f"{self.prefix}worker-facts"
        # ZSET: worker that is on duty → until when, ms
        self.seats = f"{self.prefix}seats"
        # STRING: that Redis takes writes was tried; it goes by itself
        self.write_probe = f"{self.prefix}write-probe"
        # What belongs to no shard lies in the first one, whose tag it carries, so that every process finds it
        # however many shards there are.
        # HASH: API key's id → the key (msgpack, see ``app/auth/keys.py``)
        self.api_keys = f"{FIRST}api-keys"
        # HASH: API key's id → when it was last used, ms
        self.api_key_uses = f"{FIRST}api-key-uses"
        # STREAM: changes that belong to no workspace, or to one that is gone (see ``app/store/audit.py``)
        self.audit = f"{FIRST}audit"
        # PUB/SUB channel: something became due earlier than a sleeping worker knows
        self.wake = f"{self.prefix}wake"

    def job_id(self, execution_id: str) -> str:
        """arq's id of an execution's job."""
        return f"{self.tag}:{execution_id}"

    def of(self, workspace: str, name: str) -> str:
        """A key of one workspace:

        ``meta``         HASH: revision; serial of the last change, and what it replied (replaced, edited);
                         positions (the next one); bytes (revision:bytes of its definitions, see
                         ``app/store/sizes.py``); requests, open_bytes, letter_bytes (see
                         ``store/lua/_requests.lua``); created (ms); paused (since ms, note) and spans (former
                         pauses); erasing, erased_to (a cursor); opens (when its rate lets the next
                         execution in, ms); what the workspace sets itself (see ``app/store/workspaces.py``)
        ``definitions``  HASH: trigger → definition (msgpack)
        ``erasing``      HASH: the same, while the workspace is being erased
        ``states``       HASH: trigger → what the ticker needs beside the due index (msgpack array, see
                         ``store/lua/_keys.lua``)
        ``due``          ZSET: trigger → its next slot, ms
        ``dry``          SET: triggers that hold no slot until they are refilled
        ``finished``     SET: triggers that have no further slot
        ``disabled``     HASH: trigger that is not enabled → since when, ms
        ``errors``       HASH: trigger → why its next slot can't be computed
        ``pauses``       HASH: trigger → its pause (msgpack array: since ms, note, born)
        ``exceptions``   HASH: trigger → its exceptional slots as runs (msgpack, see ``store/lua/_end.lua``)
        ``last``         HASH: trigger → its last slots (packed, see ``store/lua/_end.lua``)
        ``revisions``    HASH: revision → its head (msgpack), of the last ones
        ``undo``         HASH: revision → what makes the set before it out of the set after it (compressed)
        ``admitted``     ZSET: execution queued or running in arq's queue → when it was made, ms
        ``backlog``      ZSET: execution that waits for a free place → its slot, ms
        ``waiting``      ZSET: execution in arq's queue with a later time and no place → when it was made, ms
        ``late``         ZSET: caught-up execution that waits until no live one is ready → its slot, ms
        ``lined``        ZSET: execution that waits for its turn in its trigger's line → when it was made, ms
        ``line:T``       ZSET: execution that waits for its turn → its slot, ms
        ``active:T``     SET: executions that have their turn
        ``requests``     HASH: execution → the request that it has of its own; of a dead letter as it was sent
        ``retried``      HASH: dead letter → the execution that retried it
        ``succeeded`` …  ZSET per final state: finished execution → when it finished, ms
        ``day:N``        HASH: trigger:what → count, for the UTC day N; :what of all triggers
        ``recent``       STRING: durations and latenesses that are not yet in the timings (packed)
        ``timings:N``    HASH: trigger (empty: all) → durations and latenesses of the UTC day N (packed)
        ``outgoing``     STRING: what requests go out with beside the triggers (sealed msgpack, see
                         ``app/outgoing.py``), at the version that the shard's ``outgoing`` has
        ``audit``        STREAM: changes, the last ones (see ``app/store/audit.py``)
        ``idempotency:K``  STRING: what a call with an idempotency key asked for, and its reply
        """
        return f"{self.prefix}w:{workspace}:{name}"

    def staged(self, workspace: str, serial: int, part: str) -> str:
        """A key of a trigger set that is being prepared: like the live one."""
        return self.of(workspace, f"stage:{serial}:{part}")

    def host(self, host: str) -> str:
        """ZSET: worker|execution that has a place at a target host → until when, ms; it is renewed."""
        return f"{self.prefix}host:{host}"

    def host_line(self, host: str) -> str:
        """ZSET: execution that waits for a place at a target host → its slot, ms."""
        return f"{self.prefix}hostline:{host}"

    def limit(self, what: str, name: str) -> str:
        """STRING: a rate limit of the API (``what``: key, workspace), as the time at which all its places are
        free again, ms; it goes then."""
        return f"{self.prefix}limit:{what}:{name}"

    def arq_job(self, execution_id: str) -> str:
        """STRING: an open execution, in arq's format."""
        return f"arq:job:{self.job_id(execution_id)}"

    def arq_in_progress(self, execution_id: str) -> str:
        """STRING: who runs an execution: token and start, see ``store/lua/claim_ready.lua``."""
        return f"arq:in-progress:{self.job_id(execution_id)}"

    def arq_result(self, execution_id: str) -> str:
        """STRING: a finished execution, in arq's format."""
        return f"arq:result:{self.job_id(execution_id)}"


def execution_id(workspace: str, trigger: str, slot_ms: int) -> str:
    """The id of a slot's execution: a function of the three, the same on every shard and after any loss."""
    return f"{workspace}:{trigger}:{slot_ms}"


def assigned_time(execution: str, slot_ms: int, jitter_ms: int) -> int:
    """When a slot's execution may start, ms: a stable part of its trigger's jitter after the slot.

    The same as ``ready_at`` in ``store/lua/_open.lua``.
    """
    if not jitter_ms:
        return slot_ms
    return slot_ms + int(hashlib.sha1(execution.encode(), usedforsecurity=False).hexdigest()[:8], 16) % (
        jitter_ms + 1
    )


def own_execution_id(workspace: str, trigger: str, slot_ms: int, kind: str, token: str) -> str:
    """The id of what a person asked for (``kind``: run, backfill, retry); it carries its slot."""
    return f"{workspace}:{trigger}:{slot_ms}.{kind}-{token}"


_EXECUTION_ID = re.compile(r"([^:]+):([^:]+):(\d{1,15})(?:\.([a-z]+)-[0-9a-z]+)?\Z")


def split_execution_id(execution: str) -> tuple[str, str, int]:
    """Workspace, trigger and slot of an execution id; raises ``ValueError`` when it is none."""
    match = _EXECUTION_ID.match(execution)
    if match is None:
        raise ValueError("not the id of an execution")
    return match[1], match[2], int(match[3])


def is_of_slot(execution: str) -> bool:
    """Whether an id of ours is of a slot of its schedule, and not of what a person asked for."""
    return "." not in execution[execution.rindex(":") :]


def kind_of(execution: str) -> str | None:
    """``run``, ``backfill`` or ``retry`` for what a person asked for; None for a slot of the schedule."""
    match = _EXECUTION_ID.match(execution)
    return match[4] if match else None
