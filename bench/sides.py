"""The sides that are compared: each stores triggers in its own way and starts its own worker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from bench.due import Due, find_faults, load_in_time
from bench.lab import Lab
from bench.load import store_due
from bench.target import Arrival
from lab.processes import ROOT, LabError, Process, clean_environment
from lab.redis_servers import RedisServer

PEERS = ROOT / "bench" / "peers"


class Side(Protocol):
    """A scheduler of HTTP requests on Redis."""

    name: str
    lead: float  # s from before storing 10,000 triggers until they are due; enough on a common machine

    def load(self, redis: RedisServer, dues: Sequence[Due], target: str) -> None:
        """Store triggers that send to ``target``, in the place of those stored before."""

    def work(self, lab: Lab, redis: RedisServer, places: int) -> Process:
        """Start a worker process that sends ``places`` requests at once."""


class Ours:
    """Cronspace, with its default settings."""

    name, lead = "ours", 5.0

    def load(self, redis: RedisServer, dues: Sequence[Due], target: str) -> None:
        """By the store's replace, a workspace at a time."""
        store_due(redis.url(), dues, target)

    def work(self, lab: Lab, redis: RedisServer, places: int) -> Process:
        """`cronspace worker`."""
        return lab.worker(redis.url(), places)


class BullMQ:
    """BullMQ on node; ``modules`` is the folder that it is installed in."""

    name, lead = "bullmq", 6.0

    def __init__(self, modules: Path) -> None:
        self._node = shutil.which("node") or "node"
        self._extra = {"NODE_PATH": str(modules)}
        self.version = str(json.loads((modules / "bullmq" / "package.json").read_text())["version"])

    def _command(self, verb: str, redis: RedisServer, *rest: str) -> list[str]:
        return [self._node, str(PEERS / "bullmq.js"), verb, redis.socket, *rest]

    def load(self, redis: RedisServer, dues: Sequence[Due], target: str) -> None:
        """One job scheduler per trigger."""
        redis.client.flushall()
        lines = [
            {"name": f"{due.workspace}:{due.id}", "url": target + due.path, "pattern": due.pattern}
            for due in dues
        ]
        _feed(self._command("schedule", redis), lines, self._extra)

    def work(self, lab: Lab, redis: RedisServer, places: int) -> Process:
        """A Worker of that concurrency."""
        process = lab.process("bullmq", self._command("work", redis, str(places)), self._extra)
        process.wait_for_text("ready")
        return process


class StockArq:
    """arq as it comes: it has no schedules by data, so that a job per slot is put into its queue."""

    name, lead = "arq", 6.0

    def load(self, redis: RedisServer, dues: Sequence[Due], target: str) -> None:
        """One deferred job per slot."""
        redis.client.flushall()
        lines = [{"url": target + due.path, "at": due.slot} for due in dues]
        _feed([sys.executable, "-m", "bench.peers.stock_arq", "schedule", redis.socket], lines, {})

    def work(self, lab: Lab, redis: RedisServer, places: int) -> Process:
        """A plain arq worker."""
        command = [sys.executable, "-m", "bench.peers.stock_arq", "work", redis.socket, str(places)]
        process = lab.process("arq", command)
        process.wait_for_text("ready")
        return process


class Burst(NamedTuple):
    """What came at the target, and what should have."""

    arrivals: list[Arrival]
    dues: list[Due]

    began: float  # the first slot, s since the epoch

    def rate(self) -> float:
        """Requests per second, from the beginning until the last arrival."""
        if not self.arrivals:
            return 0.0
        return len(self.arrivals) / (max(one.at for one in self.arrivals) - self.began)

    def once(self) -> bool:
        """Whether each request came once, and none before its slot."""
        return not any(find_faults(self.arrivals, self.dues))


Plan = Callable[[int], list[Due]]  # makes triggers that are due from a slot on, s since the epoch


def fire(side: Side, plan: Plan, lead: float, *, redis: RedisServer | None = None, places: int = 50) -> Burst:
    """Let one worker process of a side send what a plan has, to a target of its own.

    ``lead`` is the time in seconds that storing is expected to take. ``redis``: a server to use, else a new
    one is.
    """
    with Lab() as lab:
        server = redis or lab.redis()
        target = lab.target()

        def load(slot: int) -> list[Due]:
            dues = plan(slot)
            side.load(server, dues, target.url)
            return dues

        dues = load_in_time(lead, load)
        side.work(lab, server, places)
        first, last = min(due.slot for due in dues), max(due.slot for due in dues)
        return Burst(target.wait_for(len(dues), last - time.time() + 60), dues, first)


def find_bullmq(install: bool) -> tuple[BullMQ | None, str]:
    """BullMQ where it can be run, else None and why not. ``install`` may fetch it, by npm."""
    if shutil.which("node") is None:
        return None, "bullmq: not measured, node is not installed"
    own = ROOT / "bench" / "node_modules"
    folders = [own, *(Path(entry) for entry in os.environ.get("NODE_PATH", "").split(os.pathsep) if entry)]
    for _ in range(2):
        for folder in folders:
            if all((folder / name / "package.json").exists() for name in ("bullmq", "ioredis")):
                return BullMQ(folder), ""
        npm = shutil.which("npm")
        if not install or npm is None:
            return None, "bullmq: not measured, it is not installed in bench/node_modules"
        wanted = ["--no-save", "--no-package-lock", "bullmq", "ioredis"]
        subprocess.run([npm, "install", "--prefix", "bench", *wanted], cwd=ROOT, timeout=300, check=False)
        install = False
    return None, "bullmq: not measured, npm could not install it"


def _feed(command: Sequence[str], lines: Sequence[object], extra: dict[str, str]) -> None:
    """Run a program that reads JSON lines."""
    text = "\n".join(json.dumps(line) for line in lines)
    done = subprocess.run(
        command,
        input=text,
        text=True,
        capture_output=True,
        env=clean_environment(extra),
        cwd=ROOT,
        timeout=600,
    )
    if done.returncode:
        raise LabError(f"{' '.join(command[1:3])} failed:\n{done.stderr[-2000:]}")
