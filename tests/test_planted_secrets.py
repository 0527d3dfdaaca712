"""Named and signing secrets are planted, used and echoed; then dump, logs and answers are searched."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import os
import secrets
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from calls import ACME, client_of, ok, once, run_once, store_set
from conftest import ShardFactory
from examples import ADMIN_KEY, OPERATIONS, path_of
from helpers import Received, Target, worker_running

from app.signing import generate_secret, parse_secret
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio


def forms_of(value: str) -> set[bytes]:
    """How a value may turn up."""
    raw = value.encode()
    return {raw, quote(value, safe="").encode(), json.dumps(value)[1:-1].encode(), base64.b64encode(raw)}


def forms_of_signing(secret: str) -> set[bytes]:
    raw = parse_secret(secret)
    return {secret.encode(), secret.removeprefix("whsec_").encode(), raw, raw.hex().encode()}


def echo(request: Received, writer: asyncio.StreamWriter) -> None:
    """Everything that came, in the reason phrase, too."""
    body = json.dumps([request.path, request.headers, request.body.decode()]).encode()
    reason = request.headers["x-token"].encode()
    writer.write(b"HTTP/1.1 500 %s\r\ncontent-length: %d\r\n\r\n%s" % (reason, len(body), body))


def broken(request: Received, writer: asyncio.StreamWriter) -> None:
    """What is no HTTP, with the token in it."""
    writer.write(b"%s is no HTTP\r\n\r\n" % request.headers["x-token"].encode())


async def dump_of(shard: Any, server: RedisServer) -> bytes:
    """What the server writes to disk."""
    await shard.redis.config_set("rdbcompression", "no")
    await shard.redis.save()
    return (Path(server.folder) / "dump.rdb").read_bytes()


@pytest.mark.parametrize("sealed", [True, False])
async def test_secrets_are_in_no_dump_with_keys_and_in_no_log_or_answer_ever(
    make_shard: ShardFactory, redis_server: RedisServer, caplog: pytest.LogCaptureFixture, sealed: bool
) -> None:
    key = base64.b64encode(os.urandom(32)).decode() if sealed else ""
    shard = make_shard(real_time=True, auth="tokens", admin_key=ADMIN_KEY, encryption_keys=key)
    value = f'{secrets.token_hex(12)}/"+&'
    former, unfit = secrets.token_hex(12), f"{secrets.token_hex(12)}\r\n"
    given = generate_secret()
    caplog.set_level(logging.DEBUG)
    answers: list[bytes] = []
    async with Target(echo).running() as target, client_of(shard) as client, worker_running(shard):
        client.headers["authorization"] = f"Bearer {ADMIN_KEY}"
        for name, one in (("token", former), ("token", value), ("unfit", unfit)):
            answers.append((await client.put(f"{ACME}/secrets/{name}", json={"value": one})).content)
        made = (await ok(client.post(f"{ACME}/signing-secrets"), 201))["signing_secret"]["secret"]
        await ok(client.post(f"{ACME}/signing-secrets", json={"secret": given}), 201)
        trigger = once(
            target,
            url=f"{target.url}/{{{{secret.token}}}}?q={{{{secret.token}}}}",
            headers={"x-token": "{{secret.token}}"},
            payload=b'{"{{secret.token}}":["{{secret.token}}"]}',
            max_retries=0,
        )
        await store_set(shard, t=trigger)
        letter = await run_once(client)
        assert letter["error"]["kind"] == "status"
        assert "********" in letter["attempts"][0]["response_snippet"]
        await ok(client.post(f"{ACME}/executions/{letter['id']}/retry"), 202)
        target.answer = broken
        assert (await run_once(client))["error"]["kind"] == "protocol"
        await ok(client.patch(f"{ACME}/triggers/t", json={"headers": {"x-token": "{{secret.unfit}}"}}))
        assert (await run_once(client))["error"]["kind"] == "secret"
        await ok(client.put(f"{ACME}/triggers/nightly-report", json=await shown_again(client)), 201)
        for path, body in (
            ("secrets/token", {"value": [value]}),
            ("secrets/token", {"value": value, value: 1}),
            ("signing-secrets", {"secret": given + "!"}),
        ):
            method = "PUT" if path.startswith("secrets") else "POST"
            refused = await client.request(method, f"{ACME}/{path}", json=body)
            assert refused.status_code == 400
            if value not in body:  # a field's name is told
                answers.append(refused.content)
        await ok(client.delete(f"{ACME}/secrets/token?force=true"))
        await ok(client.put(f"{ACME}/secrets/token", json={"value": value}), 201)
        audits = [await client.get(f"{ACME}/audit?limit=500"), await client.get("/api/audit")]
        answers += [one.content for one in audits]
        scope = {"name": "reader", "scope": "read", "workspaces": ["acme"]}
        client.headers["authorization"] = (
            f"Bearer {(await ok(client.post('/api/keys', json=scope), 201))['key']}"
        )
        for name, (method, _, _) in OPERATIONS.items():
            if method == "GET":
                url = path_of(name)[1].replace("acme:none:1", letter["id"])
                answers.append((await client.get(url)).content)
        answers += [(await client.get(url)).content for url in ("/docs", "/openapi.json", "/metrics")]
        dump = await dump_of(shard, redis_server)
    planted = [forms_of(one) for one in (former, value, unfit)] + [
        forms_of_signing(one) for one in (made, given)
    ]
    written = caplog.text.encode()
    for forms in planted:
        for form in forms:
            assert form not in written
            assert not [one for one in answers if form in one]
            assert not sealed or form not in dump
    found = [any(form in dump for form in forms) for forms in planted]
    assert sealed or found == [False, True, True, True, True]  # the search finds what is there


async def shown_again(client: Any) -> Any:
    """The trigger as it is shown, to be stored once more."""
    shown = (await ok(client.get(f"{ACME}/triggers/t")))["trigger"]
    return {
        "url": shown["url"],
        "method": shown["method"],
        "payload": shown["payload"],
        "interval": "90d",
    }
