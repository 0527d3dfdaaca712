"""The target: it records every request, when it came, and whether its answer went out or the caller hung up.

The path says what is asked for: ``/WORKSPACE/TRIGGER?do=slow&seconds=0.2``. What it does besides answering:

* ``slow``: answers after ``seconds``
* ``hang``: never answers
* ``drip``: a byte of its body a second
* ``endless``: a body that does not end
* ``bomb``: a small gzip body that would become 256 MB
* ``garbage``: bytes that are no HTTP
* ``headers``: a header without end
* ``close``: half of its body, and the end of the connection
"""

from __future__ import annotations

import asyncio
import gzip
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, TextIO, cast
from urllib.parse import parse_qs

import uvloop

from lab.processes import Process, free_port

_LAST_REQUESTS_SECONDS = 0.3  # what came twice has come by then, and is in the record


class Request(NamedTuple):
    """A request at the target. Moments are s since the epoch."""

    at: float
    workspace: str
    trigger: str
    id: str  # its webhook-id
    attempt: int
    slot: int  # ms since the epoch: what cronspace-scheduled-at said
    ended: float | None  # when the answer went out, or the caller hung up; None: neither has happened
    answered: bool


class Target:
    """A running target."""

    def __init__(self, process: Process, record: Path, port: int) -> None:
        self.process = process
        self.url = f"http://127.0.0.1:{port}"
        self.port = port
        self._record = record

    def count(self) -> int:
        """How many requests came so far."""
        return sum(line.startswith("came") for line in self._record.read_text().splitlines())

    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they came."""
        time.sleep(_LAST_REQUESTS_SECONDS)
        ends: dict[str, tuple[float, bool]] = {}
        came = []
        for line in self._record.read_text().splitlines():
            what, number, at, *rest = line.split("\t")
            if what == "came":
                came.append((number, float(at), rest))
            else:
                ends[number] = float(at), what == "answered"
        found = []
        for number, at, (path, id_, attempt, slot) in came:
            _, workspace, trigger = path.partition("?")[0].split("/")
            ended, answered = ends.get(number, (None, False))
            found.append(Request(at, workspace, trigger, id_, int(attempt), int(slot), ended, answered))
        return found


def start(process: Callable[[str, list[str]], Process], folder: Path) -> Target:
    """Start one; ``process`` starts a program by name and command."""
    folder.mkdir()
    record = folder / "record"
    record.touch()
    port = free_port()
    running = process("target", [sys.executable, "-m", "chaos.target", str(port), str(record)])
    running.wait_for_text("listening")
    return Target(running, record, port)


_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_CHUNK = b"x" * 65536
_BOMB = gzip.compress(bytes(256 << 20), 9)
_FLUSH_SECONDS = 0.05


class Record:
    """The file: ``came`` number, time, path, webhook-id, attempt, slot in ms; ``answered`` or ``cut`` number, time."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._number = 0

    def came(self, head: str) -> tuple[int, str]:
        """A request; returns its number and its path."""
        first, *lines = head.split("\r\n")
        path = first.split(" ")[1]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self._number += 1
        fields = (
            path,
            headers.get("webhook-id", ""),
            headers.get("cronspace-attempt", "0"),
            str(_ms(headers["cronspace-scheduled-at"]) if "cronspace-scheduled-at" in headers else 0),
        )
        self._line("came", self._number, *fields)
        return self._number, path

    def ended(self, number: int, answered: bool) -> None:
        """Its answer is out, or its caller is gone."""
        self._line("answered" if answered else "cut", number)

    def _line(self, what: str, number: int, *fields: str) -> None:
        self._file.write("\t".join((what, str(number), f"{time.time():.6f}", *fields)) + "\n")


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)


class Connection(asyncio.Protocol):
    """One connection; requests on it come one after another."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._received = b""
        self._open: int | None = None  # the number of the request that waits for its answer
        self._writable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def data_received(self, data: bytes) -> None:
        self._received += data
        while b"\r\n\r\n" in self._received:
            head, _, rest = self._received.partition(b"\r\n\r\n")
            text = head.decode("latin-1")
            lower = text.lower()
            size = 0
            if "content-length:" in lower:
                size = int(lower.partition("content-length:")[2].partition("\r\n")[0])
            if len(rest) < size:
                return
            self._received = rest[size:]
            self._open, path = self._record.came(text)
            asked = {name: values[0] for name, values in parse_qs(path.partition("?")[2]).items()}
            what = asked.get("do")
            if what is None:
                self._answer(_OK)
            elif what == "slow":
                asyncio.get_running_loop().call_later(float(asked["seconds"]), self._answer, _OK)
            else:
                self._task = asyncio.create_task(self._misbehave(what))

    def connection_lost(self, error: Exception | None) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._open is not None:
            self._record.ended(self._open, answered=False)
            self._open = None

    def _answer(self, answer: bytes) -> None:
        if self._open is not None and not self._transport.is_closing():
            self._transport.write(answer)
            self._record.ended(self._open, answered=True)
            self._open = None

    async def _misbehave(self, what: str) -> None:
        write = self._transport.write
        if what == "drip":
            write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while True:
                write(b".")
                await asyncio.sleep(1)
        elif what in ("endless", "headers"):
            write(b"HTTP/1.1 200 OK\r\n" + (b"\r\n" if what == "endless" else b"x-long: "))
            while True:
                write(_CHUNK)
                await self._writable.wait()
                await asyncio.sleep(0)
        elif what == "bomb":
            write(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\n")
            self._answer(b"content-length: %d\r\n\r\n%s" % (len(_BOMB), _BOMB))
        elif what == "garbage":
            write(b"\x16\x03\x01 this is no HTTP\r\n\r\n\x00\xff")
        elif what == "close":
            write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"." * 50)
            self._transport.close()
        # "hang": nothing, until the caller hangs up


async def _serve(port: int, path: str) -> None:
    with open(path, "a") as file:
        record = Record(file)
        loop = asyncio.get_running_loop()
        async with await loop.create_server(lambda: Connection(record), "127.0.0.1", port, backlog=4096):
            print("listening", flush=True)
            while True:
                await asyncio.sleep(_FLUSH_SECONDS)
                file.flush()


if __name__ == "__main__":
    uvloop.run(_serve(int(sys.argv[1]), sys.argv[2]))
