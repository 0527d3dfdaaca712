"""What can go wrong with a request before there is an answer."""

from __future__ import annotations

from app.errors import CronspaceError
from app.models import FailureKind


class SendError(CronspaceError):
    """A request that got no answer; ``kind`` says how far it came.

    ``dns``, ``blocked`` and ``connect`` mean that nothing of the request was sent.
    """

    def __init__(self, kind: FailureKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class NotSent(CronspaceError):
    """The caller's leave to send was gone when the connection was there; nothing was sent."""
