"""When requests came at the target, and when none should have."""

from __future__ import annotations

from collections.abc import Sequence

from chaos.target import Request

_UNDER_WAY_SECONDS = 0.5  # what was claimed when it was noticed may still arrive


def until_next(requests: Sequence[Request], at: float) -> float:
    """How long after a moment the next request came."""
    return min((request.at - at for request in requests if request.at >= at), default=float("inf"))


def during(requests: Sequence[Request], noticed: float, resumed: float) -> list[Request]:
    """What came while firing was held."""
    return [one for one in requests if noticed + _UNDER_WAY_SECONDS < one.at < resumed]


def silence(requests: Sequence[Request], noticed: float, resumed: float) -> list[str]:
    """What should not have come."""
    came = during(requests, noticed, resumed)
    return [f"{len(came)} requests while firing was held"] if came else []
