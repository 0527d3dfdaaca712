"""Whether the API runs."""

import time

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.problems import json_response
from app.clock import rfc3339


async def health(_: Request) -> Response:
    """The process answers; this says nothing about Redis."""
    return json_response({"status": "ok", "timestamp": rfc3339(int(time.time() * 1000))})


routes = [Route("/health", health, methods=["GET"])]
