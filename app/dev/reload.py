"""`--reload`: restart what runs our code when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from watchfiles import awatch

from app.dev.children import Child, say
from app.errors import DevError


async def restart_on_change(children: Sequence[Child]) -> None:
    """Watch our packages for ever; raises :class:`DevError` when they can't be watched."""
    folders = [Path(folder) for package in ("app", "workers") for folder in _folders(package)]
    try:
        async for changes in awatch(*folders):
            path = Path(min(path for _, path in changes))
            root = next((folder.parent for folder in folders if path.is_relative_to(folder)), path.parent)
            names = " and ".join(child.name for child in children)
            say(f"{path.relative_to(root)} changed; restarting {names}")
            await asyncio.gather(*(child.restart() for child in children))
    except (OSError, RuntimeError) as error:  # the system's bound of watches, mostly
        raise DevError(f"can't watch for changes ({error}): run without --reload") from error


def _folders(package: str) -> Sequence[str]:
    spec = find_spec(package)
    return (spec and spec.submodule_search_locations) or ()
