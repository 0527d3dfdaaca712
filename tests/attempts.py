"""One attempt at a target, without a queue: what tests of delivery and of the transport begin with."""

from __future__ import annotations

import asyncio
from typing import Any

from conftest import LOOPBACK
from helpers import Received, Target, define

from app.egress import make_egress
from app.models import Attempt, pack_definition
from app.store.queue import Claimed, Ended
from workers import delivery
from workers.outgoing import Ready
from workers.transport import Transport

HERE = make_egress(LOOPBACK, "", "")
SLOT = 1_790_000_040_000
NOW = SLOT + 1234


def claimed(attempts: list[Attempt] | None = None, **fields: Any) -> Claimed:
    """An execution that is claimed, with the attempts before."""
    packed = pack_definition(define(**fields))
    return Claimed(f"acme:nightly:{SLOT}", "acme", "nightly", SLOT, attempts or [], packed, 0, "t")


async def send(transport: Transport, attempts: list[Attempt] | None = None, **fields: Any) -> Ended:
    """Make one attempt."""
    return await delivery.attempt(transport, claimed(attempts, **fields), NOW, "w", Ready(HERE))


def only(target: Target) -> Received:
    """The one request that came."""
    (request,) = target.received
    return request


def status(code: int, extra: bytes = b"") -> bytes:
    """An answer with nothing but a status."""
    return b"HTTP/1.1 %d X\r\n%scontent-length: 0\r\n\r\n" % (code, extra)


def writes(*parts: bytes, pause: float = 0.0, close: bool = True) -> Any:
    """A target that writes this, a part at a time."""

    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)  # a part by itself, as a slow target sends it
        if close:
            writer.close()

    return answer
