"""Whether the API runs, whether it can work, and how the whole deployment stands."""

from __future__ import annotations

import time
from typing import Annotated, Literal

from redis.exceptions import RedisError

from app.api.fields import Answer, about, moment
from app.api.operations import Call, Noun
from app.clock import rfc3339
from app.errors import Forbidden, WrongDeployment
from app.formats import Moment
from app.health_checks import Facts, Finding, Status, examine, unreachable, verdict
from app.store import Shards, fleet, readiness, server, witness
from app.store.workers import Seen

noun = Noun("health", "Whether the API runs, and how the whole stands.")


class Health(Answer, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"
    timestamp: Moment


class RedisHealth(Answer, frozen=True, kw_only=True):
    """The Redis server, as it describes itself; of a cluster the node that is fullest."""

    version: Annotated[str, about("Empty: it does not allow INFO, and nothing here is known.")]
    role: Annotated[str, about("`master` is the primary.")]
    replicas: Annotated[int, about("Replicas that are connected.")]
    used_memory_bytes: int
    max_memory_bytes: Annotated[int, about("0: no bound.")]
    eviction_policy: Annotated[str, about("Anything but `noeviction` may lose triggers.")]
    append_only: Annotated[bool, about("Whether each change goes into a file.")]
    persisted: Annotated[bool, about("Whether the last write to disk went well.")]


class WorkerHealth(Answer, frozen=True, kw_only=True):
    """A worker, as of its last heartbeat."""

    name: str
    state: Annotated[Literal["alive", "silent"], about("`silent`: its heartbeats have stopped.")]
    version: str
    started: Moment
    last_heartbeat: Moment
    running: Annotated[int, about("Requests that it is sending.")]
    capacity: Annotated[int, about("Requests that it sends at once at most.")]
    tick_lag_seconds: Annotated[float, about("How late its ticker came to a slot, lately, at most.")]


class Behind(Answer, frozen=True, kw_only=True):
    """Something that is behind its time."""

    workspace_id: str
    trigger_id: str | None
    since: Moment
    seconds: float


class TickerHealth(Answer, frozen=True, kw_only=True):
    """The ticker, which turns slots into executions."""

    last_seen: Annotated[Moment | None, about("When a worker last asked for work.")]
    lag_seconds: Annotated[float, about("How long the earliest slot that is not fired yet has waited.")]
    overdue_slots: Annotated[int, about("Triggers whose slot has come and is not fired yet.")]
    oldest_overdue: Annotated[Behind | None, about("The earliest of them.")]


class QueueHealth(Answer, frozen=True, kw_only=True):
    """Executions that wait for a worker."""

    depth: Annotated[int, about("How many are ready.")]
    oldest_ready: Annotated[Behind | None, about("The first of them.")]
    running: Annotated[int, about("Requests on their way.")]
    capacity: Annotated[int, about("Requests that all workers send at once at most.")]


class DetailedHealth(Answer, frozen=True, kw_only=True):
    """How the whole deployment stands. With the status `down` the answer's code is 503."""

    status: Status
    reasons: Annotated[list[str], about("What is wrong, the worst first.")]
    timestamp: Moment
    redis: Annotated[RedisHealth | None, about("Null where it can't be reached.")] = None
    workers: tuple[WorkerHealth, ...] = ()
    ticker: TickerHealth | None = None
    queue: QueueHealth | None = None


@noun.operation("GET", "/health", scope="open")
async def health() -> Health:
    """The process answers; this says nothing about Redis."""
    return Health(timestamp=rfc3339(int(time.time() * 1000)))


@noun.operation("GET", "/live", scope="open")
async def live() -> Health:
    """The process answers: a probe that says when to restart it, which a lost Redis is no reason for."""
    return Health(timestamp=rfc3339(int(time.time() * 1000)))


@noun.operation("GET", "/ready", scope="open")
async def ready(shards: Shards) -> Health:
    """Redis answers and takes writes, and the scripts are loaded: a probe that says when to send requests.

    On a cluster the node of the first shard, without which no call is answered: when another is away, the
    workspaces of the others go on.
    """
    await readiness.check_ready([shards.first])
    return Health(timestamp=rfc3339(int(time.time() * 1000)))


@noun.operation("GET", "/health/detailed", status=(200, 503), errors=(Forbidden,))
async def detailed_health(call: Call) -> DetailedHealth:
    """Redis, each worker, the ticker and the queue; and what is wrong. Needs `read` for all workspaces."""
    call.caller.need_everywhere("read")
    shards: Shards = call.request.app.state.shards  # not declared: a Redis that is away is part of the answer
    try:
        await shards.verify()
        found = await _look(shards)
    except WrongDeployment as error:
        found = _answer([Finding("down", str(error))])
    except (RedisError, OSError) as error:
        found = _answer(unreachable(str(error) or type(error).__name__))
    if found.status == "down":
        call.status = 503
    return found


def _answer(findings: list[Finding]) -> DetailedHealth:
    return DetailedHealth(
        status=verdict(findings),
        reasons=[one.reason for one in findings],
        timestamp=rfc3339(int(time.time() * 1000)),
    )


async def _look(shards: Shards) -> DetailedHealth:
    all_ = await fleet.read(shards)
    readable = all_.readable(shards)
    servers = await server.look_at_all(readable)
    refused = ""
    try:
        await readiness.check_ready(readable)
    except RedisError as error:
        refused = str(error) or type(error).__name__
    stand = {int(one.keys.shard): await witness.status(one) for one in readable}
    findings = examine(
        Facts(
            takes_writes=refused,
            role=next((one.role for one in servers if one.role not in ("", "master")), "master"),
            warnings=list(dict.fromkeys(warning for one in servers for warning in one.warnings())),
            fullness=servers[0].fullness,
            holds=witness.told_holds(stand, len(shards)),
            alive=len(all_.alive),
            unserved=all_.unserved,
            unread=all_.unread,
            silent=[(one.facts.name, all_.now - one.at) for one in all_.missing],
            keyless=[one.facts.name for one in all_.alive if one.lacks_key(all_.now)],
            ticker_lag=all_.ticker_lag,
            queue_wait=all_.queue_wait,
            running=all_.running,
            capacity=all_.capacity,
        )
    )
    return DetailedHealth(
        status=verdict(findings),
        reasons=[one.reason for one in findings],
        timestamp=rfc3339(all_.now),
        redis=_redis(servers[0]),
        workers=tuple(_worker(one, all_.now) for one in all_.workers),
        ticker=TickerHealth(
            last_seen=moment(all_.pulse),
            lag_seconds=all_.ticker_lag / 1000,
            overdue_slots=all_.overdue,
            oldest_overdue=_behind(all_.oldest_overdue, all_.now),
        ),
        queue=QueueHealth(
            depth=all_.ready,
            oldest_ready=_behind(all_.oldest_ready, all_.now),
            running=all_.running,
            capacity=all_.capacity,
        ),
    )


def _redis(found: server.Server) -> RedisHealth:
    return RedisHealth(
        version=found.version,
        role=found.role,
        replicas=found.replicas,
        used_memory_bytes=found.used_memory,
        max_memory_bytes=found.max_memory,
        eviction_policy=found.eviction,
        append_only=found.append_only,
        persisted=found.persisted,
    )


def _worker(one: Seen, now: int) -> WorkerHealth:
    return WorkerHealth(
        name=one.facts.name,
        state="silent" if one.is_silent(now) else "alive",
        version=one.facts.version,
        started=rfc3339(one.facts.started),
        last_heartbeat=rfc3339(one.at),
        running=one.facts.running,
        capacity=one.facts.capacity,
        tick_lag_seconds=one.facts.tick_lag / 1000,
    )


def _behind(one: fleet.Waiting | None, now: int) -> Behind | None:
    if one is None:
        return None
    return Behind(
        workspace_id=one.workspace,
        trigger_id=one.trigger,
        since=rfc3339(one.since),
        seconds=(now - one.since) / 1000,
    )
