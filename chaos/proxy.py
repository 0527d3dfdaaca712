"""Between clients and Redis: what they say arrives later than they said it."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from pathlib import Path


class SlowProxy:
    """Listens on a unix socket; whatever a client sends waits for ``delay`` seconds, which can be changed."""

    def __init__(self, path: Path, behind: str) -> None:
        self.delay = 0.0
        self.url = f"unix://{path}?db=0"
        self._path, self._behind = path, behind
        self._loop = asyncio.new_event_loop()
        self._listening = threading.Event()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=[self._serve()])
        self._thread.start()
        self._listening.wait()

    def close(self) -> None:
        """Stop; its connections end."""
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    async def _serve(self) -> None:
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        server = await asyncio.start_unix_server(self._take, self._path)
        self._listening.set()
        await self._stop.wait()
        server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        behind, ahead = await asyncio.open_unix_connection(self._behind)
        try:
            await asyncio.gather(self._pass(reader, ahead, slow=True), self._pass(behind, writer, slow=False))
        finally:
            self._tasks.discard(task)
            writer.transport.abort()
            ahead.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, slow: bool) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(1 << 20):
                if slow and self.delay:
                    await asyncio.sleep(self.delay)
                writer.write(data)
                await writer.drain()
        writer.close()
