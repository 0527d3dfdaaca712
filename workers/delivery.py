"""One attempt: an HTTP request made from a definition, sent once, and judged."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from functools import lru_cache

import msgspec
from msgspec import Struct

from app import __version__
from app.clock import rfc3339
from app.declared import variables
from app.declared.variables import Moment, Named, Template, Unfilled
from app.models import BODYLESS, Attempt, Definition, FailureKind, unpack_definition
from app.schedule import schedule_of
from app.signing import sign
from app.store.queue import Claimed, Ended
from app.urls import Origin, parse_target
from workers import retries
from workers.failures import NotSent, SendError
from workers.outgoing import Ready
from workers.retries import Policy, policy_of
from workers.transport import ResponseHeaders, Transport

log = logging.getLogger(__name__)

USER_AGENT = f"Cronspace/{__version__}"

_HOST = re.compile(rb"\r\nhost:(.*?)(?::[0-9]*)?\r\n", re.IGNORECASE)  # its name, and perhaps a port

_MAX_MESSAGE = 500
_CACHED_DEFINITION = 4096  # bytes; larger ones are prepared anew each time, so that the cache stays small


class Templates(Struct, frozen=True):
    """A request with variables: its head as in :class:`Prepared`, and its body, None where there is none."""

    head: Template
    body: Template | None

    def render(self, moment: Moment) -> tuple[bytes, bytes]:
        """Head and body of one attempt."""
        head = self.head.render(moment)
        if self.body is None:
            return head, b""
        body = self.body.render(moment)
        return b"%scontent-length: %d\r\n" % (head, len(body)), body


class Prepared(Struct, frozen=True):
    """What is the same in every attempt of a definition."""

    origin: Origin
    head: bytes  # the request line and the headers that never change
    body: bytes
    timeout: float
    policy: Policy
    templates: Templates | None = None  # in the place of head and body
    has_host: bool = False  # the trigger has a Host header of its own


def prepare(packed: bytes) -> Prepared:
    """The request of a stored definition."""
    return _prepare_cached(packed) if len(packed) <= _CACHED_DEFINITION else _prepare(packed)


def is_once(packed: bytes) -> bool:
    """Whether a stored definition is sent at most once."""
    try:
        return b"at_most_once" in packed and prepare(packed).policy.at_most_once
    except Exception:  # the attempt will say so
        return False


def _prepare(packed: bytes) -> Prepared:
    definition = unpack_definition(packed)
    if variables.OPEN.encode() in packed:
        return _prepare_variable(definition)
    origin, host, path = parse_target(definition.url)
    headers = _headers(definition, host)
    body = b""
    if definition.method not in BODYLESS:
        body = definition.payload
        if body.startswith(b'"'):
            body = msgspec.json.decode(body, type=str).encode()
        headers.append(("content-length", str(len(body))))
    lines = [f"{definition.method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), ""]
    head = "\r\n".join(lines).encode("ascii")
    policy, has_host = policy_of(definition), _has_host(definition)
    return Prepared(origin, head, body, definition.timeout_seconds, policy, has_host=has_host)


_prepare_cached = lru_cache(maxsize=4096)(_prepare)


def _prepare_variable(definition: Definition) -> Prepared:
    """The same with two braces somewhere: variables, or literal ones."""
    named = Named(definition.timezone, definition.name)
    origin, host, path = variables.compile_url(definition.url, named)
    lines: list[Template | bytes] = [f"{definition.method} ".encode(), path, b" HTTP/1.1\r\n"]
    for name, value in _headers(definition, host):
        lines += [f"{name}: ".encode(), variables.compile_header(value, named), b"\r\n"]
    body = None
    if definition.method not in BODYLESS:
        payload = definition.payload
        if payload.startswith(b'"'):
            body = variables.compile_text(msgspec.json.decode(payload, type=str), named)
        else:
            body = variables.compile_json(payload, named)
    templates = Templates(variables.join(*lines), body)
    policy, has_host = policy_of(definition), _has_host(definition)
    return Prepared(origin, b"", b"", definition.timeout_seconds, policy, templates, has_host)


def _has_host(definition: Definition) -> bool:
    return any(name.lower() == "host" for name in definition.headers)


def _host_asked(request: bytes, origin: Origin) -> str:
    """The host that a request's own header names, without the port; empty where it is the origin's."""
    head = request[: request.index(b"\r\n\r\n") + 2]
    found = _HOST.search(head)
    host = "" if found is None else found[1].decode("latin-1").strip().removesuffix(".").lower()
    return "" if host == origin[1].lower().removesuffix(".") else host


def _headers(definition: Definition, host: str) -> list[tuple[str, str]]:
    """The headers that are sent but for those that each attempt adds, and the length."""
    given = {name.lower() for name in definition.headers}
    headers = list(definition.headers.items())
    if "host" not in given:
        headers.insert(0, ("host", host))
    if "user-agent" not in given:
        headers.append(("user-agent", USER_AGENT))
    if "accept" not in given:
        headers.append(("accept", "*/*"))
    if definition.payload and definition.method not in BODYLESS and "content-type" not in given:
        is_text = definition.payload.startswith(b'"')
        headers.append(("content-type", "text/plain; charset=utf-8" if is_text else "application/json"))
    return headers


async def attempt(
    transport: Transport,
    execution: Claimed,
    started_ms: int,
    worker: str,
    outgoing: Ready,
    may_send: Callable[[], bool] = lambda: True,
    traceparent: str = "",
) -> Ended:
    """Send an execution's request once; what goes wrong becomes part of the outcome.

    Named secrets in what is recorded are masked: targets repeat what they are sent.
    ``started_ms`` is the time by Redis's clock. Raises nothing but ``CancelledError``, and :class:`NotSent`
    when ``may_send`` forbade it at the last moment.
    """
    begun = time.monotonic()
    timeout = 0.0
    status, kind, message, snippet = 0, "", "", ""
    headers: ResponseHeaders = ()
    sent = False
    prepared = None

    def may_begin() -> bool:
        nonlocal sent
        sent = may_send()
        return sent

    try:
        if execution.unreadable:
            raise SendError(FailureKind.KEY, execution.unreadable)
        if outgoing.fault:
            raise SendError(outgoing.fault_kind, outgoing.fault)
        prepared = prepare(execution.definition)
        request = build_request(prepared, execution, started_ms, outgoing, traceparent)
        timeout = min(prepared.timeout, outgoing.most_seconds)
        async with asyncio.timeout(timeout):
            asked = _host_asked(request, prepared.origin) if prepared.has_host else ""
            answer = await transport.send(prepared.origin, request, may_begin, outgoing.egress, asked)
        status, headers = answer.status, answer.headers
        snippet = outgoing.mask(answer.body.decode("utf-8", "replace"))
        if not prepared.policy.succeeds(status):
            kind, message = FailureKind.STATUS, f"the target answered {status}"
    except TimeoutError:
        kind, message = FailureKind.TIMEOUT, f"no complete answer within {timeout:g} s"
    except NotSent:
        raise
    except SendError as error:
        kind, message = error.kind, str(error)
    except Unfilled as error:
        kind, message = FailureKind.SECRET, str(error)
    except Exception as error:
        kind, message = FailureKind.INTERNAL, f"{type(error).__name__}: {error}"
    message = outgoing.mask(message)
    duration = round((time.monotonic() - begun) * 1000)
    made = Attempt(started_ms, duration, status, str(kind), message[:_MAX_MESSAGE], snippet, worker)
    if kind is FailureKind.KEY:
        return retries.without_key(execution, made)
    try:
        if prepared is not None:
            return retries.judge(execution, made, prepared.policy, sent, headers)
    except Exception:  # an attempt without an outcome would be held, and renewed, for ever
        log.exception("the answer can't be judged", extra={"execution": execution.id})
    return retries.failed(execution, made)


def host_of(execution: Claimed) -> str:
    """The host that an execution's request goes to; empty where that can't be said: its attempt will fail."""
    try:
        return prepare(execution.definition).origin[1].lower().rstrip(".")
    except Exception:  # what is wrong becomes part of the outcome, see `attempt`
        return ""


def interrupted(execution: Claimed, started_ms: int, now_ms: int, worker: str) -> Ended:
    """The outcome of a request that was cut off because its worker stops. Times are by Redis's clock."""
    message = "the worker stopped before the answer came; whether the request arrived is unknown"
    made = Attempt(started_ms, max(0, now_ms - started_ms), 0, FailureKind.WORKER_LOST, message, "", worker)
    return retries.interrupted(execution, prepare(execution.definition).policy, made)


def build_request(
    prepared: Prepared, execution: Claimed, now_ms: int, outgoing: Ready, traceparent: str = ""
) -> bytes:
    """The request of one attempt, as it goes over the wire; raises ``Unfilled``. A ``traceparent`` of the
    trigger's own stays.
    """
    head, body = prepared.head, prepared.body
    if prepared.templates is not None:
        head, body = prepared.templates.render(_moment(execution, now_ms, outgoing.secrets))
    timestamp = now_ms // 1000
    signature = ""
    if outgoing.signing and (secrets := outgoing.signing_at(now_ms)):
        signature = f"webhook-signature: {sign(secrets, execution.id, timestamp, body)}\r\n"
    trace = ""
    if traceparent and b"\r\ntraceparent:" not in head.lower():
        trace = f"traceparent: {traceparent}\r\n"
    changing = (
        f"webhook-id: {execution.id}\r\n"
        f"webhook-timestamp: {timestamp}\r\n"
        f"{signature}"
        f"{trace}"
        f"cronspace-attempt: {len(execution.attempts) + 1}\r\n"
        f"cronspace-scheduled-at: {rfc3339(execution.slot)}\r\n\r\n"
    )
    return b"".join((head, changing.encode("ascii"), body))


def _moment(execution: Claimed, now_ms: int, secrets: Mapping[str, str]) -> Moment:
    return Moment(
        execution=execution.id,
        workspace=execution.workspace,
        trigger=execution.trigger,
        attempt=len(execution.attempts) + 1,
        scheduled_at=execution.slot,
        started_at=now_ms,
        previous=lambda: previous_slot(execution),
        secrets=secrets,
    )


def previous_slot(execution: Claimed) -> int | None:
    """The slot of the schedule before an execution's, None for the first."""
    definition = unpack_definition(execution.definition)
    its = schedule_of(definition, execution.workspace, execution.trigger, execution.anchor)
    return its.previous(execution.slot)
