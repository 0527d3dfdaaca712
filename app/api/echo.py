"""A target for trying things: answers with the request that it got. Served with CRONSPACE_ECHO only."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.problems import json_response

_MOST_SHOWN = 2048


async def echo(request: Request) -> Response:
    """What arrived; ``?status=503`` chooses the status of the answer."""
    body = await request.body()
    status = request.query_params.get("status", "200")
    return json_response(
        {
            "method": request.method,
            "path": request.url.path,
            "headers": dict(request.headers),
            "body": body[:_MOST_SHOWN].decode("utf-8", "replace"),
        },
        int(status) if status.isascii() and status.isdigit() and 200 <= int(status[:4]) <= 599 else 200,
    )


routes = [Route("/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
