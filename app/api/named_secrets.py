"""Named secrets: put, listed without their values, deleted. Nobody can read a value back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from app.api.fields import Answer, TriggerId, WorkspaceAnswer, WorkspaceId, about
from app.api.operations import Call, Noun
from app.clock import rfc3339
from app.declared.masking import MASK
from app.declared.variables import SECRET_PATTERN, SECRET_RULE
from app.errors import (
    Fault,
    InvalidRequest,
    NotFound,
    ReplaceConflict,
    SecretInUse,
    TooManySecrets,
    TooManyWorkspaces,
    WorkspaceErasing,
)
from app.formats import Moment
from app.outgoing import LEAST_VALUE, NamedSecret, Outgoing
from app.store import Shard
from app.store import outgoing as store

noun = Noun(
    "secrets",
    "Values that triggers use as `{{secret.NAME}}`, and that nobody can read back.",
    "/api/workspaces/{workspace_id}/secrets",
)

_USERS_SHOWN = 100
_USERS_TOLD = 10

SecretName = Annotated[
    str,
    Meta(
        pattern=SECRET_PATTERN,
        description="The secret's name.",
        examples=["api_token"],
        extra={"rule": SECRET_RULE},
    ),
]


class SecretInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret's value."""

    value: Annotated[
        str,
        Meta(
            min_length=LEAST_VALUE,
            description="At most `CRONSPACE_MAX_SECRET_BYTES`; shorter ones could not be masked.",
        ),
    ]


class DeleteQuery(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a deletion is meant."""

    force: Annotated[bool, about("Also where triggers use it, whose attempts fail from then on.")] = False


class ShownSecret(Answer, frozen=True, kw_only=True):
    """A named secret without its value."""

    name: SecretName
    created_at: Moment
    changed_at: Moment
    used_by_count: Annotated[int, about("How many triggers use it.")]
    used_by: Annotated[list[TriggerId], about(f"The first {_USERS_SHOWN} of them.")]


class SecretList(WorkspaceAnswer, frozen=True, kw_only=True):
    """The named secrets, by name."""

    count: int
    secrets: list[ShownSecret]


class SecretStored(WorkspaceAnswer, frozen=True, kw_only=True):
    """A value was stored."""

    name: SecretName
    created_at: Moment
    changed_at: Moment


class SecretDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """A named secret is gone."""

    name: SecretName


@noun.operation("GET")
async def list_secrets(shard: Shard, workspace_id: WorkspaceId) -> SecretList:
    """The names, when each value was changed, and which triggers use it. Values are never shown."""
    stored = (await store.read(shard, workspace_id)).secrets
    users = await store.users(shard, workspace_id) if stored else {}
    shown = [_shown(name, stored[name], users.get(name, [])) for name in sorted(stored)]
    return SecretList(workspace_id=workspace_id, count=len(shown), secrets=shown)


@noun.operation(
    "PUT",
    "/{secret_name}",
    status=(200, 201),
    errors=(TooManySecrets, TooManyWorkspaces, ReplaceConflict, WorkspaceErasing),
)
async def put_secret(
    shard: Shard, call: Call, workspace_id: WorkspaceId, secret_name: SecretName, body: SecretInput
) -> SecretStored:
    """Store a value under a name, or another one in its place: 201 when the name is new.

    Triggers that use it send the new value with their next attempt; none of them is edited, and there is no
    new revision.
    """
    most_bytes, most = shard.settings.max_secret_bytes, shard.settings.max_secrets
    if (size := len(body.value.encode())) > most_bytes:
        fault = Fault("value", f"{size} bytes, but at most {most_bytes} (CRONSPACE_MAX_SECRET_BYTES)")
        raise InvalidRequest("The body is not valid; nothing was done.", [fault])
    now = await shard.now_ms()
    is_new = True

    def put(before: Outgoing) -> Outgoing:
        nonlocal is_new
        known = before.secrets.get(secret_name)
        is_new = known is None
        if is_new and len(before.secrets) >= most:
            raise TooManySecrets(
                f"{workspace_id!r} has {len(before.secrets)} secrets, of at most {most}"
                " (CRONSPACE_MAX_SECRETS): delete one first."
            )
        stored = NamedSecret(body.value, now if known is None else known.created, now)
        return structs.replace(before, secrets={**before.secrets, secret_name: stored})

    after = (await store.change(shard, workspace_id, put)).secrets[secret_name]
    call.status = 201 if is_new else 200
    call.told.target = secret_name
    # That a value is the same as before is not told: it would be a way to guess it.
    call.told.before, call.told.after = None if is_new else {"value": MASK}, {"value": MASK}
    return SecretStored(
        workspace_id=workspace_id,
        name=secret_name,
        created_at=rfc3339(after.created),
        changed_at=rfc3339(after.changed),
    )


@noun.operation("DELETE", "/{secret_name}", errors=(NotFound, SecretInUse, ReplaceConflict, WorkspaceErasing))
async def delete_secret(
    shard: Shard, call: Call, workspace_id: WorkspaceId, secret_name: SecretName, query: DeleteQuery
) -> SecretDeleted:
    """Delete a secret that no trigger uses; with `force` any. What uses it then fails, and sends nothing."""
    if secret_name not in (await store.read(shard, workspace_id)).secrets:
        raise _none(workspace_id, secret_name)
    users = [] if query.force else (await store.users(shard, workspace_id)).get(secret_name, [])
    if users:
        more = f" and {len(users) - _USERS_TOLD} more" if len(users) > _USERS_TOLD else ""
        told = ", ".join(map(repr, users[:_USERS_TOLD]))
        raise SecretInUse(
            f"The secret {secret_name!r} is used by {told}{more}: change them first, or repeat it with"
            " ?force=true."
        )

    def remove(before: Outgoing) -> Outgoing:
        left = {name: one for name, one in before.secrets.items() if name != secret_name}
        if len(left) == len(before.secrets):
            raise _none(workspace_id, secret_name)
        return structs.replace(before, secrets=left)

    await store.change(shard, workspace_id, remove)
    call.told.target, call.told.before = secret_name, {"value": MASK}
    return SecretDeleted(workspace_id=workspace_id, name=secret_name)


def _shown(name: str, one: NamedSecret, users: list[str]) -> ShownSecret:
    return ShownSecret(
        name=name,
        created_at=rfc3339(one.created),
        changed_at=rfc3339(one.changed),
        used_by_count=len(users),
        used_by=users[:_USERS_SHOWN],
    )


def _none(workspace: str, name: str) -> NotFound:
    return NotFound(f"There is no secret {name!r} in {workspace!r}.")
