"""What one worker has under lease: each execution is sent, and its outcome waits until it is recorded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.models import Attempt, FailureKind
from app.store.queue import Claimed, Ended
from workers import delivery, retries
from workers.account import fields_of
from workers.failures import NotSent
from workers.hosts import HostPlaces
from workers.outgoing import Ready
from workers.places import Places
from workers.transport import Transport

if TYPE_CHECKING:
    from app.telemetry.tracing import Traced, Traces

log = logging.getLogger(__name__)

_AGAIN_MS = 1000  # until what could not be sent yet is tried again

# Why the replicas may not have a claim; empty when they have it.
Confirmation = asyncio.Task[str]


class Held:
    """An execution that this worker has under lease. ``until`` is on the monotonic clock."""

    __slots__ = (
        "_before",
        "aborted",
        "begun",
        "came_back",
        "confirmation",
        "execution",
        "outgoing",
        "until",
    )

    def __init__(
        self, execution: Claimed, until: float, outgoing: Ready, confirmation: Confirmation | None
    ) -> None:
        self.execution = execution  # as it was claimed last
        self._before = len(execution.attempts)
        self.came_back = False  # it was claimed again meanwhile
        self.until = until
        self.outgoing = outgoing
        self.confirmation = confirmation  # to be waited for before anything is sent
        self.begun = False  # the request was: something of it may have arrived
        self.aborted = False  # cancelled in Redis: its outcome is nobody's business any more

    def may_send(self) -> bool:
        """The last look before a request: whether the lease still holds."""
        self.begun = time.monotonic() < self.until
        return self.begun

    def is_recorded(self, ended: Ended) -> bool:
        """Whether the outcome of this attempt was there when the execution was claimed last."""
        made, later = ended.attempt, self.execution.attempts[self._before :]
        return (
            made is not None
            and bool(later)
            and (later[0].started, later[0].worker) == (made.started, made.worker)
        )


class Sender:
    """Sends what is claimed. ``now`` tells Redis's clock, ms; ``on_ended`` is called when there is an outcome
    to record.
    """

    def __init__(
        self,
        name: str,
        transport: Transport,
        places: Places,
        now: Callable[[], int],
        on_ended: Callable[[], None],
        hosts: HostPlaces | None = None,
        traces: Traces | None = None,
    ) -> None:
        self.held: dict[str, Held] = {}  # running, or ended and not yet recorded
        self.ended: list[Ended] = []
        self.tasks: dict[str, asyncio.Task[Ended | None]] = {}
        self._name = name
        self._transport = transport
        self._places = places
        self._now = now
        self._on_ended = on_ended
        self._hosts = hosts
        self._traces = traces

    def start(
        self, execution: Claimed, until: float, outgoing: Ready, confirmation: Confirmation | None = None
    ) -> None:
        """Send an execution that was claimed."""
        running = self.held.get(execution.id)
        if running is not None:
            # Its lease had lapsed and it came back to us, who still send it: that is a renewal. Or it is the
            # next attempt, claimed before we heard that this one is recorded: then it is started from there.
            running.execution, running.until, running.came_back = execution, until, True
            running.outgoing, running.confirmation = outgoing, confirmation
            return
        held = self.held[execution.id] = Held(execution, until, outgoing, confirmation)
        self._places.take()
        task = self.tasks[execution.id] = asyncio.create_task(self._run(execution, held))
        task.add_done_callback(lambda done: self._settle(execution.id, held, done))

    def is_renewal(self, execution: Claimed) -> bool:
        """Whether this is the attempt that we have: its lease had lapsed, and came back to us."""
        held = self.held.get(execution.id)
        return held is not None and len(held.execution.attempts) == len(execution.attempts)

    def known_recorded(self) -> list[Ended]:
        """Outcomes that are recorded, although no reply said so: the next attempt was claimed with them."""
        held = self.held
        return [one for one in self.ended if held[one.id].came_back and held[one.id].is_recorded(one)]

    def abort(self, id_: str) -> None:
        """Cut an attempt off whose execution is not ours any more: cancelled, or taken over."""
        task, held = self.tasks.get(id_), self.held.get(id_)
        if task is not None and held is not None:
            held.aborted = True
            task.cancel()

    async def _run(self, execution: Claimed, held: Held) -> Ended | None:
        """The outcome of an attempt; None when there is none to report."""
        unconfirmed = "" if held.confirmation is None else await asyncio.shield(held.confirmation)
        if unconfirmed:
            log.warning(
                "not sent yet, because its claim is not confirmed: %s",
                unconfirmed,
                extra=fields_of(execution),
            )
            return Ended(execution.id, held.execution.token, "release", _AGAIN_MS)
        started = self._now()
        if self._traces is None:
            return await self._attempt(execution, held, started)
        with self._traces.attempt(execution.id, len(execution.attempts) + 1, self._name) as span:
            return await self._attempt(execution, held, started, span)

    async def _attempt(
        self, execution: Claimed, held: Held, started: int, span: Traced | None = None
    ) -> Ended | None:
        traceparent = "" if span is None else span.traceparent
        try:
            ended = await delivery.attempt(
                self._transport, execution, started, self._name, held.outgoing, held.may_send, traceparent
            )
            if span is not None and ended.attempt is not None:
                span.tell(ended.attempt.status, ended.attempt.kind, ended.attempt.message)
            return ended
        except NotSent:
            # Perhaps another worker's by now: not sent, and not to be reported either.
            log.warning("the lease lapsed before the request was sent", extra=fields_of(execution))
            return None
        except asyncio.CancelledError:
            if held.aborted or not held.begun:
                raise
            return delivery.interrupted(execution, started, self._now(), self._name)

    def _settle(self, id_: str, held: Held, task: asyncio.Task[Ended | None]) -> None:
        """Let an execution go whose task is over; it may have been cut off before its first step."""
        del self.tasks[id_]
        if self._hosts is not None:
            self._hosts.leave(id_)
        self._places.give_back()
        ended: Ended | None = None
        if not held.aborted and task.cancelled():
            ended = Ended(id_, held.execution.token, "release")
        elif not held.aborted:
            fault = task.exception()
            ended = task.result() if fault is None else self._faulty(held, fault)
        if ended is None:
            del self.held[id_]
        else:
            self.ended.append(ended)
            self._on_ended()

    def _faulty(self, held: Held, fault: BaseException) -> Ended:
        """What can't be foreseen has an outcome: else the execution would be held, and renewed, for ever."""
        execution = held.execution
        log.error("an attempt failed by a fault of ours", exc_info=fault, extra=fields_of(execution))
        if not held.begun:
            return Ended(execution.id, execution.token, "release", _AGAIN_MS)
        message = f"{type(fault).__name__}: {fault}"
        made = Attempt(self._now(), 0, 0, FailureKind.INTERNAL, message, "", self._name)
        return retries.failed(execution, made)
