"""The worker: an arq worker with loops of its own around arq's queue.

    ticker ──► due slots become executions     refiller ──► slots further ahead
    claimer ─► executions become requests      finisher ──► outcomes are recorded
    renewer ─► leases stay alive               janitor ───► what is over is cleared away
    listener ► wakes ticker and claimer        health ────► arq's health check, and a heartbeat
    watcher ─► looks at how Redis is run       witness ──► a loss of data is noticed, also by the next process

arq's own loop claims one job at a time and ends at the first Redis error; its queue, its job and result
format, its job ids and its health check are what we keep of it.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING, Any

import arq
import msgspec
from arq.connections import ArqRedis
from redis.exceptions import RedisError

from app import __version__
from app.config import Settings
from app.loops import Loop, end
from app.models import State
from app.store import Shard, notifications, queue, ticking, upkeep, workers
from app.store.memory import Memory
from app.store.queue import Claimed, Ended
from app.store.replicas import Replicas
from app.store.shard import pack, unpack
from workers import delivery
from workers.account import Account
from workers.duty import Duty
from workers.hosts import HostPlaces
from workers.outgoing import OutgoingCache
from workers.places import Places
from workers.sender import Confirmation, Sender
from workers.transport import Transport

if TYPE_CHECKING:
    from app.telemetry.tracing import Traces

log = logging.getLogger(__name__)

_FINISH_BATCH = 200
_JANITOR_SECONDS = 5.0
_LAST_FLUSH_SECONDS, _FLUSH_PAUSE_SECONDS = 1.5, 0.1
_LAST_CALL_SECONDS = 0.5  # for a call to Redis that is under way when the worker stops


async def send(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:
    """arq's name for what our jobs do. This worker runs them by its own claims, never through arq's loop."""
    raise RuntimeError("run by `cronspace worker` only")


class Worker(arq.Worker):
    """A worker process's work on one shard. ``transport`` sends; ``places`` and ``account`` are those of the
    process, which may serve other shards, too, and ``replicas`` those of Redis.
    """

    def __init__(
        self,
        shard: Shard,
        transport: Transport,
        places: Places | None = None,
        replicas: Replicas | None = None,
        account: Account | None = None,
        traces: Traces | None = None,
    ) -> None:
        settings = shard.settings
        super().__init__(
            functions=[arq.func(send, name="send")],
            queue_name=shard.keys.queue,
            redis_pool=ArqRedis(
                pool_or_conn=shard.redis.connection_pool,
                job_serializer=pack,
                job_deserializer=unpack,
                default_queue_name=shard.keys.queue,
            ),
            handle_signals=False,
            max_jobs=settings.max_jobs,
            health_check_interval=workers.HEARTBEAT_SECONDS,
            job_serializer=pack,
            job_deserializer=unpack,
        )
        self.name = shard.name
        self.settings: Settings = settings
        self._shard = shard
        self._transport = transport
        self._replicas = replicas or Replicas(shard)
        self._places = places or Places(settings.max_jobs)
        self._outgoing = OutgoingCache(shard)
        self._traces = traces
        self._identity = f"{self.name}~{uuid.uuid4().hex[:8]}"  # tokens must differ between restarts
        self._claims = 0  # the number of the last claim that was answered
        self._clock_offset = 0.0  # Redis's clock minus the monotonic one, ms
        self._started = 0  # by Redis's clock, ms; 0: not yet
        self._next_look: int | None = None  # as the ticker knew last
        self._lag = 0  # how late the ticker came to a slot since the last heartbeat at most, ms
        self.account = account or Account(settings.statistics_seconds)
        self.ticker = self._loop("ticker", self.tick)
        self.refiller = self._loop("refiller", self.refill)
        self.claimer = self._loop("claimer", self.claim)
        self.finisher = self._loop("finisher", self.finish)
        self.renewer = self._loop("renewer", self.renew)
        self.janitor = self._loop("janitor", self.clean)
        self.listener = self._loop("listener", self.listen)
        self.health = self._loop("health", self.report_health)
        self.watcher = self._loop("watcher", self._replicas.watch)
        self._hosts = HostPlaces(shard, self._identity) if settings.max_concurrency_per_host else None
        self.sender = Sender(
            self.name, transport, self._places, self._now, self.finisher.wake, self._hosts, traces
        )
        self.tasks = self.sender.tasks  # arq's name for what runs
        self._memory = Memory(shard)
        self.witness = self._loop("witness", self.watch)
        self.duty = Duty()
        self._stop = asyncio.Event()

    def _loop(self, name: str, once: Callable[[], Awaitable[float]]) -> Loop:
        return Loop(name, once, self.account.figures, self._shard.outage)

    async def main(self) -> None:
        """Work until :meth:`stop`; then finish within the grace period, and hand back the rest."""
        taking = (self.ticker, self.refiller, self.claimer, self.janitor, self.listener, self.watcher)
        keeping = [self.finisher, self.renewer, self.health, self.witness]
        if self._hosts is not None:
            keeping.append(self._hosts.keeper)
        self._memory.recall()
        tasks = {loop: asyncio.create_task(loop.run()) for loop in (*taking, *keeping)}
        stopped = asyncio.create_task(self._stop.wait())
        try:
            await asyncio.wait([stopped, *tasks.values()], return_when=asyncio.FIRST_COMPLETED)
            if not stopped.done():
                # Nothing should end a loop. A worker without one must not look alive.
                log.critical("a loop ended by itself; the worker stops")
            await self._wind_down(taking, tasks)
            if not stopped.done():
                raise RuntimeError("a loop of the worker ended by itself")
        finally:
            stopped.cancel()
            await end(tasks)
        with suppress(RedisError, OSError):  # TimeoutError is one; then it is missed for a while
            async with asyncio.timeout(_LAST_CALL_SECONDS):
                await workers.leave(self._shard, self.account.process)

    async def _wind_down(self, taking: Sequence[Loop], tasks: Mapping[Loop, asyncio.Task[None]]) -> None:
        """Take nothing more; give what runs the grace period, hand the rest back, record what ended."""
        deadline = time.monotonic() + self.settings.grace_seconds
        for loop in taking:
            loop.stop()
        self.health.wake()  # its seat is somebody else's
        tasks[self.listener].cancel()
        await asyncio.wait([tasks[loop] for loop in taking], timeout=_LAST_CALL_SECONDS)
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()), timeout=max(0.0, deadline - time.monotonic()))
        for task in self.tasks.values():
            task.cancel()
        if self.tasks:
            await asyncio.wait(list(self.tasks.values()))
        self.finisher.stop()
        await asyncio.wait([tasks[self.finisher]], timeout=_LAST_CALL_SECONDS)
        self._memory.save()
        tasks[self.finisher].cancel()  # one at a time takes from what ended
        await asyncio.wait([tasks[self.finisher]])
        await self._flush()
        if self._hosts is not None:  # or its places would be free after a lease only
            with suppress(RedisError, OSError):
                async with asyncio.timeout(_LAST_CALL_SECONDS):
                    await self._hosts.keep()

    @property
    def trouble(self) -> str:
        """Why this worker can't take work; empty when it can."""
        if self._stop.is_set():
            return "it stops"
        failing = [loop.name for loop in (self.ticker, self.claimer, self.finisher) if loop.failures]
        return f"failing: {', '.join(failing)}" if failing else ""

    @property
    def unrecorded(self) -> int:
        """Outcomes that are not in Redis yet."""
        return len(self.sender.ended)

    def stop(self) -> None:
        """Begin to stop."""
        self._stop.set()

    async def close(self) -> None:
        """Close the transport. arq would also delete the health check that other workers share."""
        await self._transport.aclose()

    # One round of each loop. They return the seconds until the next.

    async def tick(self) -> float:
        """Fire what is due, and let in what a rate held back; sleep until there is more to do."""
        begun = time.monotonic()
        fired = await ticking.fire_due(self._shard)
        self._set_clock(fired.now)
        self.account.ticked(fired, time.monotonic() - begun)
        if fired.handled and self._next_look is not None:
            self._lag = max(self._lag, fired.now - self._next_look)
        self._next_look = fired.next_look
        if fired.handled:
            self.duty.found()
        if fired.made:
            self.claimer.wake()
        if fired.dry:
            self.refiller.wake()
        if fired.next_look is None:
            return self.duty.pause(self.settings.poll_seconds)
        ahead = max(fired.next_look - fired.now, 0) / 1000
        return self.duty.pause(min(ahead, self.settings.poll_seconds))

    async def refill(self) -> float:
        """Compute slots for triggers that run low."""
        if not await ticking.refill(self._shard):
            return self.duty.pause(self.settings.poll_seconds)
        self.duty.found()
        self.ticker.wake()
        return 0

    async def claim(self) -> float:
        """Fill free places; sleep until the next execution is ready, or a place is free."""
        places = self._places
        if 0 < places.free < places.size // 4:
            await asyncio.sleep(0)  # what else ends in this round of the loop comes along
        asked = min(places.free, self.settings.claim_batch)
        if asked <= 0:
            return await self._wait_for_place()
        begun = time.monotonic()
        since = await self._replicas.history()
        with places.reserve(asked):  # from the other shards' claims
            claim = await queue.claim(self._shard, self._identity, self._claims + 1, asked)
            # If one of these fails, the claim is made again.
            outgoing = await self._outgoing.load(claim.executions)
            executions = await self._enter_hosts(claim.executions)
        self._claims += 1
        self._set_clock(claim.now)
        self.account.claimed(claim, self._shard.keys.shard)
        if self._traces is not None:
            took = round((time.monotonic() - begun) * 1000)
            for one in claim.executions:
                if not one.attempts:
                    self._traces.claimed(one.id, one.slot, claim.now - took, claim.now)
        until = begun + self.settings.lease_seconds
        for execution, confirmation in self._with_confirmations(executions, since):
            with_it = outgoing.get(execution.workspace, self._outgoing.usual)
            self.sender.start(execution, until, with_it, confirmation)
        if len(executions) < len(claim.executions):
            return 0  # others may take the places of those that wait for their hosts
        if claim.executions:
            self.duty.found()
        if claim.next_ready is None:
            return self.duty.pause(self.settings.poll_seconds)
        if claim.next_ready <= claim.now and places.free <= 0:
            return await self._wait_for_place()
        ahead = max(claim.next_ready - claim.now, 0) / 1000
        return self.duty.pause(min(ahead, self.settings.poll_seconds))

    async def _wait_for_place(self) -> float:
        """Be woken when a place is free; others may have some now. Returns the seconds to sleep."""
        self._places.wake_when_free(self.claimer.wake)
        if self.duty.may_call():
            await notifications.call_workers(self._shard)
        return self.settings.poll_seconds

    async def finish(self) -> float:
        """Record what ended; what can't be recorded now is kept for the next round."""
        if not self.sender.ended:
            return self.settings.poll_seconds
        await asyncio.sleep(0)  # what else ends in this round of the loop comes along
        for recorded in self.sender.known_recorded():
            self.sender.ended.remove(recorded)
            self._go_on(recorded.id)
        # With the token of now: a lapsed lease may have come back to us meanwhile.
        claims = [self.sender.held[ended.id].execution for ended in self.sender.ended[:_FINISH_BATCH]]
        batch = [
            msgspec.structs.replace(ended, token=claimed.token)
            for ended, claimed in zip(self.sender.ended, claims, strict=False)
        ]
        states = await queue.finish(self._shard, batch)
        del self.sender.ended[: len(batch)]
        for ended, claimed, state in zip(batch, claims, states, strict=True):
            held = self.sender.held[ended.id]
            came_back = held.execution.token != ended.token
            if came_back and len(held.execution.attempts) == len(claimed.attempts):
                self.sender.ended.append(ended)  # our own lapsed lease: with its token, then
                continue
            if came_back:
                self._go_on(ended.id)
            else:
                del self.sender.held[ended.id]
            self._count(ended, claimed, state)
        self.claimer.wake()
        return 0 if self.sender.ended else self.settings.poll_seconds

    def _go_on(self, id_: str) -> None:
        """An attempt is recorded, and its execution already ours again: the next one."""
        held = self.sender.held.pop(id_)
        self.sender.start(held.execution, held.until, held.outgoing, held.confirmation)

    async def renew(self) -> float:
        """Extend every lease, three times within its length; without any it is still a sign of life."""
        begun = time.monotonic()
        held = {id_: one.execution.token for id_, one in self.sender.held.items()}
        lost = await queue.renew(self._shard, held)
        for id_, token in held.items():
            one = self.sender.held.get(id_)
            if one is None or one.execution.token != token:
                continue
            if id_ in lost:
                self.sender.abort(id_)
            else:
                one.until = begun + self.settings.lease_seconds
        return self.settings.lease_seconds / 3

    async def clean(self) -> float:
        """Clear away what removed triggers left, and what is too old, unless the time is in question."""
        if self._shard.witness.why == "clock_jump":
            return _JANITOR_SECONDS
        cleared = await upkeep.clear_removed(self._shard)
        trimmed = await upkeep.trim_finished(self._shard)
        erased = await upkeep.finish_erasing(self._shard)
        return 0 if cleared or trimmed or erased else self.duty.pause(_JANITOR_SECONDS)

    async def watch(self) -> float:
        """Look whether Redis has lost anything."""
        return self.duty.pause(await self._memory.once())

    async def listen(self) -> float:
        """Wait for notifications; without them everything still happens, at the next poll."""
        async with aclosing(notifications.listen(self._shard)) as heard:
            async for what, execution in heard:
                if what == "listening":
                    self.listener.got_through()
                elif what == "cancel":
                    self.sender.abort(execution)
                elif what == "more":
                    self.claimer.wake()
                elif not self.duty.is_on:
                    continue
                elif what == "replaced":
                    self.ticker.wake()
                    self.refiller.wake()
                    self.janitor.wake()
                elif what == "paced":
                    self.ticker.wake()
                else:
                    self.claimer.wake()
        raise AssertionError("notifications do not end")

    async def report_health(self) -> float:
        """arq's health check: a line about this worker, under a key that expires; and our own heartbeat."""
        self.account.report_now_and_then()
        self._started = self._started or await self._shard.now_ms()
        facts = workers.Facts(
            name=self.name,
            version=__version__,
            started=self._started,
            capacity=self._places.size,
            running=len(self.tasks),
            tick_lag=self._lag,
            lacked_key=self.account.lacked_key,
        )
        self._lag = 0
        takes = not self._stop.is_set()
        self.duty.told(*await workers.note(self._shard, self.account.process, facts, takes))
        if self.duty.is_on:
            await self.record_health()
        return workers.HEARTBEAT_SECONDS

    async def _enter_hosts(self, claimed: list[Claimed]) -> list[Claimed]:
        """Those of what was claimed that may be sent: what is being sent or reported already, and what has a
        place at its host."""
        if self._hosts is None:
            return claimed
        renewed = [one for one in claimed if self.sender.is_renewal(one)]
        return [*renewed, *await self._hosts.enter([one for one in claimed if one not in renewed])]

    def _with_confirmations(
        self, claimed: Sequence[Claimed], since: str
    ) -> Iterator[tuple[Claimed, Confirmation | None]]:
        """Executions with what to wait for before they are sent: a claim of what is sent at most once has to
        outlast a failover, so it is confirmed by replicas, where there are any.
        """
        wanted = max(self.settings.wait_replicas, min(1, self._replicas.connected))
        if not wanted:
            yield from ((execution, None) for execution in claimed)
            return
        confirmation = None
        for execution in claimed:
            if not delivery.is_once(execution.definition):
                yield execution, None
                continue
            if confirmation is None:
                confirmation = asyncio.create_task(self._replicas.confirm(since, wanted))
            yield execution, confirmation

    async def _flush(self) -> None:
        """Record the last outcomes; Redis may be slow, but not for ever."""
        deadline = time.monotonic() + _LAST_FLUSH_SECONDS
        while self.sender.ended and time.monotonic() < deadline:
            try:
                async with asyncio.timeout_at(
                    asyncio.get_running_loop().time() + deadline - time.monotonic()
                ):
                    await self.finish()
            except (RedisError, OSError):  # TimeoutError is an OSError
                await asyncio.sleep(_FLUSH_PAUSE_SECONDS)
        if self.sender.ended:
            log.error("%d outcomes could not be recorded: their executions run again", len(self.sender.ended))

    def _count(self, ended: Ended, execution: Claimed, state: State | None) -> None:
        self.account.ended(ended, execution, state)
        if state is State.SUCCEEDED:
            self.jobs_complete += 1
        elif state is State.RETRYING or state is State.QUEUED:
            self.jobs_retried += 1
        elif state is not None:
            self.jobs_failed += 1

    def _set_clock(self, redis_ms: int) -> None:
        if self._shard.witness.why != "clock_jump":
            self._clock_offset = redis_ms - time.monotonic() * 1000

    def _now(self) -> int:
        """Redis's clock, in ms, carried on by the monotonic one: this host's may be wrong."""
        return int(time.monotonic() * 1000 + self._clock_offset)
