"""What lies between Redis and its clients in tests: a connection that loses replies, or is slow."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Proxy:
    """Between clients and Redis. ``lose_next``: that many connections are dropped after a script (or what
    ``losing`` names) ran, before its reply. ``delay``: seconds that every reply takes longer.
    """

    def __init__(self, path: str, losing: bytes = b"EVALSHA") -> None:
        self._path = path
        self._losing = losing
        self.lose_next = 0
        self.delay = 0.0
        self.lost = 0
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        behind, ahead = await asyncio.open_unix_connection(self._path)
        self._writers += [writer, ahead]
        losing = False

        async def forward() -> None:
            nonlocal losing
            while data := await reader.read(65536):
                if self.lose_next and self._losing in data:
                    self.lose_next -= 1
                    losing = True
                ahead.write(data)

        async def back() -> None:
            while data := await behind.read(65536):
                if losing:
                    self.lost += 1
                    break
                await asyncio.sleep(self.delay)
                writer.write(data)
            writer.transport.abort()
            ahead.transport.abort()

        await asyncio.gather(forward(), back(), return_exceptions=True)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Listen on a port; gives the URL without the database."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)
