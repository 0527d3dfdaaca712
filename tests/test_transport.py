"""What happens on the wire, with real targets on loopback: connections, TLS, and answers that are none."""

from __future__ import annotations

import asyncio
import gzip
import resource
import ssl
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from attempts import send, writes
from certificates import self_signed
from helpers import OK, Received, Target

from workers.transport import Transport, tls_context

pytestmark = pytest.mark.anyio


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


async def drip(_: Received, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
    while True:
        writer.write(b".")
        await writer.drain()
        await asyncio.sleep(0.05)  # well within any time-out for one read


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


async def test_the_systems_certificates_are_read_once_however_many_requests_begin_at_once(
    transport: Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = 0

    def counting() -> ssl.SSLContext:
        nonlocal read
        read += 1
        return tls_context()

    monkeypatch.setattr("workers.transport.tls_context", counting)
    async with Target(b"no TLS").running() as plain:
        url = plain.url.replace("http:", "https:")
        await asyncio.gather(*(send(transport, url=url, timeout_seconds=0.5) for _ in range(20)))
    assert read == 1


async def test_bad_tls_is_told_apart(transport: Transport, tmp_path: Path) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=self_signed(tmp_path).context())
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
