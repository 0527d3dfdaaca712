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


TEXTS = ["", "plain", "\ue0c1", "\ue0c1\ue0c1x", "\ue0c1wQ==", "naïve …", "x" * 5000]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("sealer", [Sealer(), Sealer([NEW]), Sealer([NEW], only_opens=True)])
def test_a_text_opens_as_it_was_whatever_it_begins_with(sealer: Sealer, text: str) -> None:
    stored = sealer.seal_text(text)
    assert Sealer([OLD, NEW]).open_text(stored) == text
    assert sealer.is_current_text(stored)
    assert Sealer([OLD, NEW]).is_current_text(stored) == (not text)
    assert Sealer.is_sealed_text(stored) == (sealer.seals and bool(text))


@pytest.mark.parametrize("text", ["\ue0c1wQ==", "\ue0c1not base64"])
def test_an_altered_text_does_not_open(text: str) -> None:
    """No target can make one: what it sends is stored with the mark twice."""
    with pytest.raises(SealError):
        Sealer([NEW]).open_text(text)
    assert Sealer().open_text(Sealer().seal_text(text)) == text


def test_what_is_only_opened_with_is_not_sealed_with() -> None:
    opens = Sealer([NEW], only_opens=True)
    sealed = Sealer([NEW]).seal(b"x")
    assert opens.open(sealed) == b"x"
    assert opens.seal(b"x") == b"x"
    assert not opens.is_current(sealed)
    assert not opens.seals


def test_a_digest_tells_the_same_value_through_a_change_of_keys_and_is_not_found_by_trying() -> None:
    plain, before, during = Sealer().digests(b"4711"), Sealer([OLD]).digests(b"4711"), Sealer([NEW, OLD])
    assert before[0] not in plain
    assert plain[0] in before
    assert before[0] in during.digests(b"4711")
    assert during.digests(b"4711")[0] not in before
    assert not set(during.digests(b"4711")) & set(during.digests(b"4712"))
