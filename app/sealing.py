"""Encryption at rest: what is sealed here can be read with one of ``CRONSPACE_ENCRYPTION_KEYS`` only.

AES-256-GCM. A sealed value is ``0xC1``, the id of its key (4 bytes), a random nonce (12 bytes), the
ciphertext and its tag (16 bytes). No msgpack value begins with ``0xC1``, so sealed and plain values lie side
by side: keys can be introduced, changed and given up without a moment at which everything is rewritten.

A sealed text (a part of a record that scripts unpack) is ``U+E0C1`` and the base64 of the sealed UTF-8. A
plain text that begins with that character is stored with it twice: nobody can pass one off as the other.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
from collections.abc import Sequence

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from app.errors import SealError

_MARK = b"\xc1"
_TEXT_MARK = "\ue0c1"  # private use: no meaning of its own
_ID_BYTES, _NONCE_BYTES, _KEY_BYTES = 4, 12, 32
_HEAD = len(_MARK) + _ID_BYTES
_HOW = "base64 of 32 random bytes, such as from `openssl rand -base64 32`"


class Sealer:
    """Seals with the first of ``keys`` (32 bytes each), opens with any; without keys leaves things plain.

    ``only_opens``: they are for opening alone, and what is sealed is left plain, too.
    """

    def __init__(self, keys: Sequence[bytes] = (), *, only_opens: bool = False) -> None:
        self._ciphers = {_id_of(key): AESGCM(key) for key in keys}
        self._first = None if only_opens else next(iter(self._ciphers), None)
        self._digest_keys = [hmac.digest(key, b"cronspace digest key", "sha256") for key in keys]

    @property
    def seals(self) -> bool:
        """Whether there is a key to seal with."""
        return self._first is not None

    def seal(self, plain: bytes) -> bytes:
        """The value to store; empty stays empty."""
        if self._first is None or not plain:
            return plain
        nonce = os.urandom(_NONCE_BYTES)
        head = _MARK + self._first
        return head + nonce + self._ciphers[self._first].encrypt(nonce, plain, head)

    @staticmethod
    def is_sealed(stored: bytes) -> bool:
        """Whether a value needs a key to be opened."""
        return stored.startswith(_MARK)

    @staticmethod
    def is_sealed_text(stored: str) -> bool:
        """The same of a text."""
        return stored.startswith(_TEXT_MARK) and not stored.startswith(2 * _TEXT_MARK)

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
        except (InvalidTag, ValueError):  # ValueError: it was cut off
            raise SealError("a stored value was altered: it does not fit its key") from None

    def digests(self, plain: bytes) -> list[str]:
        """What tells a value from others without showing it: the first is to be stored, each may be what is.

        Keyed, because a short value is found by trying; without keys, and from before there were any, not.
        """
        keyed = [hmac.digest(key, plain, "sha256").hex() for key in self._digest_keys]
        return [*keyed, hashlib.sha256(plain).hexdigest()]

    def seal_text(self, plain: str) -> str:
        """The same for a text; empty stays empty."""
        if self._first is not None and plain:
            return _TEXT_MARK + base64.b64encode(self.seal(plain.encode())).decode("ascii")
        return _TEXT_MARK + plain if plain.startswith(_TEXT_MARK) else plain

    def open_text(self, stored: str) -> str:
        """The plain text; raises :class:`SealError` as :meth:`open` does."""
        if self.is_sealed_text(stored):
            return self.open(_unwrapped(stored[len(_TEXT_MARK) :])).decode()
        return stored.removeprefix(_TEXT_MARK)

    def is_current(self, stored: bytes) -> bool:
        """Whether a value is stored as :meth:`seal` would store it now."""
        if not stored or self._first is None:
            return not stored.startswith(_MARK)
        return stored.startswith(_MARK + self._first)

    def is_current_text(self, stored: str) -> bool:
        """The same of a text."""
        if not self.is_sealed_text(stored):
            return not stored or self._first is None
        return self.is_current(_unwrapped(stored[len(_TEXT_MARK) :]))


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


def _unwrapped(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise SealError("a stored text was altered: it is not in the form of a sealed one") from None


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"cronspace key id" + key).digest()[:_ID_BYTES]
