"""Encryption at rest: what opens, what does not, and how keys are changed."""

from __future__ import annotations

import base64
import os

import msgspec
import pytest

from app.config import load_settings
from app.errors import ConfigError, SealError
from app.sealing import Sealer, parse_keys

OLD, NEW = os.urandom(32), os.urandom(32)


def test_what_is_sealed_opens_and_shows_nothing() -> None:
    sealer = Sealer([NEW])
    sealed = sealer.seal(b"a secret payload")
    assert b"secret" not in sealed
    assert sealer.open(sealed) == b"a secret payload"
    assert sealer.seal(b"a secret payload") != sealed


def test_the_first_key_seals_and_every_key_opens() -> None:
    before, during, after = Sealer([OLD]), Sealer([NEW, OLD]), Sealer([NEW])
    old = before.seal(b"x")
    assert during.open(old) == b"x"
    assert not during.is_current(old)
    again = during.seal(during.open(old))
    assert during.is_current(again)
    assert after.open(again) == b"x"
    with pytest.raises(SealError, match="CRONSPACE_ENCRYPTION_KEYS"):
        after.open(old)


@pytest.mark.parametrize("value", [None, 0, "text", b"bytes", [1], {"a": 1}, -1, 1.5, True])
def test_plain_values_open_as_they_are(value: object) -> None:
    packed = msgspec.msgpack.encode(value)
    assert Sealer([NEW]).open(packed) == packed
    assert not Sealer([NEW]).is_current(packed)
    assert Sealer().seal(packed) == packed
    assert Sealer().is_current(packed)


def test_empty_stays_empty() -> None:
    assert Sealer([NEW]).seal(b"") == b""
    assert Sealer([NEW]).is_current(b"")


@pytest.mark.parametrize("place", [1, 5, 16, 17, -1])
def test_an_altered_value_does_not_open(place: int) -> None:
    sealed = bytearray(Sealer([NEW]).seal(b"amount=10"))
    sealed[place] ^= 1
    with pytest.raises(SealError):
        Sealer([NEW]).open(bytes(sealed))


def test_keys_are_read_from_either_alphabet_of_base64() -> None:
    text = f"{base64.b64encode(OLD).decode()}, {base64.urlsafe_b64encode(NEW).decode()}"
    assert parse_keys(text) == [OLD, NEW]
    assert parse_keys("") == []


@pytest.mark.parametrize("text", ["short", base64.b64encode(b"x" * 31).decode(), "§" * 44, "a" * 43])
def test_a_bad_key_is_refused_without_being_repeated(text: str) -> None:
    with pytest.raises(ConfigError, match="CRONSPACE_ENCRYPTION_KEYS") as caught:
        load_settings({"CRONSPACE_ENCRYPTION_KEYS": text})
    assert text not in str(caught.value)
