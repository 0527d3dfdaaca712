"""`cronspace probe`: does the process of this container answer? For a HEALTHCHECK without shell and curl."""

from __future__ import annotations

import http.client
import sys
from collections.abc import Sequence

from app.config import Settings, load_settings

_SECONDS = 4.0


def run(argv: Sequence[str]) -> None:
    """End with 0 where /live answers 200; else with 1, and the reason on stderr. Takes no arguments."""
    settings = load_settings()
    if fault := find_fault(port_of(settings)):
        sys.exit(f"cronspace probe: {fault}")


def port_of(settings: Settings) -> int:
    """A worker's port, else the API's: give CRONSPACE_WORKER_PORT to workers only."""
    return settings.worker_port or settings.port


def find_fault(port: int) -> str:
    """What is wrong with the process that should answer there; empty: nothing."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    try:
        connection.request("GET", "/live")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"nothing answers on port {port}: {error!r}"
    finally:
        connection.close()
    return "" if status == 200 else f"/live on port {port} answered {status}"
