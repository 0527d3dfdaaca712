"""`cronspace worker`: a worker process."""

from __future__ import annotations

import asyncio
import resource
import signal
from collections.abc import Sequence

import uvloop

from app.config import Settings, load_settings
from app.logs import set_up_logging
from app.store import Shard, connect
from app.store.rotation import warn_of_keys
from workers.transport import Transport, tls_context
from workers.worker import Worker


def run(argv: Sequence[str]) -> None:
    """Run a worker until SIGTERM or SIGINT. Takes no arguments: the environment has the settings."""
    settings = load_settings()
    set_up_logging(settings.log_level)
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
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    checking = asyncio.create_task(warn_of_keys(shard))
    try:
        await worker.main()
    finally:
        checking.cancel()
        await worker.close()
