"""What idle workers cost Redis: commands a second (those within scripts count, too) and CPU of one worker, of
ten and of fifty. The goal is to grow less than with their number.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

from bench.lab import Lab
from bench.load import same_sets, store
from bench.result import Context, Figure, Row
from bench.rows.idle import cpu_seconds
from lab.redis_servers import RedisServer

_SETTLED_SECONDS = 15.0  # until all have told of themselves, and know who is on duty


def run(context: Context) -> Row:
    """One fleet after the other, with triggers stored and none due."""
    sizes, seconds, settled = ((1, 2), 2.0, 1.0) if context.small else ((1, 10, 50), 30.0, _SETTLED_SECONDS)
    idle = f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"  # half a year away
    figures: list[Figure] = []
    for size in sizes:
        with Lab() as lab:
            redis = lab.redis()
            store(redis.url(), same_sets(idle, "https://api.example.com/webhook", 1000, 100))
            for _ in range(size):
                lab.worker(redis.url(), 100)
            time.sleep(settled)
            began, busy = time.monotonic(), cpu_seconds(redis.process.pid)
            before = _commands(redis)
            time.sleep(seconds)
            passed = time.monotonic() - began
            commands = (_commands(redis) - before) / passed
            cpu = 100 * (cpu_seconds(redis.process.pid) - busy) / passed
        name = f"{size} idle workers" if size > 1 else "1 idle worker"
        goal = size * figures[0].ours if figures else None
        figures += [
            Figure(name=f"{name}: Redis commands", unit="1/s", ours=commands, better="lower", goal=goal),
            Figure(name=f"{name}: Redis CPU", unit="% of a core", ours=cpu, better="lower"),
        ]
    return Row(figures, {"seconds": seconds, "triggers": 1000}, [])


def _commands(redis: RedisServer) -> int:
    info = redis.client.info("stats")
    assert isinstance(info, dict)
    return int(info["total_commands_processed"])
