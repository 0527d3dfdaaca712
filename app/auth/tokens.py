"""JSON Web Tokens: which are good, and what their claims allow.

The algorithm comes from the key, never from the token alone: HS256 is checked with the secret and with
nothing else, RS256 and ES256 with a key of the JWK set that is of that kind. So ``alg: none`` has no key, and
a public key can't be made a secret (RFC 8725, 2.1 and 3.1).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from jwt import PyJWK, PyJWKSet
from jwt.exceptions import PyJWTError

from app.auth.callers import EVERYWHERE, SCOPES, Caller
from app.config import Settings
from app.errors import Unauthorized
from app.models import is_id

Algorithm = Literal["HS256", "RS256", "ES256"]
PublicKey = RSAPublicKey | EllipticCurvePublicKey

_LONGEST = 16_384  # characters
_LONGEST_NAME = 200  # of a subject: it goes into the audit and the log
_LEAST_RSA_BITS = 2048  # RFC 7518, 3.3


class KeySet:
    """The keys of a JWK set that can be used here."""

    def __init__(self, keys: Iterable[tuple[Algorithm, str, PublicKey]] = ()) -> None:
        self._keys = tuple(keys)

    @classmethod
    def parse(cls, text: bytes) -> KeySet:
        """The RS256 and ES256 keys of a JWK set (RFC 7517); raises ``ValueError`` when it has none."""
        try:
            found = [_usable(one) for one in PyJWKSet.from_json(text.decode()).keys]
        except (PyJWTError, UnicodeDecodeError, ValueError, TypeError, AttributeError, KeyError) as error:
            raise ValueError(f"not a JWK set: {error}") from error
        usable = [one for one in found if one is not None]
        if not usable:
            raise ValueError("the JWK set has no RSA (2048 bits and more) or P-256 key for signatures")
        return cls(usable)

    def find(self, algorithm: Algorithm, kid: str | None) -> PublicKey | None:
        """The key of that kind and id; without an id the only one of that kind."""
        fitting = [key for kind, id_, key in self._keys if kind == algorithm and kid in (None, id_)]
        return fitting[0] if len(fitting) == 1 else None


def _usable(one: PyJWK) -> tuple[Algorithm, str, PublicKey] | None:
    key = one.key
    if one.public_key_use not in (None, "sig"):
        return None
    if isinstance(key, RSAPublicKey) and key.key_size >= _LEAST_RSA_BITS and one.algorithm_name == "RS256":
        return "RS256", one.key_id or "", key
    if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
        return "ES256", one.key_id or "", key
    return None


class TokenReader:
    """Reads tokens as the settings say."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._secret = settings.jwt_secret.encode()
        self._algorithms = [
            *(["HS256"] if settings.jwt_secret else []),
            *(["RS256", "ES256"] if settings.jwt_jwks else []),
        ]

    def wanted(self, token: str) -> tuple[Algorithm, str | None]:
        """The algorithm and the key's id that a token names; raises :class:`Unauthorized`."""
        if len(token) > _LONGEST:
            raise _wrong("it is too long")
        try:
            head = jwt.get_unverified_header(token)
        except PyJWTError as error:
            raise _wrong("it is neither an API key nor a JSON Web Token") from error
        algorithm, kid = head.get("alg"), head.get("kid")
        if algorithm not in self._algorithms:
            raise _wrong(f"its algorithm is not one of {', '.join(self._algorithms)}")
        return cast(Algorithm, algorithm), kid

    def read(self, token: str, algorithm: Algorithm, key: PublicKey | None = None) -> Caller:
        """The caller; ``key`` is that of a JWK set, for HS256 there is none. Raises :class:`Unauthorized`."""
        settings = self._settings
        used = self._secret if algorithm == "HS256" else key
        if not used:
            raise _wrong("the issuer has no such key")
        try:
            claims = jwt.decode(
                token,
                used,
                algorithms=[algorithm],
                issuer=settings.jwt_issuer or None,
                audience=settings.jwt_audience or None,
                leeway=settings.jwt_leeway_seconds,
                options={"require": ["exp"], "verify_aud": bool(settings.jwt_audience)},
            )
        except PyJWTError as error:
            raise _wrong(str(error)) from error
        return self._caller(claims)

    def _caller(self, claims: Mapping[str, Any]) -> Caller:
        words = _words(claims.get(self._settings.jwt_scope_claim))
        workspaces = _words(claims.get(self._settings.jwt_workspaces_claim))
        return Caller(
            kind="jwt",
            id=_told(claims.get("sub", "")),
            name=_told(claims.get("name", "")),
            scope=next((scope for scope in reversed(SCOPES) if scope in words), None),
            workspaces=None if EVERYWHERE in workspaces else frozenset(filter(is_id, workspaces)),
        )


def _words(claim: Any) -> list[str]:
    """A claim that is a list of words, as one or with spaces between them (RFC 8693, 4.2)."""
    if isinstance(claim, str):
        return claim.split()
    return [word for word in claim if isinstance(word, str)] if isinstance(claim, list) else []


def _told(claim: Any) -> str:
    """A claim that is written down. JSON can spell half a character, which nobody can write: ``?``."""
    return str(claim)[:_LONGEST_NAME].encode(errors="replace").decode()


def _wrong(why: str) -> Unauthorized:
    return Unauthorized(f"The token can't be taken: {why}.", given=True)
