"""Every metric that there is; docs/observability.md explains them, and a test holds the two together.

Labels are bounded: states, reasons, kinds of failure, versions. Nothing of a trigger or a URL is a label;
workspaces are one only up to ``CRONSPACE_METRICS_WORKSPACES``.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Kind = Literal["counter", "gauge", "histogram"]

OTHER_WORKSPACES = "_other"  # no workspace's id begins like this


class Metric(Struct, frozen=True, kw_only=True):
    """One metric. Counters end in ``_total``, times are in seconds."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()  # of a histogram: upper bounds, ascending


def _counter(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=f"cronspace_{name}_total", kind="counter", help=help, labels=labels)


def _gauge(name: str, help: str, *labels: str) -> Metric:
    return Metric(name=f"cronspace_{name}", kind="gauge", help=help, labels=labels)


def _histogram(name: str, help: str, buckets: tuple[float, ...]) -> Metric:
    return Metric(name=f"cronspace_{name}_seconds", kind="histogram", help=help, buckets=buckets)


_SHORT = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_LONG = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0)

# Of every process.
BUILD_INFO = _gauge("build_info", "Always 1: what runs.", "version", "python")
REDIS_ERRORS = _counter("redis_errors", "Calls that Redis failed, as this process met them.", "kind")

OF_PROCESS = (BUILD_INFO, REDIS_ERRORS)

# Of one API process.
REDIS_UP = _gauge("redis_up", "1: Redis answers this process; 0: it does not, and the fleet's figures lack.")

OF_API = (REDIS_UP,)

# Of one worker: what it did itself. Sum them over the workers.
ATTEMPTS = _counter("attempts", "Requests sent, by outcome: succeeded, or why they failed.", "outcome")
LATENESS = _histogram("lateness", "From a slot to the start of its first request.", _LONG)
ATTEMPT_DURATION = _histogram("attempt_duration", "From the start of a request to its end.", _LONG)
TICK_DURATION = _histogram("tick_duration", "How long the ticker's call to Redis took.", _SHORT)
FIRED = _counter("fired_slots", "Slots that this worker's ticker handled.")
CLAIMED = _counter("claimed_executions", "Executions that this worker took from the queue.")
LEASES_LOST = _counter("leases_lost", "Executions whose lease this worker lost before it could report.")
WORKER_RUNNING = _gauge("worker_running_requests", "Requests that this worker is sending.")
WORKER_PLACES = _gauge("worker_places", "Requests that this worker sends at once at most.")
WORKER_UNRECORDED = _gauge("worker_unrecorded_outcomes", "Outcomes that are not in Redis yet.")

OF_WORKER = (
    ATTEMPTS,
    LATENESS,
    ATTEMPT_DURATION,
    TICK_DURATION,
    FIRED,
    CLAIMED,
    LEASES_LOST,
    WORKER_RUNNING,
    WORKER_PLACES,
    WORKER_UNRECORDED,
)

# Of the fleet: read from Redis by the API. Every API process reports the same: take the largest, not the sum.
TRIGGERS = _gauge("triggers", "Triggers, by where they stand.", "state")
WORKSPACES = _gauge("workspaces", "Workspaces.")
SHARDS_UNREAD = _gauge(
    "shards_unread",
    "Shards that can't be read: gauges are of the others, counts by state of before; counters lack.",
)
SHARDS_HELD = _gauge("shards_held", "Shards in which nothing is fired: data_loss, clock_jump.", "kind")
LAST_DATA_LOSS = _gauge(
    "last_data_loss_timestamp_seconds", "When Redis was noticed to have lost data last; 0: never."
)
EXECUTIONS = _gauge(
    "executions", "Executions in Redis, by state; finished ones as far as they are kept.", "state"
)
WORKSPACE_EXECUTIONS = _gauge("workspace_executions", "The same of single workspaces.", "workspace", "state")
ENDED = _counter("ended_executions", "Executions that ended, by final state and reason.", "state", "reason")
DUE = _counter("due_slots", "Slots that came due.")
TAKEOVERS = _counter("lease_takeovers", "Executions taken over from a worker that was lost.")
QUEUE_DEPTH = _gauge("queue_depth", "Executions that are ready and not claimed yet.")
QUEUE_WAIT = _gauge("queue_wait_seconds", "How long the first of them has been ready.")
OVERDUE = _gauge("overdue_slots", "Triggers whose next slot has come and is not fired yet.")
TICKER_LAG = _gauge("ticker_lag_seconds", "How long the earliest of these slots has been waiting.")
IN_FLIGHT = _gauge("in_flight_requests", "Requests that the workers are sending, as of their heartbeats.")
PLACES = _gauge("places", "Requests that the workers send at once at most, together.")
WORKERS = _gauge("workers", "Workers, by whether their heartbeats come: alive, silent.", "state")
REDIS_MEMORY = _gauge("redis_memory_bytes", "Memory that Redis uses; of a cluster the fullest node.")
REDIS_MEMORY_LIMIT = _gauge("redis_memory_limit_bytes", "Maxmemory of the same; 0: none.")

OF_FLEET = (
    TRIGGERS,
    WORKSPACES,
    SHARDS_UNREAD,
    SHARDS_HELD,
    LAST_DATA_LOSS,
    EXECUTIONS,
    WORKSPACE_EXECUTIONS,
    ENDED,
    DUE,
    TAKEOVERS,
    QUEUE_DEPTH,
    QUEUE_WAIT,
    OVERDUE,
    TICKER_LAG,
    IN_FLIGHT,
    PLACES,
    WORKERS,
    REDIS_MEMORY,
    REDIS_MEMORY_LIMIT,
)

ALL = (*OF_PROCESS, *OF_API, *OF_WORKER, *OF_FLEET)
