"""What the audit is told of a call that has succeeded: the one place where it is written.

What failed or was refused is in the log only: else who is refused could push what was done out of a capped
stream.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import msgspec
from redis.exceptions import RedisError

from app.auth.callers import Caller
from app.declared.masking import View
from app.models import Definition
from app.plan import field_changes
from app.store import Shards, audit

log = logging.getLogger(__name__)

# Fields of answers that say what a call did. Answers are masked, so what is taken from them is.
_TOLD = (
    "revision",
    "rolled_back_to",
    "removed",
    "added",
    "changes",
    "count",
    "deleted",
    "action",
    "execution_id",
    "executions",
    "execution_ids",
    "retried",
    "pause",
)
_TARGETS = ("trigger_id", "execution_id", "revision", "key_id")
_MOST_LISTED = 20
_ANYTHING = Definition(url="", method="GET")


class Told(msgspec.Struct):
    """What a handler tells beside its answer."""

    before: Any = None
    after: Any = None
    target: str = ""
    everywhere: bool = False  # it belongs into the general audit: the workspace is gone
    nothing: bool = False  # nothing has changed

    def definition(self, trigger: str, old: Definition | None, new: Definition | None) -> None:
        """A trigger's definition was changed: the fields that differ, of a new or deleted one those that it
        sets; masked, and long values cut."""
        changes = field_changes(old or _ANYTHING, new or _ANYTHING, View.STRUCTURE)
        self.target = trigger
        self.nothing = old is not None and new is not None and not changes
        self.before = {one.field: _plain(one.old) for one in changes} if old is not None else None
        self.after = {one.field: _plain(one.new) for one in changes} if new is not None else None


async def note_change(
    shards: Shards,
    action: str,
    path: Mapping[str, str],
    caller: Caller,
    address: str,
    told: Told,
    answer: msgspec.Struct,
) -> None:
    """Write down a call that has succeeded, unless it changed nothing.

    Where that fails the call stays done, and the log has the entry.
    """
    if told.nothing or _changed_nothing(answer):
        return
    after = told.after
    if after is None and told.before is None:
        after = {name: shortened(getattr(answer, name)) for name in _TOLD if hasattr(answer, name)} or None
    change = audit.Change(
        kind=caller.kind,
        caller=caller.id,
        name=caller.name,
        address=address,
        action=action,
        workspace=path.get("workspace_id", ""),
        target=told.target or next((path[name] for name in _TARGETS if name in path), ""),
        before=told.before,
        after=after,
    )
    try:
        everywhere = told.everywhere or not change.workspace
        shard = shards.first if everywhere else shards.of(change.workspace)
        await audit.note(shard, change, everywhere=everywhere)
    except (RedisError, OSError) as error:
        log.error("the audit could not be written (%s): %s", error, msgspec.json.encode(change).decode())


def _changed_nothing(answer: msgspec.Struct) -> bool:
    return (
        getattr(answer, "dry_run", False) is True
        or getattr(answer, "repeated", False) is True
        or getattr(answer, "changed", True) is False
        or getattr(answer, "deleted", None) == 0
    )


def _plain(text: msgspec.Raw) -> Any:
    return msgspec.json.decode(text)


def shortened(value: Any) -> Any:
    """A value in plain types; of a long list the beginning."""
    plain = msgspec.to_builtins(value)
    if isinstance(plain, list) and len(plain) > _MOST_LISTED:
        return [*plain[:_MOST_LISTED], f"and {len(plain) - _MOST_LISTED} more"]
    return plain
