"""A worker's own port: whether it lives, whether it can work, and its metrics."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from app.auth import keys
from app.errors import ApiError
from app.listener import listen
from app.protocol import bounded
from app.store import Shard, Shards, api_keys, readiness
from app.telemetry.figures import CONTENT_TYPE, write_out
from app.telemetry.metrics import WORKER_PLACES, WORKER_RUNNING, WORKER_UNRECORDED
from workers.account import Account
from workers.places import Places
from workers.worker import Worker

_LAST_SECONDS = 2.0  # for answers under way when the worker stops


def make_app(workers: Sequence[Worker], shards: Shards, account: Account, places: Places) -> Starlette:
    """The application behind the port of a process that serves some shards."""
    settings = shards.settings

    async def live(request: Request) -> Response:
        """The loop turns: a lost Redis is no reason to restart a worker."""
        return JSONResponse({"status": "ok"})

    async def ready(request: Request) -> Response:
        """It can take work: Redis answers and takes writes, as far as it is served; loops get through."""
        trouble = next(filter(None, (worker.trouble for worker in workers)), "")
        try:
            await readiness.check_ready(shards.served)
        except (RedisError, OSError) as error:
            trouble = trouble or f"Redis: {error or type(error).__name__}"
        if trouble:
            return JSONResponse({"status": "not ready", "reason": trouble}, 503)
        return JSONResponse({"status": "ok"})

    async def metrics(request: Request) -> Response:
        """What this worker did."""
        try:
            if settings.metrics == "authenticated" and not await _may_look(request, shards.first):
                return JSONResponse({"status": "unauthorized"}, 401, {"www-authenticate": "Bearer"})
        except (RedisError, OSError):
            return JSONResponse({"status": "who may look can't be told: Redis failed"}, 503)
        account.figures.set(WORKER_RUNNING, places.size - places.free)
        account.figures.set(WORKER_PLACES, places.size)
        account.figures.set(WORKER_UNRECORDED, sum(worker.unrecorded for worker in workers))
        return Response(write_out(account.figures), media_type=CONTENT_TYPE)

    routes = [Route("/live", live), Route("/ready", ready)]
    return Starlette(routes=routes if settings.metrics == "off" else [*routes, Route("/metrics", metrics)])


async def _may_look(request: Request, shard: Shard) -> bool:
    """Whether a request carries the admin key, or an API key for all workspaces."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    settings = shard.settings
    if settings.auth == "none":  # has to be said: a worker needs no CRONSPACE_AUTH
        return True
    if scheme.lower() != "bearer":
        return False
    if settings.admin_key and hmac.compare_digest(keys.digest_of(token), keys.digest_of(settings.admin_key)):
        return True
    parts = keys.split_key(token)
    found = await api_keys.find(shard, parts[0]) if parts else None
    if parts is None or found is None or not keys.same_secret(parts[1], found[0].digest):
        return False
    key = found[0]
    return key.reach is None and (not key.expires or await shard.now_ms() < key.expires)


def _refusal(error: ApiError) -> Response:
    return JSONResponse({"status": error.title}, error.status)


class _Server(uvicorn.Server):
    """A server within the worker's loop: signals are the worker's."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


@asynccontextmanager
async def serving(
    workers: Sequence[Worker], shards: Shards, account: Account, places: Places
) -> AsyncIterator[int]:
    """Serve while the block runs; gives the port, 0 where there is none. Raises :class:`ConfigError`."""
    settings = shards.settings
    if not settings.worker_port:
        yield 0
        return
    listener = listen(settings.host, settings.worker_port, "CRONSPACE_WORKER_PORT")
    config = uvicorn.Config(
        make_app(workers, shards, account, places),
        log_config=None,
        access_log=False,
        http=bounded(settings, _refusal),  # type: ignore[arg-type] # wants a class, and calls it
        lifespan="off",
        timeout_graceful_shutdown=1,
        server_header=False,
        proxy_headers=False,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield int(listener.getsockname()[1])
    finally:
        server.should_exit = True
        await asyncio.wait([task], timeout=_LAST_SECONDS)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        listener.close()
