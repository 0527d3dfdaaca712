"""The API over ASGI, and what tests of its calls begin with."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from typing import Any

import httpx
from conftest import START, Clock, eventually
from examples import ADMIN_KEY
from helpers import Target, claim_all, define, failed, succeeded

from app.auth.callers import Scope
from app.auth.keys import ApiKey, new_key
from app.main import create_app
from app.models import Definition
from app.store import Shard, Shards, api_keys, queue, ticking, triggers
from app.store.queue import Claimed

ACME = "/api/workspaces/acme"
_numbers = itertools.count(1000)  # of claims: none that a test gives itself


@asynccontextmanager
async def client_of(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the API on a shard."""
    transport = httpx.ASGITransport(create_app(shard.settings, Shards([shard])), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def ok(pending: Awaitable[httpx.Response], status: int = 200) -> Any:
    """The body of an answer with the wanted status."""
    response = await pending
    assert response.status_code == status, response.text
    return response.json()


async def refused(pending: Awaitable[httpx.Response], status: int, code: str) -> Any:
    """The problem of an answer with the wanted status and code."""
    response = await pending
    assert (response.status_code, response.json()["code"]) == (status, code), response.text
    return response.json()


async def store_set(shard: Shard, workspace: str = "acme", **definitions: Definition | str) -> None:
    """Replace a workspace's set; a string stands for the cron expression."""
    entries = [(id_, define(one) if isinstance(one, str) else one) for id_, one in definitions.items()]
    await triggers.replace(shard, workspace, entries)


async def fire(shard: Shard) -> None:
    """Fire what is due, and judge what is too late, until nothing is left of it."""
    while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
        pass


async def minutes(shard: Shard, clock: Clock, number: int = 1, what: str = "succeeded") -> list[Claimed]:
    """Let minutes pass; what is due in each is sent and ends as told."""
    sent = []
    for _ in range(number):
        clock.advance(60)
        await fire(shard)
        sent += await finish_all(shard, clock, what)
    return sent


async def finish_all(shard: Shard, clock: Clock, what: str = "succeeded") -> list[Claimed]:
    """Claim and end what is ready."""
    claimed = await claim_all(shard, number=next(_numbers))
    end = succeeded if what == "succeeded" else failed
    await queue.finish(shard, [end(one, clock.now) for one in claimed])
    return claimed


def once(target: Target, **fields: Any) -> Any:
    """A trigger that only runs by hand."""
    return define("0 0 1 1 *", **{"url": f"{target.url}/x", **fields})


async def run_once(client: httpx.AsyncClient, workspace: str = "acme", **body: Any) -> dict[str, Any]:
    """Run the trigger ``t`` and wait for its end: the execution."""
    path = f"/api/workspaces/{workspace}"
    made = await ok(client.post(f"{path}/triggers/t/run", json=body or None), 202)

    async def ended() -> Any:
        shown = await ok(client.get(f"{path}/executions/{made['execution_id']}"))
        return shown["execution"] if shown["execution"]["finished_at"] else None

    execution: dict[str, Any] = await eventually(ended)
    return execution


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/health")).status_code == 200
    except httpx.TransportError:
        return False


def bearer(token: str) -> dict[str, str]:
    """The headers of a call with a token."""
    return {"authorization": f"Bearer {token}"}


async def key_for(client: httpx.AsyncClient, scope: Scope, *reach: str) -> str:
    """The text of a new key that the API made."""
    body = {"name": f"{scope} of {reach}", "scope": scope, "workspaces": list(reach)}
    made = await ok(client.post("/api/keys", json=body, headers=bearer(ADMIN_KEY)), 201)
    return str(made["key"])


async def store_key(shard: Shard, scope: Scope = "read", workspace: str = "acme") -> str:
    """The text of a new API key that is stored."""
    id_, text, digest = new_key()
    key = ApiKey(id=id_, name="x", scope=scope, workspaces=(workspace,), digest=digest, created=START)
    await api_keys.add(shard, key)
    return text
