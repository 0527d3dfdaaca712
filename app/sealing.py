"""Encryption at rest: what is sealed here can be read with one of ``CRONSPACE_ENCRYPTION_KEYS`` only.

AES-256-GCM. A sealed value is ``0xC1``, the id of its key (4 bytes), a random nonce (12 bytes), the
ciphertext and its tag (16 bytes). No msgpack value begins with ``0xC1``, so sealed and plain values lie side
by side: keys can be introduced, changed and given up without a moment at which everything is rewritten.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SealError

_MARK = b"\xc1"
_ID_BYTES, _NONCE_BYTES, _KEY_BYTES = 4, 12, 32
_HEAD = len(_MARK) + _ID_BYTES
_HOW = "base64 of 32 random bytes, such as from `openssl rand -base64 32`"


class Sealer:
    """Seals with the first of ``keys`` (32 bytes each), opens with any; without keys leaves things plain."""

    def __init__(self, keys: Sequence[bytes] = ()) -> None:
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._first = next(iter(self._ciphers), None)

    def seal(self, plain: bytes) -> bytes:
        """The value to store; empty stays empty."""
        if self._first is None or not plain:
            return plain
        nonce = os.urandom(_NONCE_BYTES)
        head = _MARK + self._first
        return head + nonce + self._ciphers[self._first].encrypt(nonce, plain, head)

    def open(self, stored: bytes) -> bytes:
        """The plain value; raises :class:`SealError` when none of the keys fits, or the value was altered."""
        if not stored.startswith(_MARK):
            return stored
        cipher = self._ciphers.get(stored[len(_MARK) : _HEAD])
        if cipher is None:
            raise SealError(
                "a stored value is encrypted with a key that CRONSPACE_ENCRYPTION_KEYS does not have: add it"
            )
        nonce, sealed = stored[_HEAD : _HEAD + _NONCE_BYTES], stored[_HEAD + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, sealed, stored[:_HEAD])
        except InvalidTag:
            raise SealError("a stored value was altered: it does not fit its key") from None

    def is_current(self, stored: bytes) -> bool:
        """Whether a value is stored as :meth:`seal` would store it now."""
        if not stored or self._first is None:
            return not stored.startswith(_MARK)
        return stored.startswith(_MARK + self._first)


def parse_keys(text: str) -> list[bytes]:
    """The keys of the setting, comma-separated; raises ``ValueError``, which does not repeat them."""
    keys = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            key = base64.b64decode(part.replace("-", "+").replace("_", "/"), validate=True)
        except binascii.Error:
            raise ValueError(f"a key is {_HOW}") from None
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a key has {_KEY_BYTES} bytes, not {len(key)}: {_HOW}")
        keys.append(key)
    return keys


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"cronspace key id" + key).digest()[:_ID_BYTES]
