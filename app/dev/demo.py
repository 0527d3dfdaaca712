"""Workspace `demo`: a few triggers aimed at the echo endpoint of the same API."""

from __future__ import annotations

from urllib.parse import urlsplit

from app.models import Definition
from app.store import Shard, catalog, triggers, workspaces

WORKSPACE = "demo"


def demo_set(port: int) -> list[tuple[str, Definition]]:
    """The triggers, by id. The cron expressions have six fields: seconds come first."""
    echo = f"http://127.0.0.1:{port}/echo"
    return [
        (
            "every-2-seconds",
            Definition(
                cron="*/2 * * * * *",
                url=echo,
                method="POST",
                payload=b'{"hello":"from the demo"}',
                name="A POST with a payload",
            ),
        ),
        ("every-5-seconds", Definition(cron="*/5 * * * * *", url=echo, method="GET", name="A plain GET")),
        (
            "failing",
            Definition(
                cron="*/30 * * * * *",
                url=f"{echo}?status=503",
                method="POST",
                name="The target answers 503: look at its retries",
            ),
        ),
        ("hourly", Definition(cron="0 0 * * * *", url=echo, method="GET", name="Once an hour")),
    ]


async def load(shard: Shard, port: int) -> bool:
    """Load the demo where no workspace exists; returns whether workspace `demo` is our demo now.

    Where it already is, and nobody changed it, it follows the API to its new port.
    """
    if not await workspaces.any_exists(shard):
        await triggers.replace(shard, WORKSPACE, demo_set(port))
        return True
    stored = [(one.id, one.definition) for one in (await catalog.read(shard, WORKSPACE)).triggers]
    if not stored:
        return False
    old_port = urlsplit(stored[0][1].url).port or 0
    if stored != demo_set(old_port):
        return False
    if old_port != port:
        await triggers.replace(shard, WORKSPACE, demo_set(port))
    return True
