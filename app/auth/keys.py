"""API keys: ``cs_ID_SECRET``. The id finds the key; of the secret only a digest is stored.

The digest is a plain SHA-256. Slow hashes (argon2, scrypt) make guessing expensive where people choose the
secret; this one has 256 random bits, which nobody guesses at any speed, and it is checked on every request.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets

from msgspec import Struct

from app.auth.callers import EVERYWHERE, Caller, Scope

PREFIX = "cs_"
ID_PATTERN = r"^[a-z2-7]{16}\Z"
_KEY = re.compile(r"cs_([a-z2-7]{16})_([A-Za-z0-9_-]{43})\Z", re.ASCII)


class ApiKey(Struct, frozen=True, kw_only=True):
    """A key as it is stored. Times are ms since the epoch."""

    id: str
    name: str
    scope: Scope
    workspaces: tuple[str, ...]  # or ("*",)
    digest: bytes
    created: int
    expires: int = 0  # 0: never

    def caller(self) -> Caller:
        """Who calls with it."""
        return Caller(kind="key", id=self.id, name=self.name, scope=self.scope, workspaces=self.reach)

    @property
    def reach(self) -> frozenset[str] | None:
        """The workspaces, None for all."""
        return None if EVERYWHERE in self.workspaces else frozenset(self.workspaces)


def new_key() -> tuple[str, str, bytes]:
    """A new key: its id, its text, and the digest of its secret."""
    id_ = base64.b32encode(secrets.token_bytes(10)).decode().lower()
    secret = secrets.token_urlsafe(32)
    return id_, f"{PREFIX}{id_}_{secret}", digest_of(secret)


def split_key(text: str) -> tuple[str, str] | None:
    """The id and the secret of a key's text; None when it is none."""
    match = _KEY.match(text)
    return None if match is None else (match[1], match[2])


def digest_of(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode()).digest()


def same_secret(secret: str, digest: bytes) -> bool:
    """Whether a digest is that of a secret, in constant time."""
    return hmac.compare_digest(digest_of(secret), digest)
