"""Whether the API runs."""

from __future__ import annotations

import time
from typing import Literal

from app.api.fields import Answer
from app.api.operations import Noun
from app.clock import rfc3339
from app.formats import Moment

noun = Noun("health", "Whether the API runs.", "/health")


class Health(Answer, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"
    timestamp: Moment


@noun.operation("GET", scope="open")
async def health() -> Health:
    """The process answers; this says nothing about Redis."""
    return Health(timestamp=rfc3339(int(time.time() * 1000)))
