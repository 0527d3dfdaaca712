"""What an idle worker takes, with triggers stored and none due: memory in MB, CPU in per cent of a core."""

from __future__ import annotations

import os
import time
from datetime import UTC, datetime
from pathlib import Path

from bench.due import Due
from bench.lab import Lab
from bench.load import same_sets, store
from bench.result import Context, Figure, Row

_WARM_SECONDS = 5.0


def run(context: Context) -> Row:
    """All sides idle at the same time."""
    if not Path("/proc/self/stat").exists():
        return Row([], {}, ["idle: not measured, this system has no /proc"])
    count, seconds, warm = (200, 3.0, 1.0) if context.small else (10_000, 60.0, _WARM_SECONDS)
    idle = f"0 0 1 {(datetime.now(UTC).month + 5) % 12 + 1} *"  # half a year away
    with Lab() as lab:
        own = lab.redis()
        store(own.url(), same_sets(idle, "https://api.example.com/webhook", count, 100))
        processes = {"ours": lab.worker(own.url(), 100)}
        if context.bullmq:
            theirs = lab.redis()
            dues = [Due(f"ws-{n // 100}", str(n % 100), idle, 0, "/webhook") for n in range(count)]
            context.bullmq.load(theirs, dues, "https://api.example.com")
            processes["bullmq"] = context.bullmq.work(lab, theirs, 100)
        time.sleep(warm)
        began = time.monotonic()
        before = {name: cpu_seconds(process.pid) for name, process in processes.items()}
        time.sleep(seconds)
        passed = time.monotonic() - began
        cpu = {
            name: 100 * (cpu_seconds(process.pid) - before[name]) / passed
            for name, process in processes.items()
        }
        memory = {name: resident_mb(process.pid) for name, process in processes.items()}
    figures = [
        Figure(name=name, unit=unit, ours=values.pop("ours"), better="lower", peers=values, goal=goal)
        for name, unit, values, goal in (
            ("idle worker, memory", "MB", memory, 60),
            ("idle worker, CPU", "% of a core", cpu, 1),
        )
    ]
    sizes = {"triggers": count, "seconds": seconds, "places": 100}
    return Row(figures, sizes, [context.bullmq_note] if context.bullmq_note else [])


def cpu_seconds(pid: int) -> float:
    """The time that a process has used, its own and the system's for it."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """A process's resident memory, in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
