"""API keys: made, listed, deleted. Who has not all workspaces stays within their own."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from app.api.auth import Gate
from app.api.fields import Answer, about, moment
from app.api.operations import Call, Noun
from app.api.ranges import Instant
from app.auth import keys
from app.auth.callers import EVERYWHERE, SCOPES, Caller, Scope
from app.clock import LAST_MS, rfc3339, to_ms
from app.errors import Fault, Forbidden, InvalidRequest, NotFound, TooManyKeys
from app.formats import Line, Moment
from app.models import ID_PATTERN
from app.store import Shards
from app.store import api_keys as store

noun = Noun("keys", "API keys: who may call the API.", "/api/keys")

MOST_WORKSPACES = 1000
_SHARE = 10  # what part of all keys those may be that one caller makes who has not all workspaces

KeyId = Annotated[
    str,
    Meta(
        pattern=keys.ID_PATTERN,
        description="The key's id: the part of the key that is no secret.",
        examples=["abcdefghijklmnop"],
        extra={"rule": "the id of a key is 16 small letters and digits"},
    ),
]
Reach = Annotated[
    list[
        Annotated[
            str,
            Meta(
                pattern=rf"^(\*|{ID_PATTERN.removeprefix('^').removesuffix(chr(92) + 'Z')})\Z",
                extra={"rule": "expected the id of a workspace, or *"},
            ),
        ]
    ],
    Meta(
        min_length=1,
        max_length=MOST_WORKSPACES,
        description="Where it goes: workspaces, which need not exist yet, or `*` for all.",
    ),
]
ScopeField = Annotated[
    Scope,
    about(" ".join(f"`{scope}`: {what}." for scope, what in SCOPES.items()) + " Each with those before it."),
]


class KeyInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a key is to be."""

    name: Annotated[Line, Meta(min_length=1, max_length=200, description="For people: who has it.")]
    scope: ScopeField
    workspaces: Reach
    expires_at: (
        Annotated[Instant, Meta(description="From then on it is refused; left out: never.")] | None
    ) = None


class ShownKey(Answer, frozen=True, kw_only=True):
    """A key without its secret."""

    id: KeyId
    name: str
    scope: ScopeField
    workspaces: Annotated[list[str], about("Its workspaces; `*`: all.")]
    created_at: Moment
    expires_at: Annotated[Moment | None, about("Null: never.")]
    last_used_at: Annotated[Moment | None, about("To a minute; null: not yet.")]


class KeyCreated(ShownKey, frozen=True, kw_only=True):
    """A key with its secret, which nobody can look up later."""

    key: Annotated[str, about("For `Authorization: Bearer …`. It is shown this once.")]


class KeyList(Answer, frozen=True, kw_only=True):
    """The keys, the oldest first."""

    count: int
    keys: list[ShownKey]


class KeyDeleted(Answer, frozen=True, kw_only=True):
    """A key that is refused from now on."""

    id: KeyId


@noun.operation("POST", scope="admin", status=201, errors=(TooManyKeys,))
async def create_key(shards: Shards, call: Call, body: KeyInput) -> KeyCreated:
    """Make a key. The answer is the only one that has it.

    Nobody gives more than they have: who has not all workspaces names some of their own, and makes a tenth of
    all keys at most.
    """
    now = await shards.first.now_ms()
    expires = 0 if body.expires_at is None else to_ms(body.expires_at)
    if body.expires_at is not None and not now < expires <= LAST_MS:
        fault = Fault("expires_at", "it is past" if expires <= now else "it is beyond the year 9999")
        raise InvalidRequest("The body is not valid; nothing was done.", [fault])
    if not _within(body.workspaces, call.caller):
        raise Forbidden("A key can't reach workspaces that are not yours.", "admin")
    if call.caller.workspaces is not None:
        await _check_share(shards, call.caller)
    id_, text, digest = keys.new_key()
    key = keys.ApiKey(
        id=id_,
        name=body.name,
        scope=body.scope,
        workspaces=tuple(dict.fromkeys(body.workspaces)),
        digest=digest,
        created=now,
        expires=expires,
    )
    await store.add(shards.first, key)
    shown = _shown(key, 0)
    call.told.target, call.told.after = id_, _told(shown)
    return KeyCreated(**msgspec.structs.asdict(shown), key=text)


@noun.operation("GET", scope="admin")
async def list_keys(shards: Shards, call: Call) -> KeyList:
    """The keys, without their secrets."""
    found = [
        _shown(key, used)
        for key, used in await store.all_keys(shards.first)
        if _within(key.workspaces, call.caller)
    ]
    return KeyList(count=len(found), keys=found)


@noun.operation("DELETE", "/{key_id}", scope="admin", errors=(NotFound,))
async def delete_key(shards: Shards, call: Call, key_id: KeyId) -> KeyDeleted:
    """Delete a key. Other API processes may take it for some seconds more (`CRONSPACE_KEY_CACHE_SECONDS`)."""
    found = await store.find(shards.first, key_id)
    if found is None or not _within(found[0].workspaces, call.caller):
        raise NotFound(f"There is no API key {key_id!r}.")
    await store.remove(shards.first, key_id)
    gate: Gate = call.request.app.state.gate
    gate.key_ring.forget(key_id)
    call.told.before = _told(_shown(*found))
    return KeyDeleted(id=key_id)


async def _check_share(shards: Shards, caller: Caller) -> None:
    """One tenant does not take the keys of all others; raises :class:`TooManyKeys`."""
    most = max(1, shards.settings.max_api_keys // _SHARE)
    theirs = sum(_within(key.workspaces, caller) for key, _ in await store.all_keys(shards.first))
    if theirs >= most:
        raise TooManyKeys(
            f"There are {theirs} API keys for your workspaces, and may be {most}, a tenth of"
            " CRONSPACE_MAX_API_KEYS: delete some first."
        )


def _within(workspaces: list[str] | tuple[str, ...], caller: Caller) -> bool:
    """Whether all of a key's workspaces are the caller's."""
    if EVERYWHERE in workspaces:
        return caller.workspaces is None
    return all(map(caller.sees, workspaces))


def _shown(key: keys.ApiKey, used: int) -> ShownKey:
    return ShownKey(
        id=key.id,
        name=key.name,
        scope=key.scope,
        workspaces=list(key.workspaces),
        created_at=rfc3339(key.created),
        expires_at=moment(key.expires or None),
        last_used_at=moment(used or None),
    )


def _told(key: ShownKey) -> dict[str, object]:
    """What the audit tells of a key."""
    return {name: getattr(key, name) for name in ("name", "scope", "workspaces", "expires_at")}
