"""arq as it comes, sending with httpx: the peer that shows what our worker adds to arq's own.

Called as: python -m bench.peers.stock_arq schedule|work SOCKET-of-redis [places]; `schedule` reads
{"url", "at"} lines from standard input, ``at`` in s since the epoch.
"""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import UTC, datetime
from typing import Any

import arq
import httpx
from arq.connections import RedisSettings

from bench.due import HEADERS, PAYLOAD

_BATCH = 200  # jobs put into the queue at once


async def send(ctx: dict[str, Any], url: str) -> int:
    """The job: one request; returns its status."""
    response = await ctx["client"].post(url, headers=HEADERS, content=PAYLOAD)
    return int(response.status_code)


async def schedule(socket: str) -> None:
    """Put a deferred job into the queue for every line."""
    pool = await arq.create_pool(RedisSettings(unix_socket_path=socket))
    lines = [json.loads(line) for line in sys.stdin if line.strip()]
    for start in range(0, len(lines), _BATCH):
        batch = lines[start : start + _BATCH]
        await asyncio.gather(
            *(
                pool.enqueue_job("send", line["url"], _defer_until=datetime.fromtimestamp(line["at"], UTC))
                for line in batch
            )
        )
    await pool.aclose()


async def start(ctx: dict[str, Any]) -> None:
    """arq's on_startup: one client for all jobs."""
    ctx["client"] = httpx.AsyncClient()
    print("ready", flush=True)


async def work(socket: str, places: int) -> None:
    """A worker with all its other settings at their defaults."""
    worker = arq.Worker(
        functions=[send],
        redis_settings=RedisSettings(unix_socket_path=socket),
        max_jobs=places,
        on_startup=start,
    )
    await worker.async_run()


if __name__ == "__main__":
    asyncio.run(schedule(sys.argv[2]) if sys.argv[1] == "schedule" else work(sys.argv[2], int(sys.argv[3])))
