"""What tells about the API: its document at ``/openapi.json``, and the same as a page at ``/docs``."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from app.api.docs import page_of
from app.api.openapi import document_of
from app.api.operations import Noun
from app.api.switches import switched
from app.config import Settings

# The page is one file: nothing may be loaded, and no script may run.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'"


def reference_routes(nouns: Sequence[Noun], settings: Settings) -> list[Route]:
    """The two routes, if the settings want them; both texts are made when they are first asked for."""

    @cache
    def document() -> bytes:
        return msgspec.json.encode(document_of(nouns, settings))

    @cache
    def page() -> str:
        return page_of(msgspec.json.decode(document()))

    async def openapi(_: Request) -> Response:
        return Response(document(), media_type="application/json")

    async def docs(_: Request) -> Response:
        return Response(page(), media_type="text/html", headers={"content-security-policy": _POLICY})

    return switched(settings.docs, {"/openapi.json": openapi, "/docs": docs})
