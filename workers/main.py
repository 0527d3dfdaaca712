"""`cronspace worker`: a worker process."""

from __future__ import annotations

import asyncio
import gc
import logging
import resource
import signal
from collections.abc import Callable, Sequence

import uvloop

from app import __version__
from app.config import Settings, load_settings
from app.errors import ConfigError, WrongDeployment
from app.logs import bind, set_up_logging
from app.loops import Loop, end
from app.store import Shards, open_shards
from app.store.connection import address_of
from app.store.rotation import KeyCheck
from app.telemetry.traces import open_traces
from workers import probes
from workers.account import Account
from workers.places import Places
from workers.transport import Transport, tls_context
from workers.worker import Worker

log = logging.getLogger(__name__)

_VERIFY_SECONDS = 5.0
_GARBAGE = 20_000  # objects made before cycles are looked for


def run(argv: Sequence[str]) -> None:
    """Run a worker until SIGTERM or SIGINT. Takes no arguments: the environment has the settings."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection to each target takes one
    # What was imported stays, and what an attempt makes goes without cycles: nobody has to look for any amid
    # a burst.
    gc.collect()
    gc.freeze()
    gc.set_threshold(_GARBAGE)
    uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Run a worker within a running event loop: one :class:`Worker` for each shard, all in the same places.

    Raises :class:`ConfigError` when what is stored belongs to other settings, now or later.
    """
    shards = open_shards(settings)
    ca_file = settings.egress_ca_file
    transport = Transport(
        settings.snippet_bytes,
        settings.max_response_bytes,
        settings.max_jobs,
        tls=tls_context(ca_file) if ca_file else None,
    )
    places = Places(settings.max_jobs)
    account = Account(settings.statistics_seconds)
    traces = open_traces(settings, "cronspace-worker")
    workers = [
        Worker(shard, transport, places, shards.replicas_of(shard), account, traces)
        for shard in shards.served
    ]
    bind(worker=workers[0].name)
    stopped = asyncio.Event()

    def stop() -> None:
        if not stopped.is_set():
            log.info("stopping, %d requests running", sum(len(worker.tasks) for worker in workers))
        stopped.set()
        for worker in workers:
            worker.stop()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop)
    verifier = Verifier(shards, stop)
    loops = (verifier.loop, Loop("key check", KeyCheck(shards).once))
    running = {one: asyncio.create_task(one.run()) for one in loops}
    try:
        async with probes.serving(workers, shards, account, places):
            if await _either(verifier.verified, stopped):
                log.info(
                    "version %s works; places: %d; shards: %d of %d; Redis at %s",
                    __version__,
                    settings.max_jobs,
                    len(workers),
                    settings.shards,
                    address_of(settings.redis_url),
                )
                await _work(workers, stop)
            if verifier.problem is not None:
                raise ConfigError(str(verifier.problem))
    finally:
        await end(running)
        if traces is not None:
            await asyncio.to_thread(traces.close)
        await transport.aclose()
        await shards.aclose()


class Verifier:
    """Holds the deployment's number of shards and format against ours: nothing is done before, and it stops
    the process when they change.
    """

    def __init__(self, shards: Shards, stop: Callable[[], None]) -> None:
        self.verified = asyncio.Event()
        self.problem: WrongDeployment | None = None
        self.loop = Loop("verifier", self.verify, outage=shards.first.outage)
        self._shards = shards
        self._stop = stop

    async def verify(self) -> float:
        """Verify once; what Redis raises is for the loop."""
        try:
            await self._shards.verify()
        except WrongDeployment as problem:
            self.problem = problem
            self._stop()
        else:
            self.verified.set()
        return _VERIFY_SECONDS


async def _either(wanted: asyncio.Event, other: asyncio.Event) -> bool:
    """Wait for one of two events; whether it is the first."""
    waits = [asyncio.create_task(event.wait()) for event in (wanted, other)]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for one in waits:
        one.cancel()
    return wanted.is_set() and not other.is_set()


async def _work(workers: Sequence[Worker], stop: Callable[[], None]) -> None:
    """Work until all have ended; one that ends by itself ends the others."""
    tasks = [asyncio.create_task(worker.main()) for worker in workers]
    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    stop()
    for ended in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(ended, BaseException):
            raise ended
    log.info("stopped")
