"""What the calls that change triggers take: conditions in headers and query, and stored values for masks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

from msgspec import Meta, Struct, structs

from app.api.fields import about
from app.config import Settings
from app.declared import masking
from app.declared.inputs import Defaults
from app.declared.masking import has_masks
from app.errors import MOST_FAULTS, Fault, InvalidRequest
from app.models import Definition
from app.store import Shard, workspaces
from app.store import definitions as store

TRIGGERS_PATH = "/api/workspaces/{workspace_id}/triggers"

IdempotencyKey = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        description="The call again with this key, within 24 hours, does nothing and answers the same.",
    ),
]


class Condition(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Under which condition a set is changed."""

    if_match: (
        Annotated[
            str,
            Meta(
                pattern=r'^(\*|[0-9]{1,15}|"[0-9]{1,15}")\Z',
                description="The revision that the set has to be at, such as the `ETag` of an answer; `*`:"
                " any.",
                examples=["*"],
                extra={"rule": 'expected a revision such as "7", or *'},
            ),
        ]
        | None
    ) = None

    @property
    def revision(self) -> int | None:
        """The revision wanted, None for any."""
        return None if self.if_match in (None, "*") else int(self.if_match.strip('"'))


class Confirm(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a call that may delete much is meant."""

    confirm: Annotated[
        bool, about("Delete even more of the set than `CRONSPACE_CONFIRM_DELETE_SHARE` lets through.")
    ] = False


class Planning(Confirm, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a call that puts another set in place is meant."""

    dry_run: Annotated[bool, about("Answer with the plan, and store nothing.")] = False


class Idempotency(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a call can be repeated."""

    idempotency_key: IdempotencyKey | None = None


def defaults_of(own: workspaces.WorkspaceSettings, settings: Settings) -> Defaults:
    """What a workspace has triggers stored with that leave a field out."""
    given = {name: getattr(own, name) for name in ("timezone", "timeout_seconds", "max_retries")}
    found = Defaults(**{name: value for name, value in given.items() if value is not None})
    longest = settings.max_timeout_seconds
    return structs.replace(
        found, timeout_seconds=min(found.timeout_seconds, longest), max_timeout_seconds=longest
    )


async def read_defaults(shard: Shard, workspace: str) -> Defaults:
    """The same, read."""
    return defaults_of(await workspaces.settings_of(shard, workspace), shard.settings)


async def unmask_set(
    shard: Shard, workspace: str, ids: Sequence[str], definitions: Sequence[Definition]
) -> list[Definition]:
    """The definitions of a set, with what an answer had masked taken from what is stored."""
    masked = await asyncio.to_thread(lambda: [at for at, one in enumerate(definitions) if has_masks(one)])
    if not masked:
        return list(definitions)
    stored = await store.read(shard, workspace, [ids[index] for index in masked])

    def unmasked() -> list[Definition]:
        found, faults = list(definitions), list[Fault]()
        for index, known in zip(masked, stored, strict=True):
            if len(faults) < MOST_FAULTS:
                found[index] = _unmask(found[index], known, f"triggers[{index}].", faults)
        _refuse(faults)
        return found

    return await asyncio.to_thread(unmasked)


def unmask(definition: Definition, stored: Definition | None) -> Definition:
    """The same for one trigger."""
    if not has_masks(definition):
        return definition
    faults: list[Fault] = []
    found = _unmask(definition, stored, "", faults)
    _refuse(faults)
    return found


def _unmask(definition: Definition, stored: Definition | None, place: str, faults: list[Fault]) -> Definition:
    found, strange = masking.unmask(definition, stored)
    faults += [Fault(f"{place}{path}", masking.NOTHING_STORED) for path in strange]
    return found


def _refuse(faults: list[Fault]) -> None:
    if faults:
        raise InvalidRequest("The body has masked values that stand for nothing; nothing was stored.", faults)
