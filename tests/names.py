"""A name server on loopback: UDP, A and AAAA records, and what a test does to them."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import cast

A, AAAA = 1, 28

Zone = Callable[[str], Sequence[str] | None]


class NameServer(asyncio.DatagramProtocol):
    """``zone`` gives a name's addresses; none: there is no such name; None: no answer at all.

    It is asked once for each look-up, which is a query for A and one for AAAA. Nobody may keep an answer.
    """

    def __init__(self, zone: Zone) -> None:
        self.zone = zone
        self.asked: list[str] = []  # names, once for each look-up
        self.address = ""  # with port, for ``Resolver(servers=…)``
        self._answers: dict[str, list[Sequence[str] | None]] = {}
        self._queries: Counter[tuple[str, int]] = Counter()
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)
        host, port = transport.get_extra_info("sockname")
        self.address = f"{host}:{port}"

    def datagram_received(self, query: bytes, client: tuple[str, int]) -> None:
        labels, end = [], 12
        while size := query[end]:
            labels.append(query[end + 1 : end + 1 + size].decode())
            end += 1 + size
        name, kind = ".".join(labels).lower(), int.from_bytes(query[end + 1 : end + 3], "big")
        answers, number = self._answers.setdefault(name, []), self._queries[name, kind]
        self._queries[name, kind] += 1
        if number == len(answers):
            self.asked.append(name)
            answers.append(self.zone(name))
        found = answers[number]
        if found is None:
            return
        records = [self._record(kind, text) for text in found]
        records = [record for record in records if record]
        flags = b"\x81\x80" if found else b"\x81\x83"
        counts = b"\0\1" + len(records).to_bytes(2, "big") + b"\0\0\0\0"
        assert self._transport is not None
        self._transport.sendto(query[:2] + flags + counts + query[12 : end + 5] + b"".join(records), client)

    @staticmethod
    def _record(kind: int, text: str) -> bytes:
        address = ip_address(text)
        if address.version != (4 if kind == A else 6):
            return b""
        packed = address.packed
        return (
            b"\xc0\x0c" + kind.to_bytes(2, "big") + b"\0\1\0\0\0\0" + len(packed).to_bytes(2, "big") + packed
        )


@asynccontextmanager
async def serving_names(zone: Zone) -> AsyncIterator[NameServer]:
    """Serve until the block ends."""
    loop = asyncio.get_running_loop()
    transport, server = await loop.create_datagram_endpoint(
        lambda: NameServer(zone), local_addr=("127.0.0.1", 0), family=socket.AF_INET
    )
    try:
        yield server
    finally:
        transport.close()
        await asyncio.sleep(0)
