"""What a worker did: its metrics, and the line that it writes into the log now and then."""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter

from app.clock import rfc3339
from app.counts import counted
from app.keys import is_of_slot
from app.models import FailureKind, State
from app.store.queue import Claim, Claimed, Ended
from app.store.ticking import Fired
from app.telemetry.figures import of_process
from app.telemetry.metrics import (
    ATTEMPT_DURATION,
    ATTEMPTS,
    CLAIMED,
    FIRED,
    LATENESS,
    LEASES_LOST,
    OF_WORKER,
    TICK_DURATION,
)

log = logging.getLogger(__name__)

_WARN_AGAIN_MS = 60_000


class Account:
    """Counts what the loops of a worker do. Times are ms since the epoch, by Redis's clock."""

    def __init__(self, statistics_seconds: float = 0) -> None:
        self.process = uuid.uuid4().hex  # what this process is known by, the same in every shard
        self.figures = of_process(OF_WORKER)
        self.checks = self.attempts = self.failures = 0
        self.executions = 0  # that ended here
        self.last_check = self.last_execution = self.last_failure = 0
        self.lacked_key = 0  # when an execution was met last that this worker has no key for
        self._warned: dict[str, int] = {}  # of that, by workspace
        self._every = statistics_seconds
        self._reported = time.monotonic()

    def ticked(self, fired: Fired, seconds: float) -> None:
        """The ticker looked."""
        self.figures.observe(TICK_DURATION, seconds)
        self.checks += 1
        self.last_check = fired.now
        if fired.handled:
            self.figures.add(FIRED, by=fired.handled)

    def claimed(self, claim: Claim, shard: int) -> None:
        """Executions were taken from the queue; those of a worker that was lost are told of together."""
        if not claim.executions:
            return
        self.figures.add(CLAIMED, by=len(claim.executions))
        tried = [one.attempts[-1] for one in claim.executions if one.attempts]
        if not tried:
            return
        lost = Counter(
            last.worker.rpartition("~")[0] or last.worker
            for last in tried
            # Cut off by this claim, and not by one before.
            if last.kind == FailureKind.WORKER_LOST and last.started + last.duration == claim.now
        )
        for worker, number in lost.items():
            fields = {"from_worker": worker, "executions": number, "shard": shard}
            log.info(
                "took over %s from %s, whose lease has lapsed",
                counted(number, "execution"),
                worker,
                extra=fields,
            )

    def ended(self, ended: Ended, execution: Claimed, state: State | None) -> None:
        """An attempt is over and recorded as ``state``; None: its lease was lost."""
        if state is None:
            self.figures.add(LEASES_LOST)
            log.warning("the lease was lost, this outcome is not recorded", extra=fields_of(execution))
        made = ended.attempt
        if made is None:
            return
        self.figures.add(ATTEMPTS, made.kind or "succeeded")
        if made.kind == FailureKind.KEY and state is State.RETRYING:
            self._lacked_key(made.started + made.duration, made.message, execution)
            return
        self.figures.observe(ATTEMPT_DURATION, made.duration / 1000)
        if not execution.attempts and is_of_slot(ended.id):
            self.figures.observe(LATENESS, max(0, made.started - execution.slot) / 1000)
        self.attempts += 1
        self.last_execution = made.started
        if made.kind:
            self.failures += 1
            self.last_failure = made.started
        if state is not None and state not in (State.RETRYING, State.QUEUED):
            self.executions += 1
        if state is State.SUCCEEDED:
            if log.isEnabledFor(logging.DEBUG):  # the usual case, in the middle of a burst
                log.debug("succeeded: %d", made.status, extra=fields_of(execution))
        elif state is State.RETRYING or state is State.QUEUED:
            log.info("%s: %s", state, made.message, extra=fields_of(execution))
        elif state is not None:
            log.warning("%s: %s", state, made.message, extra=fields_of(execution))

    def _lacked_key(self, now: int, message: str, execution: Claimed) -> None:
        """Say it now and then: it is the same for every execution of a workspace."""
        self.lacked_key = now
        self._warned = {name: at for name, at in self._warned.items() if now - at < _WARN_AGAIN_MS}
        if execution.workspace not in self._warned:
            self._warned[execution.workspace] = now
            log.warning("waits for a worker that has the key: %s", message, extra=fields_of(execution))

    def report_now_and_then(self) -> None:
        """Write the line if its time has come; with 0 seconds it never does."""
        now = time.monotonic()
        if self._every and now - self._reported >= self._every:
            self._reported = now
            self.report()

    def report(self) -> None:
        """Write the line: how often, how well, and when last."""
        told = {
            "checks": self.checks,
            "executions": self.executions,
            "attempts": self.attempts,
            "failures": self.failures,
            "last_check": _when(self.last_check),
            "last_execution": _when(self.last_execution),
            "last_failure": _when(self.last_failure),
        }
        log.info("HEALTHCHECK %s", " ".join(f"{name}={value}" for name, value in told.items()), extra=told)


def fields_of(execution: Claimed) -> dict[str, str | int]:
    """What the log tells of an attempt."""
    return {
        "workspace": execution.workspace,
        "trigger": execution.trigger,
        "execution": execution.id,
        "attempt": len(execution.attempts) + 1,
    }


def _when(ms: int) -> str:
    return rfc3339(ms) if ms else "never"
