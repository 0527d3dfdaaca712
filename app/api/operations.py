"""Operations: each is declared once, and routing, reading, errors and the OpenAPI document come from that.

    noun = Noun("executions", "What became of the slots.", "/api/workspaces/{workspace_id}/executions")

    @noun.operation("GET", "/{execution_id}", errors=(NotFound,))
    async def get_execution(shard: Shard, workspace_id: WorkspaceId, execution_id: str) -> ExecutionAnswer:
        '''One execution with every attempt.

        The first line is the summary, the rest the description.
        '''

The handler's parameters say what it takes:

* a name of the path's: that value, of the annotated type
* ``query``, ``headers``: a Struct of the parameters; ``if_match`` is the header ``If-Match``
* ``body``: a Struct, or ``Struct | None`` where the body may be left out; or ``bytes`` for a body that the
  handler parses itself, and then ``operation(body=…)`` names the type for the document
* ``shard``: the store of the path's workspace; ``shards``: of all. Only an operation that takes one of them
  can answer 503, where authentication is off
* ``call``: the rest of the request and who calls, the answer's status and headers, what the audit tells

``scope`` is what a caller has to have (see ``app/auth/callers.py``). Left out it is ``read`` for a GET and
``write`` for the rest, so that a forgotten one refuses rather than allows; ``open`` asks nobody who they are.
Whatever does not look only is written into the audit when it has succeeded (``app/api/auditing.py``).

The annotated type of what it returns is the answer; a union names answers to choose from.
Whatever is wrong with path, query and headers is told at once, and unknown query parameters are refused: a
misspelt ``?dry_run`` must not replace anything.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from types import NoneType
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args, get_type_hints

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, compile_path
from starlette.types import Receive, Scope, Send

from app.api.auditing import Told, note_change
from app.api.auth import Gate
from app.api.reading import Body, Field, Fields, aside
from app.auth.callers import ANYBODY
from app.auth.callers import Scope as CallerScope
from app.config import Settings
from app.errors import (
    ApiError,
    BodyTooLarge,
    Fault,
    InvalidRequest,
    MethodNotAllowed,
    NotConfirmed,
    RequestTimeout,
    SealError,
    StoreUnavailable,
    TooManyWorkspaces,
    WrongDeployment,
)
from app.store import Shards, everywhere

if TYPE_CHECKING:
    from app.telemetry.tracing import Traces

Handler = TypeVar("Handler", bound=Callable[..., Awaitable[msgspec.Struct]])

_SPECIAL = ("shard", "shards", "call", "query", "headers", "body")
_encode = msgspec.json.Encoder().encode


class NoQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The query of an operation without parameters."""


class Call:
    """A request beside its declared input, and what an answer has beside its body."""

    __slots__ = ("caller", "headers", "request", "status", "told")

    def __init__(self, request: Request, status: int) -> None:
        self.request = request
        self.caller = ANYBODY
        self.told = Told()  # what the audit tells beside what the answer says
        self.status = status  # of the answer: one of those declared
        self.headers: dict[str, str] = {}  # of the answer: only those declared


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One method of one path."""

    tag: str
    name: str
    method: str
    path: str
    scope: CallerScope | Literal["open"]
    summary: str
    description: str
    handler: Callable[..., Awaitable[msgspec.Struct]]
    takes: frozenset[str]
    in_path: Mapping[str, Field]
    query: Fields
    headers: Fields | None
    body: type[msgspec.Struct] | None
    body_required: bool
    body_reader: Body | None  # None: the handler parses it itself
    answers: tuple[type[msgspec.Struct], ...]
    statuses: tuple[int, ...]  # the usual one first
    answer_headers: Mapping[str, str]  # name → description
    errors: tuple[type[ApiError], ...]

    @property
    def uses_store(self) -> bool:
        """Whether the handler asks Redis."""
        return not self.takes.isdisjoint(("shard", "shards"))

    @property
    def changes(self) -> bool:
        """Whether what is stored may be another afterwards."""
        return self.method != "GET" and self.uses_store

    async def answer_to(self, request: Request) -> Response:
        """Read the request, let the handler do it, encode the answer; raises :class:`ApiError`."""
        gate: Gate = request.app.state.gate
        call = Call(request, self.statuses[0])
        if self.scope != "open":
            call.caller = await gate.admit(request, self.scope, call.headers)
        given = self._read_parameters(request)
        shards: Shards = request.app.state.shards
        if self.uses_store:
            await shards.verify()
        workspace = request.path_params.get("workspace_id")
        shard = shards.first if workspace is None else shards.of(workspace)
        if "shard" in self.takes:
            given["shard"] = shard
        if "shards" in self.takes:
            given["shards"] = shards
        if "call" in self.takes:
            given["call"] = call
        if TooManyWorkspaces in self.errors:
            await everywhere.check_room(shards, request.path_params["workspace_id"])
        if self.body is not None:
            given["body"] = await self._read_body(request)
        wanted = shards.settings.wait_replicas if self.changes else 0
        replicas = shards.replicas_of(shard)
        since = await replicas.history() if wanted else ""
        answer = await self.handler(**given)
        if self.method != "GET":
            address = gate.address_of(request)
            await note_change(
                shards,
                self.name,
                request.path_params,
                call.caller,
                address,
                call.told,
                answer,
            )
        if wanted and not getattr(answer, "dry_run", False):
            cause = await replicas.confirm(since, wanted)
            if cause:
                raise NotConfirmed(cause)
        content = _encode(answer)
        return Response(content, call.status, call.headers, media_type="application/json")

    def _read_parameters(self, request: Request) -> dict[str, Any]:
        faults: list[Fault] = []
        given = {name: one.read(request.path_params[name], faults) for name, one in self.in_path.items()}
        query = self.query.read(request.query_params.multi_items(), faults, "parameter")
        headers = {}
        if self.headers is not None:
            known = [(name, value) for name, value in request.headers.items() if name in self.headers.names]
            headers = self.headers.read(known, faults, "header")
        if faults:
            raise InvalidRequest("The request is not valid; nothing was done.", faults)
        if "query" in self.takes:
            given["query"] = self.query.struct(**query)
        if self.headers is not None:
            given["headers"] = self.headers.struct(**headers)
        return given

    async def _read_body(self, request: Request) -> Any:
        body = await _bounded(request, request.app.state.shards.settings)
        if not body and not self.body_required:
            return None
        return body if self.body_reader is None else await aside(body, self.body_reader.read, body)


class Noun:
    """The operations on one kind of thing: a tag of the document, with a path that theirs begin with."""

    def __init__(self, tag: str, description: str, path: str = "") -> None:
        self.tag = tag
        self.description = description
        self.operations: list[Operation] = []
        self._path = path

    def operation(
        self,
        method: str,
        path: str = "",
        *,
        body: type[msgspec.Struct] | None = None,
        status: int | tuple[int, ...] = 200,
        headers: Mapping[str, str] | None = None,
        errors: tuple[type[ApiError], ...] = (),
        scope: CallerScope | Literal["open"] | None = None,
        name: str | None = None,
    ) -> Callable[[Handler], Handler]:
        """Declare an operation; a second declaration above the first gives it a second method and ``name``.

        ``status`` are those of a good answer, the usual one first; ``headers`` describes the answer's;
        ``errors`` are those that the handler raises, beside the ones that follow from what it takes.
        """

        def declare(handler: Handler) -> Handler:
            declared = _declared(handler, self._path + path, body)
            summary, _, description = (inspect.getdoc(handler) or "").partition("\n")
            operation = Operation(
                tag=self.tag,
                name=name or handler.__name__,
                method=method,
                path=self._path + path,
                scope=scope or ("read" if method == "GET" else "write"),
                summary=summary.removesuffix("."),
                description=description.strip(),
                handler=handler,
                statuses=(status,) if isinstance(status, int) else status,
                answer_headers=headers or {},
                errors=_errors(method, declared, errors),
                **declared,
            )
            self.operations.append(operation)
            return handler

        return declare


def _declared(handler: Callable[..., Any], path: str, body: type[msgspec.Struct] | None) -> dict[str, Any]:
    """What the handler's signature declares; raises :class:`TypeError` where it does not fit the path."""
    hints = get_type_hints(handler, include_extras=True)
    answer = hints.pop("return")
    in_path = {name: hint for name, hint in hints.items() if name not in _SPECIAL}
    if set(in_path) != set(compile_path(path)[2]):
        raise TypeError(f"{handler.__name__} takes {sorted(in_path)}, but its path is {path}")
    if "shard" in hints and "workspace_id" not in in_path:
        raise TypeError(f"{handler.__name__} takes a shard, but its path names no workspace")
    options = get_args(hints.get("body"))
    kinds = [one for one in options or [hints.get("body")] if one is not NoneType and one is not None]
    raw = kinds == [bytes]
    if raw != (body is not None):
        raise TypeError(f"{handler.__name__}: a body of bytes goes with operation(body=…), and only that")
    shape = body if raw else next(iter(kinds), None)
    return {
        "takes": frozenset(hints),
        "in_path": {name: Field(name, hint) for name, hint in in_path.items()},
        "query": Fields(hints.get("query", NoQuery), text=True),
        "headers": Fields(hints["headers"], text=True, kebab=True) if "headers" in hints else None,
        "body": shape,
        "body_required": NoneType not in options,
        "body_reader": None if raw or shape is None else Body(shape),
        "answers": get_args(answer) or (answer,),
    }


def _errors(
    method: str, declared: dict[str, Any], raised: tuple[type[ApiError], ...]
) -> tuple[type[ApiError], ...]:
    """The errors that can be met: a query can always be wrong, the rest follows from what is taken."""
    found: list[type[ApiError]] = [InvalidRequest, *raised]
    if declared["body"] is not None:
        found += [BodyTooLarge, RequestTimeout]
    if not declared["takes"].isdisjoint(("shard", "shards")):
        found += [SealError, StoreUnavailable, WrongDeployment]
        if method != "GET":
            found.append(NotConfirmed)
    return tuple(in_order(found))


def in_order(errors: Iterable[type[ApiError]]) -> list[type[ApiError]]:
    """Errors by their status, each once."""
    return sorted(dict.fromkeys(errors), key=lambda error: (error.status, error.code))


class _Resource:
    """All operations of a path, as an ASGI application.

    ``beside`` are those of a path with a parameter where this one has a word, which ``values`` gives: that
    word may be an id, too, and then it can be reached with the methods that the word itself does not take.
    ``Allow`` has this path's own methods, as the document has.
    """

    def __init__(
        self,
        operations: Iterable[Operation],
        beside: Iterable[Operation] = (),
        values: Mapping[str, str] | None = None,
    ) -> None:
        own = {one.method: one for one in operations}
        self._operations = {one.method: one for one in beside} | own
        self._values = values or {}
        methods = {*own, "OPTIONS"} | ({"HEAD"} if "GET" in own else set())
        self._allow = ", ".join(sorted(methods))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["path_params"] = {**scope.get("path_params", {}), **self._values}
        response = await self._answer_to(Request(scope, receive))
        await response(scope, receive, send)

    async def _answer_to(self, request: Request) -> Response:
        method = request.method
        if method == "OPTIONS":
            return Response(status_code=204, headers={"allow": self._allow})
        operation = self._operations.get("GET" if method == "HEAD" else method)
        if operation is None:
            refused = MethodNotAllowed(f"{method} is not a method of {request.url.path}.")
            refused.headers = {"allow": self._allow}
            raise refused
        traces: Traces | None = request.app.state.traces
        if traces is None:
            response = await operation.answer_to(request)
        else:
            workspace = request.path_params.get("workspace_id")
            with traces.call(operation.name, request.headers, workspace):
                response = await operation.answer_to(request)
        if method == "HEAD":  # with the length that the body would have had
            response.body = b""
        return response


def routes_of(nouns: Iterable[Noun]) -> list[Route]:
    """The routes; a path with a word goes before one with a parameter in its place."""
    paths: dict[str, list[Operation]] = {}
    for noun in nouns:
        for operation in noun.operations:
            paths.setdefault(operation.path, []).append(operation)
    ordered = sorted(paths, key=lambda path: [part.startswith("{") for part in path.split("/")])
    return [Route(path, _resource_of(path, paths)) for path in ordered]


def _resource_of(path: str, paths: Mapping[str, list[Operation]]) -> _Resource:
    for other, operations in paths.items():
        if values := _values_in(path, other):
            return _Resource(paths[path], operations, values)
    return _Resource(paths[path])


def _values_in(path: str, other: str) -> dict[str, str]:
    """The words of a path where another one, the same but for that, has parameters."""
    pairs = list(zip(path.split("/"), other.split("/"), strict=False))
    same = path.count("/") == other.count("/")
    values = {theirs[1:-1]: own for own, theirs in pairs if own != theirs and theirs.startswith("{")}
    fits = same and all(own == theirs or theirs[1:-1] in values for own, theirs in pairs)
    return values if fits and not any(word.startswith("{") for word in values.values()) else {}


async def _bounded(request: Request, settings: Settings) -> bytes:
    """The body; raises :class:`BodyTooLarge` and :class:`RequestTimeout`."""
    limit, seconds = settings.max_body_bytes, settings.receive_seconds
    too_large = BodyTooLarge(f"The body is larger than {limit} bytes (CRONSPACE_MAX_BODY_BYTES).")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > limit:
        raise too_large
    parts = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                parts += chunk
                if len(parts) > limit:
                    raise too_large
    except TimeoutError as error:
        raise RequestTimeout(
            f"The body was not complete after {seconds:g} s (CRONSPACE_RECEIVE_SECONDS)."
        ) from error
    return bytes(parts)
