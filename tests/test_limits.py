"""Bounds on what is sent to the API, and on what it stores."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from calls import ACME, client_of, ok, once, refused, run_once, store_set
from conftest import ShardFactory, eventually
from examples import BODIES, OPERATIONS, path_of
from helpers import Target, define, note_threads, worker_running

from app.api import trigger_inputs
from app.api.reading import Body
from app.config import Settings
from app.declared import bodies, checks, inputs, variables
from app.main import create_app, server_of
from app.store import Shard, Shards, catalog, triggers, workspaces

pytestmark = pytest.mark.anyio

ONE = {"cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/", "method": "POST"}
DEPTH = 100_000


@asynccontextmanager
async def served(shard: Shard) -> AsyncIterator[int]:
    """The API as it is served, on loopback; the port."""
    server = server_of(shard.settings, create_app(shard.settings, Shards([shard])))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        await eventually(lambda: server.started)
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await serving


async def exchange(port: int, *parts: bytes, drip: bytes = b"") -> tuple[str, str]:
    """What comes back until the server closes: status line and headers, and the body. ``drip`` is sent until
    then, a byte at a time."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
        while drip:
            writer.write(drip)
            await writer.drain()
            await asyncio.sleep(0.02)  # a byte in 20 ms is what this is about

    sending = asyncio.create_task(send())
    got = b""
    try:
        async with asyncio.timeout(10):
            while part := await reader.read(65536):
                got += part
    except ConnectionError:
        pass  # it was closed while we were sending
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()
    head, _, body = got.decode().partition("\r\n\r\n")
    return head, body


# Triggers and workspaces.


async def test_a_set_grows_no_larger_whatever_adds_to_it(make_shard: ShardFactory) -> None:
    large, shard = make_shard(), make_shard(max_triggers=2)
    await triggers.replace(large, "acme", [(str(number), define()) for number in range(4)])
    async with client_of(shard) as client:
        url = f"{ACME}/triggers"
        await refused(client.post(f"{url}/new", json=ONE), 409, "too_many_triggers")
        await refused(client.put(f"{url}/new-one", json=ONE), 409, "too_many_triggers")
        await refused(client.put(url, json={"triggers": [ONE] * 3}), 400, "invalid_request")
        await ok(client.patch(f"{url}/0", json={"name": "changed"}))  # what is there stays
        for trigger in ("0", "1", "2"):
            await ok(client.delete(f"{url}/{trigger}"))
        await ok(client.put(f"{url}/second", json=ONE), 201)
        told = await refused(client.post(f"{url}/new", json=ONE), 409, "too_many_triggers")
        assert "may hold 2 (CRONSPACE_MAX_TRIGGERS)" in told["detail"]
        rollback = f"{ACME}/revisions/1/rollback"
        await refused(client.post(rollback), 409, "too_many_triggers")
    assert [one.id for one in (await catalog.read(shard, "acme")).triggers] == ["3", "second"]


async def test_no_attempt_takes_longer_than_the_deployment_allows(make_shard: ShardFactory) -> None:
    before, shard = make_shard(real_time=True), make_shard(real_time=True, max_timeout_seconds=0.2)
    slow = {**ONE, "timeout_seconds": 0.3}
    async with Target().running() as target, client_of(shard) as client, worker_running(shard):
        url = f"{ACME}/triggers"
        for refusal in (
            client.post(f"{url}/new", json=slow),
            client.put(f"{url}/x", json=slow),
            client.put(url, json={"triggers": [slow]}),
            client.put(url, json={"triggers": [{**slow, "enabled": 5}]}),
        ):
            (fault, *_) = (await refused(refusal, 400, "invalid_request"))["errors"][-1:]
            assert fault["path"].endswith("timeout_seconds")
            assert "0.2 s (CRONSPACE_MAX_TIMEOUT_SECONDS)" in fault["message"]
        await ok(client.put(ACME, json={"timeout_seconds": 60}), 201)
        shown = (await ok(client.get(ACME)))["workspace"]
        assert (shown["settings"]["timeout_seconds"], shown["effective"]["timeout_seconds"]) == (60, 0.2)
        made = await ok(client.put(f"{url}/usual", json=ONE), 201)
        assert made["trigger"]["timeout_seconds"] == 0.2
        # What was stored before is cut, in a workspace with secrets of its own as well.
        target.hold.clear()
        await ok(client.put("/api/workspaces/other/secrets/a", json={"value": "hunter2"}), 201)
        for workspace in ("acme", "other"):
            await store_set(before, workspace, t=once(target, timeout_seconds=3600, max_retries=0))
            error = (await run_once(client, workspace))["error"]
            assert (error["kind"], error["message"]) == ("timeout", "no complete answer within 0.2 s")
        target.hold.set()
        await refused(client.patch(f"{url}/t", json={"name": "x"}), 400, "invalid_request")
        await ok(client.patch(f"{url}/t", json={"timeout_seconds": 0.1}))


async def test_racing_additions_do_not_pass_the_bound(make_shard: ShardFactory) -> None:
    shard = make_shard(max_triggers=5)
    async with client_of(shard) as client:
        made = await asyncio.gather(*[client.post(f"{ACME}/triggers/new", json=ONE) for _ in range(12)])
    assert sorted(one.status_code for one in made) == [201] * 5 + [409] * 7


async def test_no_more_workspaces_are_made_than_there_may_be(make_shard: ShardFactory) -> None:
    shard = make_shard(max_workspaces=2)
    async with client_of(shard) as client:
        await store_set(shard, "acme", one="* * * * *")
        await ok(client.put("/api/workspaces/beta", json={}), 201)
        other = "/api/workspaces/other"
        told = await refused(client.put(other, json={}), 409, "too_many_workspaces")
        assert "CRONSPACE_MAX_WORKSPACES" in told["detail"]
        await refused(client.put(f"{other}/triggers", json={"triggers": []}), 409, "too_many_workspaces")
        await refused(client.post(f"{other}/triggers/new", json=ONE), 409, "too_many_workspaces")
        await refused(client.put(f"{other}/triggers/x", json=ONE), 409, "too_many_workspaces")
        await refused(client.put(f"{other}/secrets/x", json={"value": "1234"}), 409, "too_many_workspaces")
        await refused(client.post(f"{other}/signing-secrets"), 409, "too_many_workspaces")
        await refused(client.put(f"{other}/egress", json={"deny": ["*"]}), 409, "too_many_workspaces")
        await ok(client.put(f"{ACME}/triggers", json={"triggers": [ONE]}))
        await ok(client.put(f"{ACME}/secrets/x", json={"value": "1234"}), 201)
        await ok(client.delete("/api/workspaces/beta?confirm=beta"))
        await ok(client.put(other, json={}), 201)
    assert await workspaces.all_ids(shard) == ["acme", "other"]


# Bodies.


@pytest.mark.parametrize("name", BODIES)
@pytest.mark.parametrize(
    "body",
    [
        b"[" * DEPTH,
        b"[" * DEPTH + b"]" * DEPTH,
        b'{"a":' * DEPTH + b"1" + b"}" * DEPTH,
        b'{"payload":' + b"[" * DEPTH + b"]" * DEPTH + b"}",
        b'{"nonsense":' + b'{"a":' * DEPTH + b"1" + b"}" * DEPTH + b"}",
    ],
    ids=["open", "arrays", "objects", "payload", "unknown"],
)
async def test_deep_json_is_a_clear_400_everywhere(shard: Shard, name: str, body: bytes) -> None:
    await store_set(shard, **{"nightly-report": "* * * * *"})
    method, url = path_of(name)
    async with client_of(shard) as client:
        response = await client.request(method, url, content=body)
    assert response.status_code == 400, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 2000


def test_every_operation_with_a_body_is_asked() -> None:
    assert {name for name, (_, _, one) in OPERATIONS.items() if "requestBody" in one} == set(BODIES)


@pytest.mark.parametrize("head", [b"content-length: 100000", b"transfer-encoding: chunked"])
async def test_a_body_that_drips_is_a_408_and_the_connection_is_closed(
    make_shard: ShardFactory, head: bytes
) -> None:
    shard = make_shard(receive_seconds=0.3)
    request = b"PUT /api/workspaces/acme/triggers HTTP/1.1\r\nhost: localhost\r\n" + head + b"\r\n\r\n"
    async with served(shard) as port:
        begun = time.monotonic()
        status, body = await exchange(port, request, drip=b" " if b"length" in head else b"1\r\n \r\n")
        assert 0.3 <= time.monotonic() - begun < 5
        assert status.startswith("HTTP/1.1 408 ")
        assert "connection: close" in status
        assert '"code":"request_timeout"' in body
        async with httpx.AsyncClient() as client:  # others are served meanwhile and after
            assert (await client.get(f"http://127.0.0.1:{port}/health")).status_code == 200


# Heads.


@pytest.mark.parametrize(
    "parts",
    [
        [b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-large: ", b"x" * 1_000_000, b"\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nhost: localhost\r\n", b"x-many: 1\r\n" * 100_000, b"\r\n"],
        [b"GET /health?q=", b"x" * 1_000_000, b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
        [b"GET /health?q=" + b"x" * 70_000 + b" HTTP/1.1\r\nhost: localhost\r\n\r\n"],
        [b"GET /health HTTP/1.1\r\nhost: localhost\r\nx-name-" + b"x" * 1_000_000],
    ],
    ids=["large", "many", "url", "at once", "name"],
)
async def test_a_large_head_is_a_431_and_the_connection_is_closed(shard: Shard, parts: list[bytes]) -> None:
    async with served(shard) as port:
        status, body = await exchange(port, *parts)
        assert status.startswith("HTTP/1.1 431 ")
        assert "application/problem+json" in status
        assert '"code":"head_too_large"' in body
        fine = b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\nx: " + b"x" * 60_000
        assert (await exchange(port, fine + b"\r\n\r\n"))[0].startswith("HTTP/1.1 200 ")


async def test_a_head_that_drips_is_a_408(make_shard: ShardFactory) -> None:
    async with served(make_shard(receive_seconds=0.3)) as port:
        status, body = await exchange(port, b"GET /health HTTP/1.1\r\nx: ", drip=b"x")
        assert status.startswith("HTTP/1.1 408 ")
        assert '"code":"request_timeout"' in body
        assert await exchange(port) == ("", "")  # nothing at all came: there is nothing to answer


async def test_requests_on_one_connection_have_their_own_bounds(make_shard: ShardFactory) -> None:
    one = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: " + b"x" * 800 + b"\r\n\r\n"
    last = one.replace(b"x: ", b"connection: close\r\nx: ")
    async with served(make_shard(max_head_bytes=1024)) as port:
        status, body = await exchange(port, *[one] * 9, last)
    assert (status + body).count("HTTP/1.1 200 ") == 10


HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n"
REPLACE = b"PUT /api/workspaces/acme/triggers HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize(
    ("parts", "drip"),
    [
        ([HEALTH + b"content-length: 100000\r\n\r\n"], b"x"),
        ([HEALTH + b"transfer-encoding: chunked\r\n\r\n"], b"1\r\nx\r\n"),
        ([HEALTH + b"transfer-encoding: chunked\r\n\r\n", b"0\r\n"], b"x: y\r\n"),
        ([HEALTH + b"\r\n"], b"\r\n"),
    ],
    ids=["body", "chunks", "trailers", "ends of lines"],
)
async def test_what_drips_behind_an_answer_does_not_keep_a_connection(
    make_shard: ShardFactory, parts: list[bytes], drip: bytes
) -> None:
    async with served(make_shard(receive_seconds=0.3)) as port:
        status, _ = await exchange(port, *parts, drip=drip)
        assert status.startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("after", [b"", b"x"], ids=["whole", "begun"])
async def test_one_late_byte_does_not_keep_a_connection(make_shard: ShardFactory, after: bytes) -> None:
    async with served(make_shard(receive_seconds=0.3)) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEALTH + b"content-length: 1\r\n\r\n")
        async with asyncio.timeout(10):
            assert await reader.readuntil(b"}")
            writer.write(b"x" + after)
            with contextlib.suppress(ConnectionError):
                await reader.read()
        writer.close()


@pytest.mark.parametrize("name", [b"x: ", b"x-many: 1\r\n"])
@pytest.mark.parametrize(
    ("request_", "answer"), [(REPLACE, "HTTP/1.1 431 "), (HEALTH, "HTTP/1.1 200 ")], ids=["read", "unread"]
)
async def test_large_trailers_end_the_connection(
    shard: Shard, request_: bytes, answer: str, name: bytes
) -> None:
    head = request_ + b"transfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n"
    async with served(shard) as port:
        status, body = await exchange(port, head, drip=name * 1000)
        assert status.startswith(answer)
        assert body.count("HTTP/1.1") == 0


async def test_small_chunks_are_no_large_head_and_trailers_are_no_headers(shard: Shard) -> None:
    document = b'{"triggers": []' + b" " * 30_000 + b"}"
    chunks = b"".join(b"1\r\n%c\r\n" % one for one in document)
    last = REPLACE + b"connection: close\r\ntransfer-encoding: chunked\r\n\r\n"
    async with served(shard) as port:
        status, _ = await exchange(port, last, chunks, b'0\r\nif-match: "7"\r\n\r\n')
        assert status.startswith("HTTP/1.1 200 ")


@pytest.mark.parametrize("behind", [b"\x16\x03\x01\r\n\r\n", HEALTH + b"x: " + b"x" * 100_000 + b"\r\n\r\n"])
async def test_what_is_refused_takes_no_answer_of_the_request_before_it(shard: Shard, behind: bytes) -> None:
    async with served(shard) as port:
        status, body = await exchange(port, HEALTH + b"\r\n" + behind)
        assert status.startswith("HTTP/1.1 200 ")
        assert "HTTP/1.1" not in body


CONNECT = b"CONNECT a:80 HTTP/1.1\r\nhost: localhost\r\n\r\n"


@pytest.mark.parametrize("request_", [b"\x16\x03\x01 hello\r\n\r\n", CONNECT], ids=["no HTTP", "no target"])
async def test_what_is_no_http_is_a_problem_too(shard: Shard, request_: bytes) -> None:
    async with served(shard) as port:
        status, body = await exchange(port, request_)
        assert status.startswith("HTTP/1.1 400 ")
        assert '"code":"invalid_request"' in body
        _, behind = await exchange(port, HEALTH + b"\r\n", request_)
        assert "HTTP/1.1" not in behind or "HTTP/1.1 400 " in behind


def test_the_bounds_have_defaults() -> None:
    usual = Settings()
    assert (usual.max_head_bytes, usual.receive_seconds, usual.max_workspaces) == (65_536, 30.0, 0)


async def test_large_triggers_are_read_and_shown_beside_the_loop(
    make_shard: ShardFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What looks at a megabyte takes up to seconds, in which nobody else would be answered."""
    places: list[tuple[Any, str]] = [
        (checks, "is_deep"),
        (bodies, "is_deep"),
        (variables, "check"),
        (Body, "read"),
    ]
    places += [(inputs, "mask_payload"), (trigger_inputs, "has_masks")]
    threads = note_threads(monkeypatch, *places)
    large = {**ONE, "payload": {str(number): {"a": "{{attempt}}"} for number in range(1000)}}
    async with client_of(make_shard()) as client:
        url = f"{ACME}/triggers"
        for method, path, body, status in (
            ("PUT", "/t", large, 201),
            ("POST", "/new", large, 201),
            ("PATCH", "/t", {"payload": {"0": {"a": "b"}}}, 200),
            ("GET", "/t", None, 200),
            ("PUT", "", {"triggers": [large]}, 200),
            ("POST", "/0/run", {"payload": large["payload"]}, 202),
        ):
            threads.clear()
            await ok(client.request(method, f"{url}{path}", json=body), status)
            assert threads, (method, path)
            assert threading.get_ident() not in threads, (method, path)
