"""Signing secrets: added, listed, shown, deleted. Two are valid while one takes the other's place."""

from __future__ import annotations

import secrets
from typing import Annotated

from msgspec import Meta, Struct, structs

from app.api.fields import Answer, WorkspaceAnswer, WorkspaceId, about, moment
from app.api.operations import Call, Noun
from app.clock import rfc3339
from app.declared.masking import MASK
from app.errors import (
    Fault,
    InvalidRequest,
    NotFound,
    ReplaceConflict,
    TooManySecrets,
    TooManyWorkspaces,
    WorkspaceErasing,
)
from app.formats import Moment, WebhookSecret
from app.outgoing import MOST_SIGNING, Outgoing, SigningSecret
from app.signing import format_secret, generate_secret, parse_secret
from app.store import Shard
from app.store import outgoing as store

noun = Noun(
    "signing-secrets",
    "What a workspace's requests are signed with, as Standard Webhooks says.",
    "/api/workspaces/{workspace_id}/signing-secrets",
)

_LONGEST_OVERLAP = 90 * 86_400

SecretId = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{16}\Z",
        description="The secret's id, which is no secret.",
        examples=["0123456789abcdef"],
        extra={"rule": "the id of a signing secret is 16 hexadecimal digits"},
    ),
]


class SigningSecretInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A secret to sign with from now on."""

    secret: Annotated[WebhookSecret | None, about("Left out, one is made.")] = None
    previous_expires_in_seconds: (
        Annotated[
            int,
            Meta(
                ge=1,
                le=_LONGEST_OVERLAP,
                description="After so long the secret before it signs no more; left out: when it is deleted.",
            ),
        ]
        | None
    ) = None


class ListedSigningSecret(Answer, frozen=True, kw_only=True):
    """A signing secret without the secret."""

    id: SecretId
    created_at: Moment
    expires_at: Annotated[Moment | None, about("From then on it signs no more; null: until it is deleted.")]


class ShownSigningSecret(ListedSigningSecret, frozen=True, kw_only=True):
    """A signing secret."""

    secret: Annotated[str, about("For those who verify.")]


class SigningSecretAnswer(WorkspaceAnswer, frozen=True, kw_only=True):
    """One signing secret."""

    signing_secret: ShownSigningSecret


class SigningSecretList(WorkspaceAnswer, frozen=True, kw_only=True):
    """Those that sign, the oldest first."""

    count: int
    signing_secrets: list[ListedSigningSecret]


class SigningSecretDeleted(WorkspaceAnswer, frozen=True, kw_only=True):
    """A secret that signs no more."""

    id: SecretId


@noun.operation("GET")
async def list_signing_secrets(shard: Shard, workspace_id: WorkspaceId) -> SigningSecretList:
    """The secrets that sign the workspace's requests, without the secrets."""
    now = await shard.now_ms()
    found = [_listed(one) for one in (await store.read(shard, workspace_id)).signing if one.valid(now)]
    return SigningSecretList(workspace_id=workspace_id, count=len(found), signing_secrets=found)


@noun.operation(
    "POST", status=201, errors=(TooManySecrets, TooManyWorkspaces, ReplaceConflict, WorkspaceErasing)
)
async def add_signing_secret(
    shard: Shard, call: Call, workspace_id: WorkspaceId, body: SigningSecretInput | None
) -> SigningSecretAnswer:
    """Sign with one more secret, from the next attempt on.

    At most two are valid at a time, and requests carry a signature of each: so receivers can change to the
    new one at any moment before the old one is deleted or expires.
    """
    given = body or SigningSecretInput()
    try:
        secret = parse_secret(given.secret or generate_secret())
    except ValueError as error:
        fault = Fault("secret", str(error))
        raise InvalidRequest("The body is not valid; nothing was done.", [fault]) from error
    now = await shard.now_ms()
    added = SigningSecret(secrets.token_hex(8), secret, now)
    wait = given.previous_expires_in_seconds
    expires = 0 if wait is None else now + wait * 1000

    def add(before: Outgoing) -> Outgoing:
        others = tuple(one for one in before.signing if one.valid(now))
        if len(others) >= MOST_SIGNING:
            raise TooManySecrets(f"{workspace_id!r} has {MOST_SIGNING} signing secrets: delete one first.")
        if any(one.secret == secret for one in others):
            fault = Fault("secret", "the workspace signs with this one already")
            raise InvalidRequest("The body is not valid; nothing was done.", [fault])
        if expires:
            others = tuple(
                structs.replace(one, expires=min(one.expires or expires, expires)) for one in others
            )
        return structs.replace(before, signing=(*others, added))

    await store.change(shard, workspace_id, add)
    call.told.target = added.id
    call.told.after = {"secret": MASK, "previous_expires_at": moment(expires or None)}
    return SigningSecretAnswer(workspace_id=workspace_id, signing_secret=_shown(added))


@noun.operation("GET", "/{signing_secret_id}", scope="write", errors=(NotFound,))
async def get_signing_secret(
    shard: Shard, workspace_id: WorkspaceId, signing_secret_id: SecretId
) -> SigningSecretAnswer:
    """One of them, with the secret."""
    now = await shard.now_ms()
    for one in (await store.read(shard, workspace_id)).signing:
        if one.id == signing_secret_id and one.valid(now):
            return SigningSecretAnswer(workspace_id=workspace_id, signing_secret=_shown(one))
    raise _none(workspace_id, signing_secret_id)


@noun.operation("DELETE", "/{signing_secret_id}", errors=(NotFound, ReplaceConflict, WorkspaceErasing))
async def delete_signing_secret(
    shard: Shard, call: Call, workspace_id: WorkspaceId, signing_secret_id: SecretId
) -> SigningSecretDeleted:
    """Sign with it no more, from the next attempt on. Without any, requests are not signed."""

    def remove(before: Outgoing) -> Outgoing:
        left = tuple(one for one in before.signing if one.id != signing_secret_id)
        if len(left) == len(before.signing):
            raise _none(workspace_id, signing_secret_id)
        return structs.replace(before, signing=left)

    await store.change(shard, workspace_id, remove)
    call.told.target, call.told.before = signing_secret_id, {"secret": MASK}
    return SigningSecretDeleted(workspace_id=workspace_id, id=signing_secret_id)


def _listed(one: SigningSecret) -> ListedSigningSecret:
    return ListedSigningSecret(
        id=one.id, created_at=rfc3339(one.created), expires_at=moment(one.expires or None)
    )


def _shown(one: SigningSecret) -> ShownSigningSecret:
    return ShownSigningSecret(**structs.asdict(_listed(one)), secret=format_secret(one.secret))


def _none(workspace: str, id_: str) -> NotFound:
    return NotFound(f"There is no signing secret {id_!r} in {workspace!r}.")
