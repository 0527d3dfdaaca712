"""Bytes of Redis per stored trigger, and per finished execution that is kept."""

from __future__ import annotations

import time

from app.keys import FINISHED_STATES, Keys
from bench.due import Due, find_faults, load_in_time, make_due, one_pattern
from bench.lab import Lab
from bench.load import same_sets, store, store_due
from bench.result import Context, Figure, Row
from bench.sides import BullMQ, Ours
from lab.processes import LabError
from lab.redis_servers import RedisServer

PATTERN, URL = "0 */2 * * *", "https://api.example.com"
_SETTLE_SECONDS = 60.0


def run(context: Context) -> Row:
    """Differences of used_memory in servers of their own; the scripts are loaded before."""
    workspaces, each = (10, 20) if context.small else (200, 100)
    peers = {}
    if context.bullmq:
        peers["bullmq"] = bullmq_trigger_bytes(context.bullmq, workspaces, each)
    trigger = Figure(
        name="memory per trigger",
        unit="bytes",
        ours=trigger_bytes(workspaces, each),
        better="lower",
        peers=peers,
        goal=500,
    )
    bytes_, kept, once = execution_bytes(*((10, 20) if context.small else (100, 100)), context.small)
    execution = Figure(
        name="memory per kept execution", unit="bytes", ours=bytes_, better="lower", goal=700, once=once
    )
    return Row(
        [trigger, execution],
        {"triggers": workspaces * each, "workspaces": workspaces, "kept_executions": kept},
        [context.bullmq_note] if context.bullmq_note else [],
    )


def trigger_bytes(workspaces: int, each: int) -> float:
    """Ours, per stored trigger."""
    with Lab() as lab:
        redis = lab.redis()
        store(redis.url(), same_sets(PATTERN, f"{URL}/webhook", 1, 1, "warm"))
        before = redis.used_memory()
        store(redis.url(), same_sets(PATTERN, f"{URL}/webhook", workspaces * each, each))
        return (redis.used_memory() - before) / (workspaces * each)


def bullmq_trigger_bytes(bullmq: BullMQ, workspaces: int, each: int) -> float:
    """BullMQ's, per job scheduler, with the delayed job that belongs to it."""
    count = workspaces * each
    with Lab() as lab:
        redis = lab.redis()
        due = Due("warm", "0", PATTERN, 0, "/webhook")
        bullmq.load(redis, [due], URL)
        redis.client.flushall()  # the scripts stay
        before = redis.used_memory()
        bullmq.load(
            redis, [due._replace(workspace=f"ws-{n // each}", id=str(n % each)) for n in range(count)], URL
        )
        return (redis.used_memory() - before) / count


def execution_bytes(workspaces: int, each: int, small: bool) -> tuple[float, int, bool]:
    """Fire a burst: bytes per finished execution that is kept, how many these are, and whether each request
    came once. What else a slot leaves (counters, a trigger's last slots) is in it.
    """
    count = workspaces * each
    with Lab() as lab:
        redis, target = lab.redis(), lab.target()

        def load(slot: int) -> list[Due]:
            dues = make_due([slot] * count, [one_pattern(slot)] * count, workspaces)
            store_due(redis.url(), dues, target.url)
            return dues

        dues = load_in_time(3.0 if small else Ours.lead, load)
        # Before the worker is there: its connections' buffers are gone as well when it is measured again.
        before = redis.used_memory()
        worker = lab.worker(redis.url(), 50)
        arrivals = target.wait_for(count, 60)
        kept = wait_until_finished(redis, workspaces, count)
        # The claim that a worker could repeat, and its connections, are no part of an execution.
        worker.stop()
        return (redis.used_memory() - before) / kept, kept, not any(find_faults(arrivals, dues))


def wait_until_finished(redis: RedisServer, workspaces: int, count: int) -> int:
    """Wait until all executions of a burst have ended; returns how many are kept."""
    keys = Keys()
    deadline = time.monotonic() + _SETTLE_SECONDS
    while time.monotonic() < deadline:
        pipe = redis.client.pipeline()
        for number in range(workspaces):
            for state in FINISHED_STATES:
                pipe.zcard(keys.of(f"ws-{number}", state))
        kept = sum(pipe.execute())
        if kept >= count and not redis.client.zcard(keys.queue):
            return int(kept)
        time.sleep(0.1)
    raise LabError(f"{kept} of {count} executions have ended")
