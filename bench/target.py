"""The target: it answers at once, and remembers every request with its time of arrival.

nginx where installed; else a small asyncio server that does nothing but answer.
"""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple, cast

import uvloop

from lab.processes import ROOT, free_port

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  log_format arrivals '$msec $request_uri';
  access_log {folder}/arrivals arrivals buffer=64k flush=100ms;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  keepalive_requests 1000000;
  server {{ listen 127.0.0.1:{port}; location / {{ return 200 "ok"; }} }}
}}
"""


class Arrival(NamedTuple):
    """A request at the target."""

    at: float  # seconds since the epoch
    path: str


class Target:
    """A running target; ``delay`` seconds before each answer (then it is always the small server)."""

    def __init__(self, folder: Path, delay: float = 0.0) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / "arrivals"
        nginx = None if delay else shutil.which("nginx")
        self.kind = "nginx" if nginx else "asyncio"
        self._log.touch()
        if nginx:
            configuration = folder / "nginx.conf"
            configuration.write_text(_NGINX.format(folder=folder, port=self.port))
            error_log = str(folder / "error.log")
            command = [nginx, "-p", str(folder), "-c", str(configuration), "-e", error_log]
        else:
            command = [sys.executable, "-m", "bench.target", str(self.port), str(delay), str(self._log)]
        self._process = subprocess.Popen(command, cwd=ROOT)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline or self._process.poll() is not None:
                    self.close()
                    raise
                time.sleep(0.02)

    def arrivals(self) -> list[Arrival]:
        """All requests so far, in order. The last 0.2 s may be missing."""
        lines = self._log.read_text().splitlines()
        pairs = (line.split(" ", 1) for line in lines if " " in line)
        return [Arrival(float(at), path) for at, path in pairs]

    def wait_for(self, count: int, timeout: float) -> list[Arrival]:
        """Wait until that many requests came (or the time is up); returns all."""
        deadline = time.monotonic() + timeout
        while True:
            with self._log.open("rb") as log:
                seen = sum(chunk.count(b"\n") for chunk in iter(lambda: log.read(1 << 20), b""))
            if seen >= count or time.monotonic() > deadline:
                time.sleep(0.3)  # what would come twice has come by now
                return self.arrivals()
            time.sleep(0.05)

    def close(self) -> None:
        """Stop it."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()


def _serve(port: int, delay: float, log: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"

    class Protocol(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.transport = cast(asyncio.Transport, transport)
            self.pending = b""

        def data_received(self, data: bytes) -> None:
            self.pending += data
            while b"\r\n\r\n" in self.pending:
                head, rest = self.pending.split(b"\r\n\r\n", 1)
                lower = head.lower()
                size = 0
                if b"content-length:" in lower:
                    size = int(lower.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
                if len(rest) < size:
                    return
                self.pending = rest[size:]
                record.write(f"{time.time():.6f} {head.split(b' ', 2)[1].decode()}\n")
                if delay:
                    asyncio.get_running_loop().call_later(delay, self.answer)
                else:
                    self.answer()

        def answer(self) -> None:
            if not self.transport.is_closing():
                self.transport.write(answer)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        async with await loop.create_server(Protocol, "127.0.0.1", port, backlog=4096):
            while True:
                await asyncio.sleep(0.1)
                record.flush()

    with open(log, "a") as record:
        uvloop.run(main())


if __name__ == "__main__":
    _serve(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3])
