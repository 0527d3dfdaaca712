"""One attempt against real targets on loopback: what arrives, and how each kind of failure is recorded."""

from __future__ import annotations

import asyncio
import gzip
import resource
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from helpers import OK, Received, Target, define

from app.models import Attempt, pack_definition
from app.store.queue import Claimed, Ended
from workers import delivery
from workers.transport import Transport

pytestmark = pytest.mark.anyio

SLOT = 1_790_000_040_000
NOW = SLOT + 1234


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(keep=4096, read_at_most=1_048_576, places=10)
    yield transport
    await transport.aclose()


def claimed(attempts: list[Attempt] | None = None, **fields: Any) -> Claimed:
    packed = pack_definition(define(**fields))
    return Claimed(f"acme:nightly:{SLOT}", "acme", "nightly", SLOT, attempts or [], packed, 1, "t")


async def send(transport: Transport, attempts: list[Attempt] | None = None, **fields: Any) -> Ended:
    return await delivery.attempt(transport, claimed(attempts, **fields), NOW, "w")


def only(target: Target) -> Received:
    (request,) = target.received
    return request


async def test_headers_and_payload_arrive_as_given(transport: Transport) -> None:
    async with Target().running() as target:
        given = {"X-Custom": "a  b", "Authorization": "Bearer x"}
        ended = await send(
            transport,
            url=f"{target.url}/a%2Fb?q=1&r=%20",
            headers=given,
            payload=b'{"n":1.0,"big":12345678901234567890}',
        )
        assert ended.what == "succeeded"
        request = only(target)
        assert (request.method, request.path) == ("POST", "/a%2Fb?q=1&r=%20")
        assert request.body == b'{"n":1.0,"big":12345678901234567890}'
        assert given.items() <= dict(request.raw_headers).items()
        assert request.headers["content-type"] == "application/json"
        assert request.headers["user-agent"].startswith("Cronspace/")
        assert request.headers["host"] == target.url.removeprefix("http://")


async def test_the_outgoing_headers_tell_slot_and_attempt(transport: Transport) -> None:
    async with Target().running() as target:
        before = Attempt(NOW, 5, 500, "status", "", "", "w")
        await send(transport, [before], url=target.url)
        headers = only(target).headers
        assert headers["webhook-id"] == f"acme:nightly:{SLOT}"
        assert headers["webhook-timestamp"] == str(NOW // 1000)
        assert headers["cronspace-attempt"] == "2"
        assert headers["cronspace-scheduled-at"] == "2026-09-21T14:14:00.000Z"


async def test_a_string_payload_is_sent_as_it_is(transport: Transport) -> None:
    async with Target().running() as target:
        await send(transport, url=target.url, payload=b'"a=1&b=\\u00fc"')
        assert only(target).body == "a=1&b=ü".encode()
        assert only(target).headers["content-type"].startswith("text/plain")


async def test_a_given_content_type_and_user_agent_win(transport: Transport) -> None:
    async with Target().running() as target:
        given = {"content-type": "application/x-www-form-urlencoded", "User-Agent": "mine"}
        await send(transport, url=target.url, payload=b'"a=1"', headers=given)
        names = [name.lower() for name, _ in only(target).raw_headers]
        assert names.count("content-type") == names.count("user-agent") == 1
        assert only(target).headers["user-agent"] == "mine"


@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_get_and_delete_send_no_body(transport: Transport, method: Any) -> None:
    async with Target().running() as target:
        await send(transport, url=target.url, method=method, payload=b'{"a":1}')
        request = only(target)
        assert request.body == b""
        assert "content-length" not in request.headers
        assert "content-type" not in request.headers


async def test_a_connection_is_kept_and_used_again(transport: Transport) -> None:
    async with Target().running() as target:
        for _ in range(5):
            assert (await send(transport, url=target.url)).what == "succeeded"
        assert target.connections == 1


async def test_no_cookie_goes_out_with_the_next_request(transport: Transport) -> None:
    async with Target(OK.replace(b"\r\n\r\n", b"\r\nset-cookie: a=b; path=/\r\n\r\n")).running() as target:
        for _ in range(2):
            await send(transport, url=target.url)
        assert all("cookie" not in request.headers for request in target.received)


def status(code: int, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\n%scontent-length: 0\r\n\r\n" % (code, extra)


@pytest.mark.parametrize(
    ("code", "what"),
    [(200, "succeeded"), (204, "succeeded"), (299, "succeeded")]
    + [(code, "retry") for code in (408, 425, 429, 500, 502, 503, 599)]
    + [(code, "failed") for code in (301, 302, 304, 400, 401, 403, 404, 410, 422)],
)
async def test_the_status_decides(transport: Transport, code: int, what: str) -> None:
    answer = status(code, b"location: /elsewhere\r\n") if code != 204 else b"HTTP/1.1 204 X\r\n\r\n"
    async with Target(answer).running() as target:
        ended = await send(transport, url=target.url)
        assert ended.what == what
        assert ended.attempt is not None
        assert ended.attempt.status == code
        assert ended.attempt.kind == ("" if what == "succeeded" else "status")
        assert len(target.received) == 1  # redirects are not followed


async def test_retries_wait_1_2_4_seconds_and_end(transport: Transport) -> None:
    async with Target(status(500)).running() as target:
        made: list[Attempt] = []
        delays = []
        while True:
            ended = await send(transport, made, url=target.url, max_retries=3)
            assert ended.attempt is not None
            made.append(ended.attempt)
            if ended.what == "failed":
                break
            delays.append(ended.delay_ms)
        assert delays == [1000, 2000, 4000]


async def test_an_attempt_lost_with_its_worker_uses_no_retry_up(transport: Transport) -> None:
    async with Target(status(500)).running() as target:
        lost = Attempt(NOW, 5, 0, "worker_lost", "", "", "w")
        assert (await send(transport, [lost, lost], url=target.url, max_retries=1)).what == "retry"


def writes(*parts: bytes, pause: float = 0.0, close: bool = True) -> Any:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        for part in parts:
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(pause)
        if close:
            writer.close()

    return answer


async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("answer", "kind", "message"),
    [
        (writes(b"SSH-2.0-OpenSSH_9\r\n"), "protocol", "not HTTP"),
        (writes(b"\x16\x03\x01\x00\xff" * 20), "protocol", "not HTTP"),
        (writes(), "protocol", "before it answered"),
        (writes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"), "protocol", "in the middle"),
        (
            writes(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab"),
            "protocol",
            "in the middle",
        ),
        (
            writes(b"HTTP/1.1 200 OK\r\n", *[b"x: " + b"y" * 9000 + b"\r\n"] * 20),
            "protocol",
            "header is larger",
        ),
        (drip, "timeout", "within 0.5 s"),
        (writes(b"HTTP/1.1 200 OK\r\n", pause=30), "timeout", "within 0.5 s"),
    ],
    ids=["ssh", "binary", "close", "cut", "cut-chunked", "huge-headers", "drip", "hang"],
)
async def test_a_bad_target_is_a_recorded_failure(
    transport: Transport, answer: Any, kind: str, message: str
) -> None:
    async with Target(answer).running() as target:
        begun = time.monotonic()
        ended = await send(transport, url=target.url, timeout_seconds=0.5)
        assert time.monotonic() - begun < 3
        assert ended.what == "retry"
        assert ended.attempt is not None
        assert (ended.attempt.kind, ended.attempt.status) == (kind, 0)
        assert message in ended.attempt.message


async def test_a_refused_connection_and_an_unknown_name_say_so(transport: Transport) -> None:
    refused = (await send(transport, url="http://127.0.0.1:1/")).attempt
    unknown = (await send(transport, url="http://does-not-exist.invalid/")).attempt
    assert refused is not None
    assert unknown is not None
    assert (refused.kind, unknown.kind) == ("connect", "dns")
    assert "127.0.0.1:1" in refused.message
    assert "does-not-exist.invalid" in unknown.message


async def test_a_broken_kept_connection_is_one_attempt_and_one_request(transport: Transport) -> None:
    closing = False

    def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        if closing:
            writer.close()
        else:
            writer.write(OK)

    async with Target(answer).running() as target:
        await send(transport, url=target.url, method="GET")
        closing = True
        ended = await send(transport, url=target.url, method="GET")
        assert ended.attempt is not None
        assert ended.attempt.kind == "protocol"
        assert len(target.received) == 2


async def test_an_answer_that_ends_with_its_connection_is_whole(transport: Transport) -> None:
    async with Target(writes(b"HTTP/1.0 200 OK\r\n\r\n", b"some text")).running() as target:
        ended = await send(transport, url=target.url)
        assert ended.what == "succeeded"
        assert ended.attempt is not None
        assert ended.attempt.snippet == "some text"


async def test_an_interim_answer_is_not_the_answer(transport: Transport) -> None:
    async with Target(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + OK).running() as target:
        for _ in range(2):
            ended = await send(transport, url=target.url)
            assert ended.attempt is not None
            assert (ended.attempt.status, ended.attempt.snippet) == (200, "ok")


async def test_an_endless_or_compressed_body_can_not_hurt(transport: Transport) -> None:
    async def endless(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"10000\r\n" + b"x" * 65536 + b"\r\n")
            await writer.drain()

    bomb = gzip.compress(b"\0" * 50_000_000)
    packed = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: %d\r\n\r\n" % len(bomb) + bomb
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for answer in (endless, packed):
        async with Target(answer).running() as target:
            ended = await send(transport, url=target.url, timeout_seconds=10)
            assert ended.what == "succeeded"
            assert ended.attempt is not None
            assert 0 < len(ended.attempt.snippet) <= 4096
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


def self_signed(folder: Path) -> ssl.SSLContext:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


async def test_bad_tls_is_told_apart(transport: Transport, tmp_path: Path) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    port = server.sockets[0].getsockname()[1]
    distrusted = (await send(transport, url=f"https://127.0.0.1:{port}/")).attempt
    server.close()
    async with Target().running() as plain:
        no_tls = (await send(transport, url=plain.url.replace("http:", "https:"), timeout_seconds=5)).attempt
    assert distrusted is not None
    assert no_tls is not None
    assert distrusted.kind == "tls"
    assert "certificate" in distrusted.message.lower()
    assert no_tls.kind in ("tls", "timeout")


async def test_a_url_that_needs_quoting_is_quoted(transport: Transport) -> None:
    async with Target().running() as target:
        await send(transport, url=f"{target.url}/für?x=ö#fragment")
        assert only(target).path == "/f%C3%BCr?x=%C3%B6"


async def test_a_definition_that_can_not_be_sent_fails_at_once(transport: Transport) -> None:
    broken = Claimed("a:b:1", "a", "b", 1, [], b"\xc1", 1, "t")
    ended = await delivery.attempt(transport, broken, NOW, "w")
    assert ended.what == "failed"
    assert ended.attempt is not None
    assert ended.attempt.kind == "internal"


def floods(begin: bytes, again: bytes) -> Any:
    async def answer(_: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(begin)
        while True:
            writer.write(again * 1000)
            await writer.drain()

    return answer


@pytest.mark.parametrize(
    "answer",
    [
        floods(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n", b"x: yyyyyyyyyyyyyyy\r\n"),
        floods(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;", b"a=bbbbbbbbbbbbbbbbb;"),
        floods(b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
    ],
    ids=["trailers", "chunk-extensions", "interim-answers"],
)
async def test_a_flood_of_framing_ends_early(transport: Transport, answer: Any) -> None:
    async with Target(answer).running() as target:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        begun = time.monotonic()
        await send(transport, url=target.url, timeout_seconds=20)
        assert time.monotonic() - begun < 10
        assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 40_000  # KiB


async def test_idle_connections_are_bounded() -> None:
    transport = Transport(keep=100, read_at_most=1000, places=2)
    async with AsyncExitStack() as stack:
        targets = [await stack.enter_async_context(Target().running()) for _ in range(12)]
        for target in targets:
            assert (await send(transport, url=target.url)).what == "succeeded"
        assert len(transport._open) == 4
        assert (await send(transport, url=targets[-1].url)).what == "succeeded"
        assert targets[-1].connections == 1
        await transport.aclose()


async def test_bytes_after_an_answer_end_the_connection(transport: Transport) -> None:
    async with Target(OK + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").running() as target:
        for _ in range(2):
            assert (await send(transport, url=target.url)).what == "succeeded"
        assert target.connections == 2


async def test_a_host_name_with_an_underscore_can_be_sent_to(transport: Transport) -> None:
    ended = await send(transport, url="http://no_such_service:80/")
    assert ended.attempt is not None
    assert ended.attempt.kind == "dns"


async def test_a_name_that_fails_is_asked_once_for_all_who_wait(transport: Transport) -> None:
    asked = []
    original = socket.getaddrinfo

    def count(*args: Any, **more: Any) -> Any:
        asked.append(args[0])
        return original(*args, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", count)
        await asyncio.gather(*(send(transport, url="http://twenty.invalid/") for _ in range(20)))
    assert asked == ["twenty.invalid"]
