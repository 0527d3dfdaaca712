"""All of the product in one process: the API, and a worker for each shard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from conftest import LOOPBACK
from helpers import Target

from app.config import Settings
from app.main import create_app
from app.store import Shards, open_shards
from workers.places import Places
from workers.transport import Transport
from workers.worker import Worker


@asynccontextmanager
async def product(settings: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, Shards]]:
    """A client of the API, and the shards; workers send while the block runs."""
    shards = open_shards(settings)
    places = Places(settings.max_jobs)
    transport = Transport(settings.snippet_bytes, settings.max_response_bytes, settings.max_jobs)
    working = [Worker(shard, transport, places) for shard in shards]
    tasks = [asyncio.create_task(worker.main()) for worker in working]
    served = httpx.ASGITransport(create_app(settings, shards), raise_app_exceptions=False)
    try:
        async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
            yield client, shards
    finally:
        for worker in working:
            worker.stop()
        await asyncio.gather(*tasks)
        await transport.aclose()
        await shards.aclose()


def settings_of(url: str, shards: int, **given: Any) -> Settings:
    """Settings of a deployment whose targets are on loopback."""
    return Settings(redis_url=url, shards=shards, egress_allow=LOOPBACK, **given)


def one_trigger(target: Target, name: str, cron: str) -> dict[str, Any]:
    """A set of one trigger, whose requests arrive at the path ``name``."""
    return {"triggers": [{"id": "t", "cron": cron, "method": "POST", "url": f"{target.url}/{name}"}]}
