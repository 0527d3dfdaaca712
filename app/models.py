"""What the product is about, as types: the trigger as stored, and what became of its slots."""

from __future__ import annotations

import re
from enum import StrEnum
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

ID_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z"
is_id = re.compile(ID_PATTERN).match

METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
BODYLESS = frozenset({"GET", "DELETE"})

Id = Annotated[str, Meta(pattern=ID_PATTERN)]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]

OverlapPolicy = Literal["allow", "skip", "queue", "replace"]
CatchUp = Literal["", "all", "latest"]
RetryStrategy = Literal["exponential", "linear", "fixed"]
Delivery = Literal["at_least_once", "at_most_once"]
GapPolicy = Literal["", "after", "skip"]
RepeatPolicy = Literal["", "first", "second", "both"]


class Definition(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A trigger's definition as it is stored: equal definitions have equal bytes (:func:`pack_definition`).

    Four groups: when (schedule), what (request), how (policies), and what is for people. Defaults are left
    out of the bytes, so that a new field changes no stored definition. Exactly one of ``cron``, ``interval``
    and ``at`` is set. Moments are ms since the epoch, 0 for none.
    """

    # when
    cron: str = ""
    interval: int = 0  # seconds
    at: int = 0
    timezone: str = "UTC"
    dst_gap: GapPolicy = ""  # empty: as in Debian's cron
    dst_repeat: RepeatPolicy = ""
    starts_at: int = 0
    ends_at: int = 0  # the last moment at which a slot may be
    max_runs: int = 0  # 0: no bound
    jitter_seconds: int = 0
    start_deadline_seconds: float | None = None  # None: the setting's
    enabled: bool = True
    # what
    url: str
    method: Method
    headers: dict[str, str] = {}
    payload: bytes = b""  # JSON text without insignificant space; empty: none
    timeout_seconds: float = 30.0
    # how
    overlap_policy: OverlapPolicy = "allow"
    queue_limit: int = 1  # with overlap_policy queue: how many wait
    catch_up_missed: CatchUp = ""
    catch_up_window_seconds: int = 86_400
    delivery: Delivery = "at_least_once"
    max_retries: int = 3
    retry_strategy: RetryStrategy = "exponential"
    retry_delay_seconds: float | None = None  # None: the strategy's own: 1, 5, 60
    retry_max_delay_seconds: float = 3600.0
    retry_jitter: float = 0.0  # the part of a delay that is random, 0 to 1
    retry_on: tuple[str, ...] = ()  # statuses (503, 5xx, 500-599) and failure kinds; empty: the usual ones
    success_codes: tuple[str, ...] = ()  # statuses; empty: 2xx
    disable_on_gone: bool = False
    # for people
    name: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()


_pack = msgspec.msgpack.Encoder()
_unpack_definition = msgspec.msgpack.Decoder(Definition)


_WITH_DEFAULT = {
    field.name: field.default
    for field in msgspec.structs.fields(Definition)
    if isinstance(field.default, str | float | int) and not isinstance(field.default, bool)
}
_values = attrgetter(*_WITH_DEFAULT)


def pack_definition(definition: Definition) -> bytes:
    """The bytes that are stored, and compared to find out whether a trigger changed."""
    # msgspec leaves out what is the default object itself, not what equals it.
    usual = {
        name: default
        for (name, default), value in zip(_WITH_DEFAULT.items(), _values(definition), strict=True)
        if value is not default and value == default
    }
    return _pack.encode(msgspec.structs.replace(definition, **usual) if usual else definition)


def unpack_definition(packed: bytes) -> Definition:
    """The reverse of :func:`pack_definition`."""
    return _unpack_definition.decode(packed)


class State(StrEnum):
    """What an execution is at; the last five are final."""

    QUEUED = "queued"
    RUNNING = "running"
    RETRYING = "retrying"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    MISSED = "missed"


class FailureKind(StrEnum):
    """Why an attempt failed."""

    DNS = "dns"
    BLOCKED = "blocked"  # the egress policy does not let it through: nothing was sent, nor is it again
    SECRET = "secret"  # a named secret is missing, or can't stand where it is used: the same
    KEY = "key"  # this worker can't open what it would send: nothing was sent, and another may have the key
    CONNECT = "connect"
    TLS = "tls"
    TIMEOUT = "timeout"
    PROTOCOL = "protocol"
    STATUS = "status"
    INTERNAL = "internal"  # a definition that this worker can't send: our fault, not the target's
    WORKER_LOST = "worker_lost"  # the worker died, or lost its lease: the outcome is unknown
    UNKNOWN_OUTCOME = "unknown_outcome"  # the same, where the trigger says at most once: not sent again
    CANCELLED = "cancelled"  # cut off: a person, or the next slot of an overlap policy, cancelled it


KEY_WAIT_MS = 3_600_000  # for so long what a worker has no key for waits for one that has it


class Standing(StrEnum):
    """How a trigger stands; what comes first here hides what comes after."""

    DISABLED = "disabled"
    PAUSED = "paused"
    FINISHED = "finished"  # no further slot: sent, `ends_at` or `max_runs` reached
    ERROR = "error"  # its next slot can't be computed
    ACTIVE = "active"


class Pause(Struct, frozen=True):
    """An operator's hold on a trigger or a workspace."""

    since: int  # ms
    note: str


class LastSlot(Struct, frozen=True):
    """What became of one of a trigger's last slots; this outlives its execution. Times in ms."""

    slot: int
    state: State
    status: int  # the target's last answer; 0: none
    lateness: int
    duration: int


class Trigger(Struct, frozen=True, kw_only=True):
    """A stored trigger with its place in the schedule. Times are ms since the epoch."""

    id: str
    definition: Definition
    position: int
    version: int  # serial of the change that last altered it
    standing: Standing
    next_slot: int | None
    error: str | None = None
    pause: Pause | None = None
    disabled_since: int | None = None
    runs: int = 0  # executions made, counted where `max_runs` bounds them
    anchor: int = 0  # from where an interval counts; 0: from `starts_at`, or it is none
    last: LastSlot | None = None  # read where it is asked for


class TriggerSet(Struct, frozen=True):
    """A workspace's whole set, in the order in which it was declared."""

    revision: int
    triggers: list[Trigger]


class Changes(Struct, frozen=True, kw_only=True):
    """What a replace did to the triggers."""

    created: int
    updated: int
    unchanged: int
    deleted: int


class Replaced(Struct, frozen=True, kw_only=True):
    """The outcome of a replace; ``next_slots`` in the order of the given triggers."""

    revision: int
    removed: int
    added: int
    changes: Changes
    next_slots: list[int | None]


class Attempt(Struct, frozen=True, array_like=True):
    """One HTTP request, as it is stored; the scripts write these as arrays in this order."""

    started: int  # ms since the epoch, by Redis's clock
    duration: int  # ms
    status: int = 0  # 0: no answer
    kind: str = ""  # a FailureKind, or empty
    message: str = ""
    snippet: str = ""  # the beginning of the response
    worker: str = ""


class Execution(Struct, frozen=True, kw_only=True):
    """What became of one slot. Times are ms since the epoch; None where not reached yet."""

    id: str
    workspace: str
    trigger: str
    state: State
    slot: int
    queued: int | None = None
    started: int | None = None
    finished: int | None = None
    next_attempt: int | None = None
    worker: str | None = None
    reason: str | None = None
    attempts: list[Attempt] = []


class ArqJob(Struct, frozen=True):
    """An open execution in arq's format: what ``arq.jobs.deserialize_job`` reads."""

    t: int  # attempts made
    f: str
    a: list[Any]  # workspace, trigger, slot, born; marks and dead letter where there are any
    k: dict[str, list[Attempt]]  # {} or {"attempts": …}
    et: int  # when it was queued, ms


class Outcome(Struct, frozen=True):
    """The inner record of a finished execution."""

    state: State
    reason: str
    attempts: list[Attempt]


class ArqResult(Struct, frozen=True):
    """A finished execution in arq's format: what ``arq.jobs.deserialize_result`` reads."""

    a: list[Any]
    et: int
    r: Outcome
    st: int
    ft: int
