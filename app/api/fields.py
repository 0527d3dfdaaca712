"""What requests and answers are made of. Every answer is a Struct: what is not declared can't be sent."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from app.clock import rfc3339
from app.models import ID_PATTERN

# A value of any kind: said in full, because an empty schema looks like a forgotten one.
JSON_TYPES = ["object", "array", "string", "number", "boolean", "null"]

_ID_RULE = "an id is 1 to 128 letters, digits, '.', '_' or '-', and begins with a letter or a digit"


def _id(description: str, example: str) -> Meta:
    return Meta(pattern=ID_PATTERN, description=description, examples=[example], extra={"rule": _ID_RULE})


WorkspaceId = Annotated[str, _id("The workspace's id.", "acme")]
TriggerId = Annotated[str, _id("The trigger's id.", "nightly-report")]
Success = Annotated[bool, Meta(description="Always true.", extra_json_schema={"const": True})]


def about(description: str, **schema: Any) -> Meta:
    """The description of a field, and what else its schema says."""
    return Meta(description=description, extra_json_schema=schema or None)


class Answer(Struct, frozen=True, kw_only=True):
    """The base of answers. All fields are always sent, but for those whose default is UNSET."""


class WorkspaceAnswer(Answer, frozen=True, kw_only=True):
    """What the answers of a workspace begin with."""

    success: Success = True
    workspace_id: WorkspaceId


def moment(ms: int | None) -> str | None:
    """A time as answers show it."""
    return None if ms is None else rfc3339(ms)
