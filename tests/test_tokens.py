"""JSON Web Tokens: good ones and hand-made bad ones, and where their keys come from."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import jwt
import pytest
from calls import bearer, client_of, ok, refused
from conftest import Monotonic, ShardFactory, eventually
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from helpers import Received, Target

from app.api.issuer import Issuer
from app.auth.tokens import KeySet
from app.errors import IssuerUnavailable

pytestmark = pytest.mark.anyio

SECRET = "a secret of at least thirty-two bytes"
PATH = "/api/workspaces/acme/triggers"
RSA_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
EC_KEY = ec.generate_private_key(ec.SECP256R1())
OTHER_KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
GOOD: dict[str, Any] = {
    "sub": "ann",
    "iss": "https://issuer.example",
    "aud": "cronspace",
    "workspaces": ["acme"],
    "scope": "openid write",
}


def jwk(key: Any, kid: str, **more: str) -> dict[str, Any]:
    """A public key as a JWK."""
    algorithm = jwt.algorithms.RSAAlgorithm if hasattr(key, "key_size") and key.key_size > 1000 else None
    made = (algorithm or jwt.algorithms.ECAlgorithm).to_jwk(key.public_key(), as_dict=True)
    return {**made, "kid": kid, **more}


def jwk_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": keys}).encode()


KEYS = jwk_set(jwk(RSA_KEY, "r"), jwk(EC_KEY, "e", use="sig"))


def made(key: Any = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any) -> str:
    """A token; a claim that is None is left out."""
    given = {**GOOD, "exp": time.time() + 60, **claims}
    headers = None if kid is None else {"kid": kid}
    return jwt.encode(
        {name: one for name, one in given.items() if one is not None}, key, algorithm, headers=headers
    )


def forged(head: dict[str, Any], key: bytes | None = None) -> str:
    """A token by hand, with what no library would make."""

    def part(value: bytes) -> str:
        return base64.urlsafe_b64encode(value).decode().rstrip("=")

    claims = {**GOOD, "exp": time.time() + 60}
    signed = ".".join(part(json.dumps(one).encode()) for one in (head, claims))
    signature = b"" if key is None else hmac.new(key, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{part(signature)}"


@asynccontextmanager
async def issuing(answer: bytes) -> AsyncIterator[Target]:
    """An issuer that answers so; it ends when those who asked have hung up."""
    async with Target(answer).running() as target:
        yield target
        await eventually(lambda: target.hung_up() == target.connections)


def settings_with(folder: Path, **more: Any) -> dict[str, Any]:
    """Settings that take tokens of both kinds."""
    file = folder / "keys.json"
    file.write_bytes(KEYS)
    return {
        "auth": "jwt",
        "jwt_secret": SECRET,
        "jwt_jwks": str(file),
        "jwt_issuer": GOOD["iss"],
        "jwt_audience": GOOD["aud"],
        **more,
    }


@pytest.mark.parametrize(
    ("key", "algorithm", "kid"),
    [
        (SECRET, "HS256", None),
        (RSA_KEY, "RS256", "r"),
        (EC_KEY, "ES256", "e"),
        (RSA_KEY, "RS256", None),  # the only one of its kind
    ],
)
async def test_a_good_token_is_taken(
    make_shard: ShardFactory, tmp_path: Path, key: Any, algorithm: str, kid: str | None
) -> None:
    async with client_of(make_shard(**settings_with(tmp_path))) as client:
        await ok(client.get(PATH, headers=bearer(made(key, algorithm, kid))))


PUBLIC_PEM = RSA_KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
PUBLIC_DER = RSA_KEY.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
N = jwk(RSA_KEY, "r")["n"].encode()

BAD = {
    "no algorithm": lambda: forged({"alg": "none"}),
    "no algorithm, in capitals": lambda: forged({"alg": "NONE"}),
    "no algorithm, by an empty name": lambda: forged({"alg": ""}),
    "an algorithm that is no name": lambda: forged({"alg": ["HS256"]}, SECRET.encode()),
    "no algorithm, with a signature": lambda: forged({"alg": "none"}, SECRET.encode()),
    "the public key as the secret": lambda: forged({"alg": "HS256", "kid": "r"}, PUBLIC_PEM),
    "its binary form as the secret": lambda: forged({"alg": "HS256", "kid": "r"}, PUBLIC_DER),
    "its modulus as the secret": lambda: forged({"alg": "HS256", "kid": "r"}, N),
    "an empty secret": lambda: forged({"alg": "HS256"}, b""),
    "a key of the token's own": lambda: made(OTHER_KEY, "RS256", "r"),
    "a key in the header": lambda: jwt.encode(
        {**GOOD, "exp": time.time() + 60}, OTHER_KEY, "RS256", headers={"jwk": jwk(OTHER_KEY, "r")}
    ),
    "a key of another kind": lambda: made(RSA_KEY, "RS256", "e"),
    "an unknown key": lambda: made(RSA_KEY, "RS256", "unknown"),
    "another algorithm of the same family": lambda: made(RSA_KEY, "RS512", "r"),
    "PSS with that key": lambda: made(RSA_KEY, "PS256", "r"),
    "a longer HMAC": lambda: made(SECRET * 2, "HS512"),
    "another secret": lambda: made(SECRET + "x"),
    "past": lambda: made(exp=time.time() - 31),
    "without an end": lambda: made(exp=None),
    "an end that is no number": lambda: made(exp="tomorrow"),
    "not valid yet": lambda: made(nbf=time.time() + 60),
    "another issuer": lambda: made(iss="https://evil.example"),
    "no issuer": lambda: made(iss=None),
    "for another service": lambda: made(aud="another"),
    "for nobody": lambda: made(aud=None),
    "cut off": lambda: made()[:-4],
    "changed": lambda: made()[:40] + "A" + made()[41:],
    "no token": lambda: "a.b.c",
    "half a token": lambda: "nonsense",
    "an endless one": lambda: made(note="x" * 20_000),
    "the secret itself": lambda: SECRET.replace(" ", "_"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")
async def test_a_bad_token_is_refused(make_shard: ShardFactory, tmp_path: Path, name: str) -> None:
    async with client_of(make_shard(**settings_with(tmp_path))) as client:
        await refused(client.get(PATH, headers=bearer(BAD[name]())), 401, "unauthorized")


async def test_a_clock_may_differ_by_the_leeway(make_shard: ShardFactory, tmp_path: Path) -> None:
    async with client_of(make_shard(**settings_with(tmp_path, jwt_leeway_seconds=300))) as client:
        await ok(client.get(PATH, headers=bearer(made(exp=time.time() - 200))))
        await refused(client.get(PATH, headers=bearer(made(exp=time.time() - 301))), 401, "unauthorized")


@pytest.mark.parametrize(
    ("kept", "token"),
    [
        ({"jwt_secret": ""}, lambda: made()),
        ({"jwt_jwks": ""}, lambda: made(RSA_KEY, "RS256", "r")),
        ({"jwt_jwks": ""}, lambda: forged({"alg": "none"})),
    ],
)
async def test_only_the_algorithms_that_have_a_key_are_taken(
    make_shard: ShardFactory, tmp_path: Path, kept: dict[str, str], token: Any
) -> None:
    async with client_of(make_shard(**settings_with(tmp_path, **kept))) as client:
        await refused(client.get(PATH, headers=bearer(token())), 401, "unauthorized")


@pytest.mark.parametrize(
    ("claims", "reads", "writes"),
    [
        ({}, 200, 200),
        ({"workspaces": "*"}, 200, 200),
        ({"workspaces": ["*"]}, 200, 200),
        ({"workspaces": "acme beta"}, 200, 200),
        ({"workspaces": ["beta"]}, 404, 404),
        ({"workspaces": []}, 404, 404),
        ({"workspaces": None}, 404, 404),
        ({"workspaces": {"acme": True}}, 404, 404),
        ({"workspaces": ["acme*"]}, 404, 404),
        ({"scope": "read"}, 200, 403),
        ({"scope": ["read", "admin"]}, 200, 200),
        ({"scope": "operate"}, 200, 403),
        ({"scope": "openid profile"}, 403, 403),
        ({"scope": "writer"}, 403, 403),
        ({"scope": None}, 403, 403),
        ({"scope": 7}, 403, 403),
    ],
)
async def test_the_claims_decide(
    make_shard: ShardFactory, tmp_path: Path, claims: dict[str, Any], reads: int, writes: int
) -> None:
    async with client_of(make_shard(**settings_with(tmp_path))) as client:
        headers = bearer(made(**claims))
        assert (await client.get(PATH, headers=headers)).status_code == reads
        assert (await client.put(PATH, json={"triggers": []}, headers=headers)).status_code == writes


async def test_the_claims_have_names_to_choose(make_shard: ShardFactory, tmp_path: Path) -> None:
    names = {"jwt_workspaces_claim": "https://example.com/teams", "jwt_scope_claim": "roles"}
    async with client_of(make_shard(**settings_with(tmp_path, **names))) as client:
        claims = {"https://example.com/teams": ["beta"], "roles": ["read"]}
        headers = bearer(made(**claims))
        await refused(client.get(PATH, headers=headers), 404, "not_found")
        await ok(client.get(PATH.replace("acme", "beta"), headers=headers))


async def test_no_name_keeps_a_change_out_of_the_audit(make_shard: ShardFactory, tmp_path: Path) -> None:
    """JSON can spell half a character, which nothing else can write."""
    odd: dict[str, Any] = {"sub": "ann\ud800", "name": "\udfff", "scope": "admin"}
    async with client_of(make_shard(**settings_with(tmp_path, rate_limit_key=100))) as client:
        headers = bearer(made(**odd))
        await ok(client.put("/api/workspaces/acme", json={}, headers=headers), 201)
        (entry,) = (await ok(client.get("/api/workspaces/acme/audit", headers=headers)))["entries"]
        assert (entry["who"]["id"], entry["who"]["name"]) == ("ann?", "?")


async def test_api_keys_work_beside_tokens(make_shard: ShardFactory, tmp_path: Path) -> None:
    async with client_of(make_shard(**settings_with(tmp_path))) as client:
        body = {"name": "CI", "scope": "read", "workspaces": ["acme"]}
        headers = bearer(made(scope="admin"))
        key = (await ok(client.post("/api/keys", json=body, headers=headers), 201))["key"]
        await ok(client.get(PATH, headers=bearer(key)))
        await refused(client.get(PATH, headers=bearer(key[:-1] + "!")), 401, "unauthorized")


async def test_keys_come_from_a_url_and_a_new_one_is_found(make_shard: ShardFactory, tmp_path: Path) -> None:
    async with issuing(_answer(jwk_set(jwk(RSA_KEY, "r")))) as target:
        shard = make_shard(**settings_with(tmp_path, jwt_jwks=f"{target.url}/keys"))
        async with client_of(shard) as client:
            for _ in range(3):
                await ok(client.get(PATH, headers=bearer(made(RSA_KEY, "RS256", "r"))))
    assert [one.path for one in target.received] == ["/keys"]


async def test_an_unknown_key_id_is_looked_for_again_but_not_at_every_call() -> None:
    clock = Monotonic()
    async with issuing(_answer(jwk_set(jwk(RSA_KEY, "r")))) as target:
        issuer = Issuer(target.url, clock)
        assert await issuer.key("RS256", "r")
        target.answer = _answer(jwk_set(jwk(OTHER_KEY, "new")))
        for kid in ("new", *map(str, range(100))):
            assert await issuer.key("RS256", kid) is None
        assert len(target.received) == 1
        clock.now += 30
        assert await issuer.key("RS256", "new")
        assert await issuer.key("RS256", "r") is None
        assert len(target.received) == 2


async def test_a_key_that_the_issuer_took_back_goes() -> None:
    clock = Monotonic()
    async with issuing(_answer(jwk_set(jwk(RSA_KEY, "r")))) as target:
        issuer = Issuer(target.url, clock)
        assert await issuer.key("RS256", "r")
        target.answer = _answer(jwk_set(jwk(OTHER_KEY, "new")))
        clock.now += 600
        assert await issuer.key("RS256", "r") is None


async def _drop(_: Received, writer: Any) -> None:
    writer.close()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:9/\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nnope",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2000000\r\n\r\n" + b" " * 2_000_000,
        b"garbage\r\n\r\n",
        _drop,
    ],
)
async def test_while_the_issuer_fails_former_keys_go_on_and_without_any_it_is_503(
    make_shard: ShardFactory, tmp_path: Path, answer: Any
) -> None:
    clock = Monotonic()
    async with issuing(_answer(jwk_set(jwk(RSA_KEY, "r")))) as target:
        issuer = Issuer(target.url, clock)
        assert await issuer.key("RS256", "r")
        target.answer = answer
        clock.now += 1000
        assert await issuer.key("RS256", "r")
        with pytest.raises(IssuerUnavailable):
            await Issuer(target.url, clock).key("RS256", "r")
        shard = make_shard(**settings_with(tmp_path, jwt_jwks=target.url))
        async with client_of(shard) as client:
            headers = bearer(made(RSA_KEY, "RS256", "r"))
            await refused(client.get(PATH, headers=headers), 503, "issuer_unavailable")


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://ann:hunter2@{}/keys?key=hunter3", "answered with 500"),
        ("http://ann:hunter2@127.0.0.1:1/keys?key=hunter3", "attempts failed"),
        ("http://ann:hunter2@127.0.0.1:hunter3/", "no URL"),
    ],
)
async def test_no_secret_of_the_issuers_url_is_in_the_log(
    caplog: pytest.LogCaptureFixture, url: str, told: str
) -> None:
    async with issuing(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n") as target:
        with pytest.raises(IssuerUnavailable):
            await Issuer(url.format(target.url.removeprefix("http://"))).key("RS256", "r")
    (line,) = [one.getMessage() for one in caplog.records if one.name == "app.api.issuer"]
    assert told in line
    assert "hunter" not in line


SMALL = rsa.generate_private_key(public_exponent=65537, key_size=1024)


@pytest.mark.parametrize(
    "text",
    [
        jwk_set(jwk(SMALL, "small")),
        jwk_set(jwk(RSA_KEY, "enc", use="enc")),
        jwk_set(jwk(RSA_KEY, "other", alg="RS512")),
        jwk_set({"kty": "oct", "k": "c2VjcmV0", "kid": "shared"}),
        jwk_set(jwk(ec.generate_private_key(ec.SECP384R1()), "384")),
        b"[]",
        b'{"keys": "none"}',
        b'{"keys": []}',
        b"\xff",
    ],
)
def test_keys_that_must_not_be_used_are_not(text: bytes) -> None:
    with pytest.raises(ValueError, match="JWK set"):
        KeySet.parse(text)


def _answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
