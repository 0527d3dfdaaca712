"""Secrets are planted wherever a trigger can have them and a target can send them, and searched for."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import sys
import zlib
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import redis
from calls import answers
from conftest import LOOPBACK, RedisServer, eventually, redis_binaries
from examples import ADMIN_KEY, DOCUMENT, OPERATIONS, PLACES
from helpers import Received, Target

from app.declared.masking import MASK
from lab.processes import free_port

pytestmark = pytest.mark.anyio

ACME = "/api/workspaces/acme"
SECRETS = {
    "query": "query-Ku7.secret",
    "unnamed": "unnamed-Pa2.secret",
    "path": "T0Pe3secretinapath0Qz",
    "header": "header Vo5/secret+",
    "credential": "credential-Ri8.secret",
    "payload": 'payload "Ne4" sécret',
    "number": "918273645546372819",
    "text": "text-Lu1.secret",
    "run": "run-Fo6.secret",
    "edited": "edited-Ba9.secret",
    "answer": "answer-Zi3.secret",
    "reason": "reason-Du4.secret",
    "cookie": "cookie-Mi7.secret",
    "garbage": "garbage-So2.secret",
    "refused": "refused-Ha5.secret",
}
NOT_SENT = {"answer", "reason", "cookie", "garbage", "refused", "edited"}  # by us
KEY = base64.b64encode(os.urandom(32)).decode()


def forms(secret: str) -> Iterator[bytes]:
    """A secret as it can stand somewhere."""
    plain = secret.encode()
    yield plain
    yield secret.encode("latin-1")
    yield plain.hex().encode()
    yield plain[::-1]
    yield quote(secret, safe="").encode()
    yield quote(secret).encode()
    for escaped in (json.dumps(secret), json.dumps(secret, ensure_ascii=False), repr(secret)):
        yield escaped[1:-1].encode()
    for before in range(3):  # how base64 looks depends on what stands before; not on the middle of the text
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            yield encode(b"\0" * before + plain)[4:-4]


FORMS = {name: set(forms(secret)) for name, secret in SECRETS.items()}


def found_in(data: bytes) -> set[str]:
    return {name for name, looks in FORMS.items() if any(look in data for look in looks)}


def trigger(target: Target, id_: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": id_,
        "cron": "0 0 1 1 *",
        "url": f"{target.url}/{id_}/{SECRETS['path']}?token={SECRETS['query']}&{SECRETS['unnamed']}",
        "method": "POST",
        "headers": {"X-Plain": SECRETS["header"], "Authorization": f"Bearer {SECRETS['credential']}"},
        "payload": {"list": [SECRETS["payload"]], "number": int(SECRETS["number"])},
        "max_retries": 0,
        **fields,
    }


def answer(request: Received, writer: asyncio.StreamWriter) -> None:
    status = 200 if request.path.startswith("/good") else 500
    body = f'{{"token": "{SECRETS["answer"]}"}}'.encode()
    if request.path.startswith("/garbage"):
        writer.write(f"{SECRETS['garbage']}\r\n\r\n".encode())
        writer.close()
        return
    head = f"HTTP/1.1 {status} {SECRETS['reason']}\r\nset-cookie: s={SECRETS['cookie']}\r\n"
    writer.write(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)


@asynccontextmanager
async def processes(folder: Path, redis_url: str, keys: str) -> AsyncIterator[httpx.AsyncClient]:
    """An API and a worker that log all there is to log; a client of the API."""
    port = free_port()
    environ = {
        **os.environ,
        "REDIS_URL": redis_url,
        "PORT": str(port),
        "CRONSPACE_AUTH": "tokens",
        "CRONSPACE_ADMIN_KEY": ADMIN_KEY.replace(" ", "-"),
        "CRONSPACE_EGRESS_ALLOW": LOOPBACK,
        "CRONSPACE_LOG_LEVEL": "DEBUG",
        "CRONSPACE_ENCRYPTION_KEYS": keys,
        "CRONSPACE_WORKER_PORT": str(free_port()),
        "CRONSPACE_METRICS_WORKSPACES": "10",
        "PYTHONASYNCIODEBUG": "1",
    }
    started = []
    try:
        for command in ("api", "worker"):
            with (folder / f"{command}.log").open("wb") as log:
                started.append(
                    await asyncio.create_subprocess_exec(
                        sys.executable, "-m", "app", command, env=environ, stdout=log, stderr=log
                    )
                )
        key = {"authorization": f"Bearer {environ['CRONSPACE_ADMIN_KEY']}"}
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=key, timeout=60) as client:
            await eventually(lambda: answers(client, str(client.base_url)), 60)
            yield client
            await look_at_metrics(client, int(environ["CRONSPACE_WORKER_PORT"]))
    finally:
        for process in started:
            if process.returncode is None:
                process.terminate()
                await asyncio.wait_for(process.wait(), 60)


async def look_at_metrics(client: httpx.AsyncClient, worker_port: int) -> None:
    """What API and worker tell Prometheus, when all has happened."""
    of_api = await client.get("/metrics")
    of_worker = await client.get(f"http://127.0.0.1:{worker_port}/metrics")
    assert b'workspace="acme"' in of_api.content
    assert b"cronspace_worker" in of_worker.content
    for answer_ in (of_api, of_worker):
        assert (answer_.status_code, found_in(answer_.content)) == (200, set())


async def ended(client: httpx.AsyncClient, id_: str) -> Any:
    async def look() -> Any:
        execution = (await client.get(f"{ACME}/executions/{id_}")).json()["execution"]
        return execution if execution["state"] in ("failed", "succeeded") else None

    return await eventually(look, 60)


async def do_everything(client: httpx.AsyncClient, target: Target) -> dict[str, str]:
    """Whatever brings secrets somewhere; returns what fills the paths of the API's document."""

    async def call(method: str, path: str, body: Any = None, status: int = 200) -> Any:
        response = await client.request(method, f"{ACME}{path}", json=body)
        assert response.status_code == status, response.text
        return response.json()

    good = trigger(target, "good", payload=SECRETS["text"])
    everything = [trigger(target, "bad"), good, trigger(target, "garbage"), trigger(target, "going")]
    await call("PUT", "/triggers", {"triggers": everything})
    await call("PATCH", "/triggers/good", {"headers": {"X-Plain": SECRETS["edited"]}})
    await call("PUT", "/triggers", {"triggers": everything[:-1]})
    await call("PUT", "/triggers?dry_run=true", {"triggers": everything})
    await call("POST", "/revisions/1/rollback")
    letters = []
    for id_, body in (("bad", {"payload": SECRETS["run"]}), ("garbage", None), ("good", None), ("bad", None)):
        made = await call("POST", f"/triggers/{id_}/run", body, 202)
        letters.append(made["execution_id"])
        assert (await ended(client, letters[-1]))["state"] == ("succeeded" if id_ == "good" else "failed")
    again = await call("POST", f"/executions/{letters[0]}/retry", None, 202)
    await ended(client, again["execution_id"])
    waiting = trigger(target, "waits", max_retries=5, retry_delay_seconds=3600)
    await call("PUT", "/triggers/waits", waiting, 201)
    await call("POST", "/triggers/waits/run", None, 202)
    await eventually(lambda: any(one.path.startswith("/waits") for one in target.received))
    await call("POST", "/triggers/good/pause", {"note": "x"})
    secret = SECRETS["refused"]
    for wrong in (
        {"url": f"http://{secret}:{secret}@127.0.0.1/"},
        {"url": f"ftp://127.0.0.1/?x={secret}"},
        {"url": f"http://127.0.0.1/ ?x={secret}"},
        {"headers": {"X-A": f"{secret}\n"}},
        {"headers": {"X-A": [secret]}},
        {"payload": f"{secret} {{{{attempt"},
        {"payload": {"x": f"{{{{attemp}}}} {secret}"}},
        {"max_retries": "x", "payload": secret},
        {"payload": {"x": secret}, "surplus": 1},
    ):
        response = await client.put(f"{ACME}/triggers/wrong", json=trigger(target, "wrong", **wrong))
        assert response.status_code == 400, wrong
        assert found_in(response.content) == set(), response.text
    return {**PLACES, "trigger_id": "bad", "execution_id": letters[0], "revision": "1"}


def read(folder: str | Path, name: str) -> bytes:
    return Path(folder, name).read_bytes()


def everything_in(url: str) -> Iterator[tuple[str, bytes]]:
    """What lies in Redis, key by key and value by value, unpacked where it is compressed."""
    with redis.Redis.from_url(url) as store:
        for key in store.scan_iter():
            values = {
                b"string": lambda key: [store.get(key)],
                b"hash": lambda key: [part for pair in store.hgetall(key).items() for part in pair],
                b"set": lambda key: list(store.smembers(key)),
                b"zset": lambda key: store.zrange(key, 0, -1),
                b"stream": lambda key: [v for _, fields in store.xrange(key) for v in fields.values()],
            }[store.type(key)](key)
            yield key.decode(), b"\n".join([key, store.dump(key) or b"", *values])
            for value in values:
                with suppress(zlib.error):
                    yield key.decode(), zlib.decompress(value)


@pytest.mark.parametrize("keys", [KEY, ""], ids=["sealed", "plain"])
async def test_planted_secrets_are_found_nowhere(tmp_path: Path, keys: str) -> None:
    """Without keys they lie in Redis, and are found there: so the search would find them."""
    server = RedisServer(next(iter(redis_binaries().values())), "--rdbcompression", "no")
    try:
        async with Target(answer).running() as target, processes(tmp_path, server.url(), keys) as client:
            places = await do_everything(client, target)
            arrived = b"".join(f"{one.path} {one.headers}".encode() + one.body for one in target.received)
            assert set(SECRETS) - found_in(arrived) == NOT_SENT
            await look_with_every_scope(client, places)
            with redis.Redis.from_url(server.url()) as store:
                store.save()
        dumped = {"rdb": found_in(read(server.folder, "dump.rdb"))}
        for key, value in everything_in(server.url()):
            dumped.setdefault(key, set()).update(found_in(value))
    finally:
        server.close()
    logs = {name: read(tmp_path, f"{name}.log") for name in ("api", "worker")}
    assert {name: found_in(text) for name, text in logs.items()} == {"api": set(), "worker": set()}
    assert b"Started server" in logs["api"]
    assert b"the target answered 500" in logs["worker"]
    if keys:
        assert {key: names for key, names in dumped.items() if names} == {}
    else:
        everywhere = set().union(*dumped.values())
        assert everywhere == set(SECRETS) - {"reason", "cookie", "garbage", "refused"}


async def look_with_every_scope(client: httpx.AsyncClient, places: dict[str, str]) -> None:
    """Every GET of the document, and the answers to what operators do."""
    seen: dict[str, set[str]] = {}
    for scope in ("read", "operate", "write", "admin"):
        body = {"name": scope, "scope": scope, "workspaces": ["acme"]}
        made = (await client.post("/api/keys", json=body)).json()
        key = {"authorization": f"Bearer {made['key']}"}
        for name, (method, path, operation) in OPERATIONS.items():
            if method != "GET":
                continue
            expressions = [one for one in operation.get("parameters", ()) if one["name"] == "expression"]
            query = {one["name"]: "* * * * *" for one in expressions}
            response = await client.get(path.format(**places), params=query, headers=key)
            assert response.status_code in (200, 400, 403, 404), (name, response.text)
            if scope in ("read", "operate"):
                assert found_in(response.content) == set(), (scope, name, response.text)
                refused = await client.get(path.format(**places), params={"reveal": "true"}, headers=key)
                assert refused.status_code in (400, 403, 404), (scope, name)
            elif response.status_code == 200:
                again = await client.get(path.format(**places), params={"reveal": "true"}, headers=key)
                shown = found_in(again.content) if again.status_code == 200 else set()
                seen[name] = found_in(response.content) | shown
                assert "credential" not in found_in(response.content), name
        for path in ("/docs", "/openapi.json"):
            assert found_in((await client.get(path, headers=key)).content) == set()
        if scope == "operate":
            for what in ("pause", "resume"):
                answered = await client.post(f"{ACME}/triggers/bad/{what}", headers=key)
                assert (answered.status_code, found_in(answered.content)) == (200, set())
            run = (await client.post(f"{ACME}/triggers/waits/run", headers=key)).json()["execution_id"]
            cancelled = await client.post(f"{ACME}/executions/{run}/cancel", headers=key)
            assert found_in(cancelled.content) == set()
    assert {"query", "header", "credential", "payload", "number", "path"} <= seen["get_trigger"]
    assert seen["get_trigger"] | {"text"} <= seen["list_triggers"] & seen["get_revision"]
    assert {"run", "answer", "credential"} <= seen["get_execution"]
    assert seen["get_audit"] == set()


def test_the_search_knows_the_forms_of_a_secret() -> None:
    secret = SECRETS["payload"]
    for form in (
        secret.encode(),
        json.dumps({"a": secret}).encode(),
        f"x={quote(secret)}".encode(),
        base64.b64encode(f"a{secret}bc".encode()),
        base64.b64encode(f"ab{secret}".encode()),
    ):
        assert found_in(form) == {"payload"}
    assert found_in(MASK.encode()) == set()
    assert DOCUMENT["openapi"].startswith("3.")
