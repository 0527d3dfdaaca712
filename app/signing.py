"""Signatures of requests by Standard Webhooks (standardwebhooks.com): symmetric, version 1.

``webhook-signature: v1,<base64 of HMAC-SHA256(secret, id "." timestamp "." body)>``, one such part for each
valid secret, separated by spaces: while a secret is rotated, a receiver may know the old or the new one.
Secrets are 24 to 64 random bytes, and written as ``whsec_`` and their base64.

Our ids hold dots, and so may bodies: can ``id.timestamp.body`` be cut in another way, into a message that was
never sent? Not into one with an id of ours. Those are ``workspace:trigger:slot`` or
``workspace:trigger:slot.kind-token``, with no colon in workspace and trigger. So the first two colons of
the text are the id's; the slot's digits and a dot follow; behind that dot a letter begins a kind, which goes
on to the next dot, and a digit begins the timestamp, which does, too; the rest is the body. There is one way
to read it. A receiver that takes any text for an id could be shown a part of the body as the timestamp, or a
part of the id, by somebody who can repeat signed requests, where a person with write access to the workspace
has prepared such a body or such a name. :func:`verify` takes
ids of ours only.
"""

from __future__ import annotations

import binascii
import hmac
import secrets as random
from collections.abc import Iterable

from app.keys import split_execution_id

PREFIX = "whsec_"
MIN_BYTES, MAX_BYTES, USUAL_BYTES = 24, 64, 32
TOLERANCE_SECONDS = 300

_VERSION = "v1,"


class BadSignature(ValueError):
    """A message that must not be trusted; the message of this says why."""


def generate_secret() -> str:
    """A new secret as it is written."""
    return format_secret(random.token_bytes(USUAL_BYTES))


def format_secret(secret: bytes) -> str:
    """A secret as it is written."""
    return PREFIX + _base64(secret)


def parse_secret(text: str) -> bytes:
    """The bytes of a written secret; raises ``ValueError``, which does not repeat it."""
    if not text.startswith(PREFIX):
        raise ValueError(f"a secret begins with {PREFIX}")
    try:
        secret = binascii.a2b_base64(text.removeprefix(PREFIX).encode("ascii"), strict_mode=True)
    except ValueError:  # binascii.Error and UnicodeEncodeError are ones, too
        raise ValueError(f"what follows {PREFIX} in a secret is base64") from None
    if not MIN_BYTES <= len(secret) <= MAX_BYTES:
        raise ValueError(f"a secret has {MIN_BYTES} to {MAX_BYTES} bytes, not {len(secret)}")
    return secret


def sign(secrets: Iterable[bytes], id_: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature``. ``timestamp`` is s since the epoch, as in ``webhook-timestamp``."""
    content = b"%s.%d.%s" % (id_.encode("ascii"), timestamp, body)
    return " ".join(_VERSION + _base64(hmac.digest(secret, content, "sha256")) for secret in secrets)


def verify(secrets: Iterable[bytes], id_: str, timestamp: str, signature: str, body: bytes, now: int) -> None:
    """Raise :class:`BadSignature` unless one of the secrets signed this, at most five minutes from ``now``.

    ``id_``, ``timestamp`` and ``signature`` are the headers as they came; ``now`` is s since the epoch.
    """
    try:
        split_execution_id(id_)
    except ValueError:
        raise BadSignature("the webhook-id is not the id of an execution") from None
    if not (id_.isascii() and timestamp.isascii() and timestamp.isdigit() and len(timestamp) <= 15):
        raise BadSignature("the webhook-timestamp is no number of seconds")
    if abs(int(timestamp) - now) > TOLERANCE_SECONDS:
        raise BadSignature(f"the webhook-timestamp is more than {TOLERANCE_SECONDS} s from now")
    given = [part.encode() for part in signature.split(" ")]
    matches = False
    for secret in secrets:
        wanted = sign([secret], id_, int(timestamp), body).encode()
        for part in given:
            matches |= hmac.compare_digest(part, wanted)
    if not matches:
        raise BadSignature("no signature of the webhook-signature is right")


def _base64(data: bytes) -> str:
    return binascii.b2a_base64(data, newline=False).decode("ascii")
