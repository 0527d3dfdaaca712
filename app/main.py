"""The API as an ASGI application, and `cronspace api`."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import uvicorn
from starlette.applications import Starlette

from app.api import (
    all_executions,
    api_keys,
    audit,
    bulk,
    cron,
    echo,
    executions,
    health,
    history,
    ledger,
    metrics,
    orders,
    revisions,
    stats,
    trigger_sets,
    triggers,
    workspaces,
)
from app.api.auth import Gate
from app.api.operations import routes_of
from app.api.problems import HANDLERS
from app.api.reference import reference_routes
from app.api.scrape import scrape_routes
from app.auth.rules import check
from app.config import Settings, load_settings
from app.listener import listen
from app.logs import set_up_logging
from app.store import Shard, connect
from app.telemetry.figures import of_process
from app.telemetry.metrics import OF_API

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
    api_keys.noun,
    audit.noun,
    health.noun,
)


def create_app(settings: Settings, shard: Shard | None = None) -> Starlette:
    """The application; a given ``shard`` is left open at the end, one of its own is closed.

    Where ``settings`` leave authentication undecided it is off: only :func:`run` insists on a choice.
    """
    used = shard or Shard(connect(settings), settings)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        if shard is None:
            await used.redis.aclose()

    figures = of_process(OF_API)
    routes = [*routes_of(NOUNS), *reference_routes(NOUNS, settings), *scrape_routes(settings, used, figures)]
    if settings.echo:
        routes += echo.routes
    app = Starlette(routes=routes, exception_handlers=HANDLERS, lifespan=lifespan)
    app.state.shard = used
    app.state.figures = figures
    app.state.gate = Gate(settings, used)
    return app


def run(argv: Sequence[str]) -> None:
    """Serve until SIGTERM or SIGINT. Takes no arguments: the environment has the settings."""
    settings = load_settings()
    set_up_logging(settings.log_level, settings.log_format)
    for warning in check(settings):
        log.warning("%s", warning)
    listener = listen(settings.host, settings.port, "PORT")
    config = uvicorn.Config(
        create_app(settings),
        loop="uvloop",
        http="httptools",
        log_config=None,
        access_log=settings.log_level == "DEBUG",
        timeout_graceful_shutdown=int(settings.grace_seconds),
        server_header=False,
        proxy_headers=False,  # whom to believe is ours to say: CRONSPACE_TRUSTED_PROXIES
    )
    uvicorn.Server(config).run(sockets=[listener])
