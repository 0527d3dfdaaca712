"""A target for trying things: answers with the request that it got. Served with CRONSPACE_ECHO only.

It is no operation of the API: it takes anything, and the document does not show it.
"""

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

_MOST_SHOWN = 2048


async def echo(request: Request) -> JSONResponse:
    """What arrived; ``?status=503`` chooses the status of the answer."""
    body = await request.body()
    status = request.query_params.get("status", "200")
    return JSONResponse(
        {
            "method": request.method,
            "path": request.url.path,
            "headers": dict(request.headers),
            "body": body[:_MOST_SHOWN].decode("utf-8", "replace"),
        },
        int(status) if status.isascii() and status.isdigit() and 200 <= int(status[:4]) <= 599 else 200,
    )


routes = [Route("/echo", echo, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])]
