"""The API as an ASGI application, and `cronspace api`."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette

from app import __version__
from app.api import (
    all_executions,
    api_keys,
    audit,
    bulk,
    cron,
    echo,
    egress,
    executions,
    health,
    history,
    ledger,
    metrics,
    named_secrets,
    orders,
    revisions,
    signing_secrets,
    stats,
    system,
    trigger_sets,
    triggers,
    workspaces,
)
from app.api.auth import Gate
from app.api.operations import routes_of
from app.api.problems import HANDLERS, problem
from app.api.reference import reference_routes
from app.api.refusals import Refusals
from app.api.scrape import scrape_routes
from app.auth.rules import check
from app.config import Settings, load_settings
from app.listener import listen
from app.logs import set_up_logging
from app.loops import Loop, end
from app.protocol import bounded
from app.store import Shards, open_shards
from app.store.connection import address_of
from app.store.memory import Memory
from app.store.rotation import KeyCheck
from app.telemetry.figures import of_process
from app.telemetry.metrics import OF_API
from app.telemetry.traces import open_traces

if TYPE_CHECKING:
    from app.telemetry.tracing import Traces

log = logging.getLogger(__name__)

# In the order of the document.
NOUNS = (
    workspaces.noun,
    trigger_sets.noun,
    triggers.noun,
    orders.noun,
    bulk.noun,
    revisions.noun,
    executions.noun,
    metrics.noun,
    history.noun,
    ledger.noun,
    stats.noun,
    all_executions.noun,
    cron.noun,
    signing_secrets.noun,
    named_secrets.noun,
    egress.noun,
    api_keys.noun,
    audit.noun,
    system.noun,
    health.noun,
)


def create_app(settings: Settings, shards: Shards | None = None, traces: Traces | None = None) -> Starlette:
    """The application; given ``shards`` are left open at the end, those of its own are closed.

    Where ``settings`` leave authentication undecided it is off: only :func:`run` insists on a choice.
    """
    used = shards or open_shards(settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        memories = [Memory(shard) for shard in used]
        for memory in memories:
            memory.recall()
        loops = [Loop("watcher", one.watch, outage=one.outage) for one in used.replicas]
        loops += [
            Loop("witness", memory.once, outage=shard.outage)
            for shard, memory in zip(used, memories, strict=True)
        ]
        loops += [refusals.loop, Loop("key check", KeyCheck(used).once)]
        running = {loop: asyncio.create_task(loop.run()) for loop in loops}
        try:
            yield
        finally:
            await end(running)
            for memory in memories:
                memory.save()
        if shards is None:
            await used.aclose()

    figures, refusals = of_process(OF_API), Refusals(used)
    routes = [*routes_of(NOUNS), *reference_routes(NOUNS, settings), *scrape_routes(settings, used, figures)]
    if settings.echo:
        routes += echo.routes
    app = Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=lifespan)
    # Nobody is sent on: the Host would say where to, in plain http:// behind what ends TLS, key and all.
    app.router.redirect_slashes = False
    app.state.shards = used
    app.state.figures = figures
    app.state.refusals = refusals
    app.state.traces = traces
    for shard in used:
        shard.traces = traces
    app.state.gate = Gate(settings, used.first)
    return app


async def _hold_against_stored(settings: Settings) -> None:
    """Raise :class:`WrongDeployment` where it can be known now; without Redis the first calls will tell."""
    shards = open_shards(settings)
    try:
        await shards.verify()
    except (RedisError, OSError) as error:
        log.warning("Redis can't be used yet (%s): calls are answered with 503 meanwhile", error)
    finally:
        await shards.aclose()


def run(argv: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Takes no arguments: the environment has the settings."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    for warning in check(settings):
        log.warning("%s", warning)
    asyncio.run(_hold_against_stored(settings))
    listener = listen(settings.host, settings.port, "PORT")
    traces = open_traces(settings, "cronspace-api")
    app = create_app(settings, traces=traces)
    log.info(
        "version %s listens on %s:%d; shards: %d; Redis at %s",
        __version__,
        settings.host,
        listener.getsockname()[1],
        settings.shards,
        address_of(settings.redis_url),
    )
    server_of(settings, app).run(sockets=[listener])
    if traces is not None:
        traces.close()


def server_of(settings: Settings, app: Starlette) -> uvicorn.Server:
    """The server of an application."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=bounded(settings, problem),  # type: ignore[arg-type] # wants a class, and calls it
        log_config=None,
        access_log=settings.log_level == "DEBUG",
        timeout_graceful_shutdown=int(settings.grace_seconds),
        server_header=False,
        proxy_headers=False,  # whom to believe is ours to say: CRONSPACE_TRUSTED_PROXIES
    )
    return uvicorn.Server(config)
