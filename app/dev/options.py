"""The command line of `cronspace dev`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from msgspec import Struct

from app.errors import DevError


class Options(Struct, frozen=True, kw_only=True):
    """What was asked for. ``data`` is absolute; ``redis_url`` is empty for an embedded Redis."""

    data: Path
    port: int
    redis_url: str
    reload: bool


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise DevError(f"{message} (see cronspace dev --help)")


def parse(argv: Sequence[str], port: int) -> Options:
    """Read the arguments; ``port`` is the default. Raises :class:`DevError` for what can't be used."""
    parser = _Parser(
        prog="cronspace dev",
        description="Runs everything on this machine: Redis, the API, a worker, and a demo.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--data", metavar="DIR", default=".cronspace", help="folder of Redis's data (default: .cronspace)"
    )
    parser.add_argument(
        "--port",
        metavar="N",
        type=int,
        default=port,
        help=f"port of the API; 0: a free one (default: {port})",
    )
    parser.add_argument("--redis-url", metavar="URL", default="", help="use this Redis, and load no demo")
    parser.add_argument(
        "--reload", action="store_true", help="restart API and worker when their code changes"
    )
    given = parser.parse_args(argv)
    if not 0 <= given.port <= 65535:
        raise DevError(f"--port {given.port} is no port: use a number from 0 to 65535")
    return Options(
        data=Path(given.data).expanduser().absolute(),
        port=given.port,
        redis_url=given.redis_url,
        reload=given.reload,
    )
