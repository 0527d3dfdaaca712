"""`cronspace worker`: a worker process."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Sequence

import uvloop

from app.config import Settings, load_settings
from app.logs import bind, set_up_logging
from app.store import Shard, connect
from workers import probes
from workers.transport import Transport, tls_context
from workers.worker import Worker


def run(argv: Sequence[str]) -> None:
    """Run a worker until SIGTERM or SIGINT. Takes no arguments: the environment has the settings."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # a connection to each target takes one
    uvloop.run(serve(settings))


async def serve(settings: Settings) -> None:
    """Run a worker within a running event loop."""
    shard = Shard(connect(settings), settings)
    ca_file = settings.egress_ca_file
    transport = Transport(
        settings.snippet_bytes,
        settings.max_response_bytes,
        settings.max_jobs,
        tls=tls_context(ca_file) if ca_file else None,
    )
    worker = Worker(shard, transport)
    bind(worker=worker.name)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    try:
        async with probes.serving(worker, shard):
            await worker.main()
    finally:
        await worker.close()
