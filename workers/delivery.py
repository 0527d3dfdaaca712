"""One attempt: an HTTP request made from a definition, sent once, and judged."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import lru_cache

import msgspec
from msgspec import Struct

from app import __version__
from app.clock import rfc3339
from app.models import BODYLESS, Attempt, FailureKind, unpack_definition
from app.store.queue import Claimed, Ended
from app.urls import Origin, parse_target
from workers.transport import NotSent, SendError, Transport

USER_AGENT = f"Cronspace/{__version__}"

_RETRIED_STATUSES = frozenset({408, 425, 429})
_LONGEST_BACKOFF_MS = 3_600_000
_MAX_MESSAGE = 500
_CACHED_DEFINITION = 4096  # bytes; larger ones are prepared anew each time, so that the cache stays small


class Prepared(Struct, frozen=True):
    """What is the same in every attempt of a definition."""

    origin: Origin
    head: bytes  # the request line and the headers that never change
    body: bytes
    timeout: float
    max_retries: int


def prepare(packed: bytes) -> Prepared:
    """The request of a stored definition."""
    return _prepare_cached(packed) if len(packed) <= _CACHED_DEFINITION else _prepare(packed)


def _prepare(packed: bytes) -> Prepared:
    definition = unpack_definition(packed)
    origin, host, path = parse_target(definition.url)
    given = {name.lower() for name in definition.headers}
    headers = list(definition.headers.items())
    if "host" not in given:
        headers.insert(0, ("host", host))
    if "user-agent" not in given:
        headers.append(("user-agent", USER_AGENT))
    if "accept" not in given:
        headers.append(("accept", "*/*"))
    body = b""
    if definition.method not in BODYLESS:
        body = definition.payload
        content_type = "application/json"
        if body.startswith(b'"'):
            body = msgspec.json.decode(body, type=str).encode()
            content_type = "text/plain; charset=utf-8"
        if definition.payload and "content-type" not in given:
            headers.append(("content-type", content_type))
        headers.append(("content-length", str(len(body))))
    lines = [f"{definition.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), ""]
    return Prepared(
        origin,
        "\r\n".join(lines).encode("ascii"),
        body,
        definition.timeout_seconds,
        definition.max_retries,
    )


_prepare_cached = lru_cache(maxsize=4096)(_prepare)


async def attempt(
    transport: Transport,
    execution: Claimed,
    started_ms: int,
    worker: str,
    may_send: Callable[[], bool] = lambda: True,
) -> Ended:
    """Send an execution's request once; what goes wrong becomes part of the outcome.

    ``started_ms`` is the time by Redis's clock. Raises nothing but ``CancelledError``, and :class:`NotSent`
    when ``may_send`` forbade it at the last moment.
    """
    begun = time.monotonic()
    status, kind, message, snippet = 0, "", "", ""
    max_retries = 0
    try:
        prepared = prepare(execution.definition)
        max_retries = prepared.max_retries
        request = build_request(prepared, execution, started_ms)
        async with asyncio.timeout(prepared.timeout):
            answer = await transport.send(prepared.origin, request, may_send)
        status = answer.status
        snippet = answer.body.decode("utf-8", "replace")
        if not 200 <= status < 300:
            kind, message = FailureKind.STATUS, f"the target answered {status}"
    except TimeoutError:
        kind, message = FailureKind.TIMEOUT, f"no complete answer within {prepared.timeout:g} s"
    except NotSent:
        raise
    except SendError as error:
        kind, message = error.kind, str(error)
    except Exception as error:
        kind, message = FailureKind.INTERNAL, f"{type(error).__name__}: {error}"
    duration = round((time.monotonic() - begun) * 1000)
    made = Attempt(started_ms, duration, status, str(kind), message[:_MAX_MESSAGE], snippet, worker)
    return judge(execution, made, max_retries)


def build_request(prepared: Prepared, execution: Claimed, now_ms: int) -> bytes:
    """The request of one attempt, as it goes over the wire."""
    changing = (
        f"webhook-id: {execution.id}\r\n"
        f"webhook-timestamp: {now_ms // 1000}\r\n"
        f"cronspace-attempt: {len(execution.attempts) + 1}\r\n"
        f"cronspace-scheduled-at: {rfc3339(execution.slot)}\r\n\r\n"
    )
    return b"".join((prepared.head, changing.encode("ascii"), prepared.body))


def judge(execution: Claimed, made: Attempt, max_retries: int) -> Ended:
    """Succeeded, failed for good, or to be tried again and when."""
    if not made.kind:
        return Ended(execution.id, execution.token, "succeeded", 0, made)
    # An attempt that was lost with its worker is no answer of the target's: it uses no retry up.
    tries = 1 + sum(a.kind != FailureKind.WORKER_LOST for a in execution.attempts)
    if tries > max_retries or not _worth_another(made):
        return Ended(execution.id, execution.token, "failed", 0, made)
    delay = min(1000 * 2 ** min(tries - 1, 30), _LONGEST_BACKOFF_MS)
    return Ended(execution.id, execution.token, "retry", delay, made)


def _worth_another(made: Attempt) -> bool:
    if made.kind == FailureKind.STATUS:
        return made.status >= 500 or made.status in _RETRIED_STATUSES
    return made.kind != FailureKind.INTERNAL
