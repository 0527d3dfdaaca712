"""What a change of a trigger set is refused for."""

from __future__ import annotations

from collections.abc import Sequence

from app.errors import (
    ConfirmationRequired,
    Fault,
    InvalidRequest,
    RevisionConflict,
    SetTooLarge,
    TooManyTriggers,
)
from app.models import Definition
from app.store import definitions
from app.store.shard import Shard
from app.store.sizes import Size


def check_size(shard: Shard, size: Size, before: Size) -> None:
    """Raise :class:`TooManyTriggers` or :class:`SetTooLarge` where a set grows beyond what it may hold; a
    larger one may shrink.
    """
    most, most_bytes = shard.settings.max_triggers, shard.settings.max_set_bytes
    if size.triggers > max(most, before.triggers):
        raise TooManyTriggers(
            f"The set would hold {size.triggers} triggers, and may hold {most} (CRONSPACE_MAX_TRIGGERS)."
        )
    if size.bytes > max(most_bytes, before.bytes):
        raise SetTooLarge(
            f"The definitions of the set would take {size.bytes:,} bytes, and may take {most_bytes:,}"
            " (CRONSPACE_MAX_SET_BYTES): delete triggers, or make their payloads smaller."
        )


def check_revision(revision: int, wanted: int) -> None:
    """Raise :class:`RevisionConflict` where a set is not at the revision wanted."""
    if wanted != revision:
        raise RevisionConflict(
            f"The set is at revision {revision}, not at {wanted}: somebody was first. Read it again."
        )


async def check_past(
    shard: Shard, workspace: str, triggers: Sequence[tuple[str, Definition]], now: int, *, in_set: bool
) -> None:
    """A one-off in the past is fine when it was there before, or is to be caught up.

    ``in_set``: the triggers are a whole set's, and a fault says which of them it is.
    """
    past = [index for index, (_, one) in enumerate(triggers) if one.at and one.at <= now]
    known = await definitions.read(shard, workspace, [triggers[index][0] for index in past])
    faults = []
    for index, live in zip(past, known, strict=True):
        wanted = triggers[index][1]
        if not wanted.catch_up_missed and (live is None or live.at != wanted.at):
            message = (
                "this moment is past; with catch_up_missed it is sent all the same, if it is not older than"
                " catch_up_window_seconds, a day unless given"
            )
            faults.append(Fault(f"triggers[{index}].at" if in_set else "at", message))
    if faults:
        raise InvalidRequest("A one-off lies in the past; nothing was stored.", faults)


def check_share(shard: Shard, deleted: int, size: int, confirmed: bool) -> None:
    """Raise :class:`ConfirmationRequired` where a deletion has to be confirmed and is not."""
    if not confirmed and wants_confirmation(shard, deleted, size):
        raise ConfirmationRequired(
            f"This would delete {deleted} of {size} triggers, more than a share of"
            f" {shard.settings.confirm_delete_share:g} (CRONSPACE_CONFIRM_DELETE_SHARE): repeat it with"
            " ?confirm=true."
        )


def wants_confirmation(shard: Shard, deleted: int, size: int) -> bool:
    """Whether deleting so many triggers of a set has to be confirmed."""
    share = shard.settings.confirm_delete_share
    return bool(share) and deleted > share * size
