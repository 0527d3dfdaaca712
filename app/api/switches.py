"""Routes beside the operations that a setting of their own opens, guards or takes away."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

Endpoint = Callable[[Request], Awaitable[Response]]


def switched(setting: str, endpoints: Mapping[str, Endpoint]) -> list[Route]:
    """The routes of some paths, by what the setting says: ``public``, ``authenticated`` or ``off``."""
    if setting == "off":
        return []
    if setting == "authenticated":
        endpoints = {path: _guarded(endpoint) for path, endpoint in endpoints.items()}
    return [Route(path, endpoint) for path, endpoint in endpoints.items()]


def _guarded(endpoint: Endpoint) -> Endpoint:
    """Whoever may call the API, with any scope."""

    async def guarded(request: Request) -> Response:
        await request.app.state.gate.identify(request)
        return await endpoint(request)

    return guarded
