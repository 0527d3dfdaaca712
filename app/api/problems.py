"""Errors as problem documents (RFC 9457), and JSON answers."""

from __future__ import annotations

import logging
from typing import Any

import msgspec
from redis.exceptions import RedisError, ResponseError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from app.errors import ApiError, MethodNotAllowed, NotFound, StoreUnavailable

log = logging.getLogger(__name__)

_encode = msgspec.json.Encoder().encode


def json_response(body: Any, status: int = 200) -> Response:
    """An answer in JSON."""
    return Response(_encode(body), status, media_type="application/json")


def problem(error: ApiError) -> Response:
    """An error's answer; ``errors`` has one entry per fault of an input."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.title,
        "status": error.status,
        "detail": error.detail,
        "code": error.code,
        "success": False,
    }
    if error.faults:
        body["errors"] = error.faults
    return Response(_encode(body), error.status, headers=error.headers, media_type="application/problem+json")


async def on_api_error(_: Request, error: Exception) -> Response:
    """Errors of ours."""
    assert isinstance(error, ApiError)
    return problem(error)


async def on_store_error(request: Request, error: Exception) -> Response:
    """Redis away, full, loading, read-only: nothing of that ends the API."""
    log.warning("%s %s: Redis failed: %s", request.method, request.url.path, error or type(error).__name__)
    detail = "Redis can't be reached; try again."
    if isinstance(error, ResponseError):
        detail = f"Redis refused the command; try again when it is mended. It said: {error}"
    return problem(StoreUnavailable(detail))


async def on_http_exception(request: Request, error: Exception) -> Response:
    """What Starlette's routing raises."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        refused = MethodNotAllowed(f"{request.method} is not a method of {request.url.path}.")
        refused.headers = dict(error.headers or {})
        return problem(refused)
    return problem(NotFound(f"There is nothing at {request.url.path}."))


async def on_unexpected(request: Request, error: Exception) -> Response:
    """A fault of ours: the caller gets no detail, the log gets all."""
    log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return problem(ApiError("Something went wrong inside; the log of the API has the details."))


HANDLERS = {
    ApiError: on_api_error,
    RedisError: on_store_error,
    OSError: on_store_error,
    HTTPException: on_http_exception,
    Exception: on_unexpected,
}
