"""Signatures, held against the library of Standard Webhooks."""

from __future__ import annotations

import base64
import time
from typing import Any

import pytest
from conftest import LOOPBACK
from helpers import Target, define
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.egress import make_egress
from app.keys import execution_id, own_execution_id
from app.models import pack_definition
from app.outgoing import SigningSecret
from app.signing import BadSignature, format_secret, generate_secret, parse_secret, sign, verify
from app.store.queue import Claimed
from workers import delivery
from workers.outgoing import Ready
from workers.transport import Transport

ID = "acme:nightly.v2:1790000040000"
NOW = 1_790_000_041
SECRET, OTHER, THIRD = bytes(range(32)), b"o" * 24, b"t" * 64
BODY = b'{"n":1.5}'


def accepts(secrets: Any, id_: str, timestamp: str, signature: str, body: bytes, now: int = NOW) -> bool:
    try:
        verify(secrets, id_, timestamp, signature, body, now)
    except BadSignature:
        return False
    return True


def test_the_example_of_the_specification() -> None:
    # The id is none of ours, so that it is signed only.
    secret = parse_secret("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = sign([secret], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, b'{"test": 2432232314}')
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_a_secret_is_written_and_read() -> None:
    written = generate_secret()
    assert written.startswith("whsec_")
    assert len(parse_secret(written)) == 32
    assert format_secret(parse_secret(written)) == written
    assert generate_secret() != written


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        "secret",
        base64.b64encode(SECRET).decode(),
        "WHSEC_" + "A" * 32,
        "whsec_" + "A" * 33,
        "whsec_ü",
        "whsec_" + "-_" * 16,
        "whsec_" + "A" * 32 + "\n",
        "whsec_A A" + "A" * 30,
        format_secret(b"x" * 23),
        format_secret(b"x" * 65),
    ],
)
def test_a_bad_secret_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ValueError, match="secret") as error:
        parse_secret(text)
    assert len(text) < 12 or text[6:] not in str(error.value)


def test_each_of_the_rotating_secrets_verifies() -> None:
    signature = sign([SECRET, OTHER], ID, NOW, BODY)
    assert signature.count(" ") == 1
    assert [part[:3] for part in signature.split(" ")] == ["v1,", "v1,"]
    for one in (SECRET, OTHER):
        assert accepts([one], ID, str(NOW), signature, BODY)
        assert accepts([THIRD, one], ID, str(NOW), signature, BODY)
    assert not accepts([THIRD], ID, str(NOW), signature, BODY)
    assert not accepts([], ID, str(NOW), signature, BODY)


@pytest.mark.parametrize(
    ("id_", "timestamp", "signature", "body"),
    [
        ("acme:nightly.v3:1790000040000", str(NOW), None, BODY),
        (ID, str(NOW + 1), None, BODY),
        (ID, str(NOW), None, BODY + b" "),
        (ID, str(NOW), "", BODY),
        (ID, str(NOW), "v1,", BODY),
        (ID, str(NOW), "v1a,AAAA v2,BBBB", BODY),
        (ID, f"{NOW}.0", None, BODY),
        (ID, f" {NOW}", None, BODY),
        (ID, "", None, BODY),
        (ID, "9" * 20, None, BODY),
        (ID, "١٧٩٠٠٠٠٠٤١", None, BODY),
        ("", str(NOW), None, BODY),
        ("msg_1", str(NOW), None, BODY),
    ],
)
def test_what_was_not_signed_is_refused(id_: str, timestamp: str, signature: str | None, body: bytes) -> None:
    signed = sign([SECRET], ID, NOW, BODY)
    assert accepts([SECRET], ID, str(NOW), signed, BODY)
    assert not accepts([SECRET], id_, timestamp, signed if signature is None else signature, body)


def test_an_old_or_a_future_message_is_refused() -> None:
    signed = sign([SECRET], ID, NOW, BODY)
    for seconds, wanted in ((300, True), (301, False), (-300, True), (-301, False)):
        assert accepts([SECRET], ID, str(NOW), signed, BODY, NOW + seconds) is wanted


name = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._-]{0,12}\Z")
ids = st.one_of(
    st.builds(execution_id, name, name, st.integers(0, 10**14)),
    st.builds(
        own_execution_id,
        name,
        name,
        st.integers(0, 10**14),
        st.sampled_from(["run", "retry"]),
        st.just("0a1"),
    ),
)
tricky = st.lists(st.sampled_from([b".", b"1790000041", b"a:b", b":", b"7", b"run-0a1"]), max_size=8)


@given(ids, st.integers(NOW - 9, NOW + 9), tricky.map(b"".join))
def test_a_signed_text_can_be_cut_in_one_way_only(id_: str, timestamp: int, body: bytes) -> None:
    text = b"%s.%d.%s" % (id_.encode(), timestamp, body)
    signature = sign([SECRET], id_, timestamp, body)
    dots = [index for index, byte in enumerate(text) if byte == ord(".")]
    accepted = [
        (first, second)
        for first in dots
        for second in dots
        if first < second
        and accepts(
            [SECRET],
            text[:first].decode(),
            text[first + 1 : second].decode(),
            signature,
            text[second + 1 :],
        )
    ]
    assert accepted == [(len(id_), len(id_) + 1 + len(str(timestamp)))]


def claimed(url: str, **fields: Any) -> Claimed:
    packed = pack_definition(define(url=url, **fields))
    return Claimed(ID, "acme", "nightly.v2", 1_790_000_040_000, [], packed, 0, "t")


def signing(*secrets: bytes) -> Ready:
    return Ready(
        make_egress(LOOPBACK, "", ""), tuple(SigningSecret("", secret, created=0) for secret in secrets)
    )


@pytest.mark.anyio
async def test_the_standard_library_verifies_what_arrives() -> None:
    transport = Transport(keep=100, read_at_most=1000, places=2)
    now = time.time_ns() // 1_000_000  # the library holds it against the clock of this machine
    async with Target().running() as target:
        for fields in (
            {"payload": BODY},
            {"payload": '"Grüße, {{attempt}}."'.encode()},
            {"method": "GET"},
        ):
            one = claimed(target.url, **fields)
            await delivery.attempt(transport, one, now, "w", signing(SECRET, OTHER))
            request = target.received.pop()
            for secret in (SECRET, OTHER):
                Webhook(format_secret(secret)).verify(request.body, request.headers, json_parse=False)
                verify(
                    [secret],
                    request.headers["webhook-id"],
                    request.headers["webhook-timestamp"],
                    request.headers["webhook-signature"],
                    request.body,
                    now // 1000,
                )
            with pytest.raises(WebhookVerificationError):
                Webhook(format_secret(THIRD)).verify(request.body, request.headers, json_parse=False)
            with pytest.raises(WebhookVerificationError):
                Webhook(format_secret(SECRET)).verify(request.body + b" ", request.headers, json_parse=False)
    await transport.aclose()


def test_without_secrets_there_is_no_signature() -> None:
    one = claimed("http://h.example/")
    request = delivery.build_request(delivery.prepare(one.definition), one, NOW * 1000, signing())
    assert b"webhook-timestamp" in request
    assert b"webhook-signature" not in request


def test_an_expired_secret_signs_no_more() -> None:
    one = claimed("http://h.example/")
    outgoing = Ready(make_egress("", "", ""), (SigningSecret("", SECRET, 0, NOW * 1000),))
    for now, wanted in ((NOW * 1000 - 1, True), (NOW * 1000, False)):
        request = delivery.build_request(delivery.prepare(one.definition), one, now, outgoing)
        assert (b"webhook-signature" in request) is wanted
