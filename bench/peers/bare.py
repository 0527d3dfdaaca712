"""No queue, no Redis, no records: a loop that keeps some requests under way, on aiohttp. The limit for all
that send from one Python process with a common client.

Called as: python -m bench.peers.bare URL count places; sends to URL/0/0, URL/0/1, … and prints the time at
which it began, in s since the epoch.
"""

from __future__ import annotations

import asyncio
import sys
import time

import aiohttp
import uvloop

from bench.due import HEADERS, PAYLOAD


async def main(url: str, count: int, places: int) -> None:
    """Send ``count`` requests, ``places`` at once."""
    numbers = iter(range(count))

    async def send(session: aiohttp.ClientSession) -> None:
        for number in numbers:
            async with session.post(f"{url}/0/{number}", data=PAYLOAD, headers=HEADERS) as response:
                await response.read()

    async with aiohttp.ClientSession() as session:
        print(time.time(), flush=True)
        await asyncio.gather(*(send(session) for _ in range(places)))


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
