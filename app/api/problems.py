"""Errors as problem documents (RFC 9457)."""

from __future__ import annotations

import logging
from typing import Annotated

import msgspec
from msgspec import UNSET, UnsetType
from redis.exceptions import RedisError, ResponseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.api.fields import about
from app.errors import ApiError, Fault, MethodNotAllowed, NotFound, StoreUnavailable, WrongDeployment
from app.redis_errors import is_state, kind_of_error
from app.telemetry.metrics import REDIS_ERRORS

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """What went wrong: a problem document (RFC 9457)."""

    type: Annotated[str, about("Always `about:blank`: `code` tells the kind.", const="about:blank")] = (
        "about:blank"
    )
    title: Annotated[str, about("The kind of error, for people.")]
    status: Annotated[int, about("The HTTP status.")]
    detail: Annotated[str, about("What went wrong this time, and what can be done.")]
    code: Annotated[str, about("The kind of error, for programs: it will not change.")]
    success: Annotated[bool, about("Always false.", const=False)] = False
    errors: Annotated[
        list[Fault] | UnsetType, about("One entry per fault of the input; left out when there is none.")
    ] = UNSET


def problem(error: ApiError) -> Response:
    """An error's answer."""
    body = Problem(
        title=error.title,
        status=error.status,
        detail=error.detail,
        code=error.code,
        errors=error.faults or UNSET,
    )
    return Response(_encode(body), error.status, headers=error.headers, media_type="application/problem+json")


async def on_api_error(_: Request, error: Exception) -> Response:
    """Errors of ours."""
    assert isinstance(error, ApiError)
    return problem(error)


async def on_store_error(request: Request, error: Exception) -> Response:
    """Redis away, full, loading, read-only: nothing of that ends the API."""
    request.app.state.figures.add(REDIS_ERRORS, kind_of_error(error))
    if is_state(error):
        request.app.state.refusals.met(f"{request.method} {request.url.path}", error)
    else:
        why = str(error) or type(error).__name__
        log.warning(
            "%s %s: Redis failed: %s", request.method, request.url.path, why, extra=_fields_of(request)
        )
    return problem(StoreUnavailable(_cause(error)))


_CLOSED = "Redis closes every connection, as it does when it has all that it takes (maxclients); try again"

# What Redis and its client say → what that means.
_CAUSES = {
    "maxmemory": "Redis is full (maxmemory) and takes nothing more; what frees memory goes on. Give it more"
    " memory, or delete something",
    "max number of clients": "Redis takes no more connections (maxclients); try again, or allow it more",
    # What it says when it has too many connections is often lost with the connection.
    "closed by server": _CLOSED,
    "(104": _CLOSED,
    "(32": _CLOSED,
    "reset by peer": _CLOSED,
    "Broken pipe": _CLOSED,
    "Connection lost": _CLOSED,
    "read-only replica": "This Redis is a replica at the moment, as during a failover; try again",
    "Timeout": "Redis did not answer in time; try again",
    "LOADING": "Redis has just started and is still loading its data; try again",
    "loading": "Redis has just started and is still loading its data; try again",
    "MISCONF": "Redis can't write to its disk and therefore takes nothing more; see its log",
    "NOREPLICAS": "Redis takes nothing more while too few replicas are connected (min-replicas-to-write)",
}


def _cause(error: Exception) -> str:
    """What is wrong with Redis, without its addresses."""
    for part, cause in _CAUSES.items():
        if part in str(error):
            return f"{cause}."
    if isinstance(error, ResponseError):
        return f"Redis refused the command; try again when it is mended. It said: {error}"
    return "Redis can't be reached; try again."


async def on_wrong_deployment(request: Request, error: Exception) -> Response:
    """What is stored belongs to other settings: nothing is read or written."""
    assert isinstance(error, WrongDeployment)
    request.app.state.refusals.met(f"{request.method} {request.url.path}", error)
    return problem(error)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette's routing raises."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refused = MethodNotAllowed(f"{request.method} is not a method of {request.url.path}.")
        refused.headers = dict(error.headers or {})
        return problem(refused)
    return problem(NotFound(f"There is nothing at {request.url.path}.{_where_to_look(request)}"))


def _where_to_look(request: Request) -> str:
    """For who opens the address, or misspells a path."""
    if request.app.state.shards.settings.docs == "off":
        return ""
    return " What there is stands at /docs, and for programs at /openapi.json."


async def on_unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: the caller gets no detail, the log gets all."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error, extra=_fields_of(request))
    return problem(ApiError("Something went wrong inside; the log of the API has the details."))


def _fields_of(request: Request) -> dict[str, str]:
    """What the log tells of a request beside its line."""
    return {name.removesuffix("_id"): value for name, value in request.path_params.items()}


HANDLERS = {
    ApiError: on_api_error,
    RedisError: on_store_error,
    OSError: on_store_error,
    WrongDeployment: on_wrong_deployment,
    HTTPException: on_http_exception,
    Exception: on_unexpected,
}
