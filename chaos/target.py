"""The target: it records every request, when it came, and whether its answer went out or the caller hung up.

The path says what is asked for: ``/WORKSPACE/TRIGGER?do=slow&seconds=0.2``. What it does besides answering:

* ``slow``: answers after ``seconds``
* ``hang``: never answers
* ``drip``: a byte of its body a second
* ``endless``: a body that does not end
* ``bomb``: a small gzip body that would become 32 MB
* ``garbage``: bytes that are no HTTP
* ``headers``: a header without end
* ``close``: half of its body, and the end of the connection

Who speaks TLS to it gets a plain answer. A second port speaks TLS, with a certificate that nobody trusts, and
a third one is bound and refuses.
"""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import NamedTuple, TextIO, cast
from urllib.parse import parse_qs

import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from lab.processes import Process

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

    def __init__(self, process: Process, record: Path, ports: Sequence[int]) -> None:
        plain, tls, refusing = (f"127.0.0.1:{port}" for port in ports)
        self.process = process
        self.url = f"http://{plain}"
        self.plain_tls_url = f"https://{plain}"
        self.untrusted_url = f"https://{tls}"
        self.refusing_url = f"http://{refusing}"
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
    running = process("target", [sys.executable, "-m", "chaos.target", str(record)])
    running.wait_for_text("\n")
    return Target(running, record, [int(port) for port in running.said().split()])


_OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
_CHUNK = b"x" * 65536
_CLIENT_HELLO = b"\x16\x03"  # how TLS begins
_FLUSH_SECONDS = 0.05


@cache
def _bomb() -> bytes:
    return gzip.compress(bytes(32 << 20), 9)


class Record:
    """The file, in lines: ``came``, a number, the time, path, webhook-id, attempt, slot in ms; and later
    ``answered`` or ``cut``, the number, the time.
    """

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
        if self._received.startswith(_CLIENT_HELLO):
            self._transport.write(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            self._transport.close()
            return
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
            self._answer(b"content-length: %d\r\n\r\n%s" % (len(_bomb()), _bomb()))
        elif what == "garbage":
            write(b"\x16\x03\x01 this is no HTTP\r\n\r\n\x00\xff")
        elif what == "close":
            write(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + b"." * 50)
            self._transport.close()
        # "hang": nothing, until the caller hangs up


def _untrusted(folder: Path) -> ssl.SSLContext:
    """A server's TLS with a certificate that it made itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = folder / "untrusted.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context


async def _serve(file: TextIO, context: ssl.SSLContext) -> None:
    record = Record(file)
    loop = asyncio.get_running_loop()
    plain = await loop.create_server(lambda: Connection(record), "127.0.0.1", 0, backlog=4096)
    tls = await loop.create_server(lambda: Connection(record), "127.0.0.1", 0, ssl=context)
    with socket.socket() as refusing:
        refusing.bind(("127.0.0.1", 0))
        ports = [plain.sockets[0], tls.sockets[0], refusing]
        print(*(one.getsockname()[1] for one in ports), flush=True)
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            file.flush()


def _main(path: Path) -> None:
    with path.open("a") as file:
        uvloop.run(_serve(file, _untrusted(path.parent)))


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
