"""One attempt against real targets on loopback: what arrives, and how each kind of failure is recorded."""

from __future__ import annotations

import asyncio
import gzip
import json
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
from conftest import LOOPBACK
from helpers import OK, Received, Target, define
from msgspec import structs

from app.egress import make_egress
from app.models import Attempt, pack_definition
from app.store.queue import Claimed, Ended
from workers import delivery
from workers.outgoing import Ready
from workers.transport import Transport, tls_context

pytestmark = pytest.mark.anyio

HERE = make_egress(LOOPBACK, "", "")
SLOT = 1_790_000_040_000
NOW = SLOT + 1234


@pytest.fixture
async def transport() -> AsyncIterator[Transport]:
    transport = Transport(keep=4096, read_at_most=1_048_576, places=10)
    yield transport
    await transport.aclose()


def claimed(attempts: list[Attempt] | None = None, **fields: Any) -> Claimed:
    packed = pack_definition(define(**fields))
    return Claimed(f"acme:nightly:{SLOT}", "acme", "nightly", SLOT, attempts or [], packed, 0, "t")


async def send(transport: Transport, attempts: list[Attempt] | None = None, **fields: Any) -> Ended:
    return await delivery.attempt(transport, claimed(attempts, **fields), NOW, "w", Ready(HERE))


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
            await asyncio.sleep(pause)  # a part by itself, as a slow target sends it
        if close:
            writer.close()

    return answer


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


def self_signed(folder: Path) -> ssl.SSLContext:
    key, certificate = folder / "key.pem", folder / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-keyout", str(key), "-out", str(certificate)], check=True, capture_output=True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context


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
    ended = await delivery.attempt(transport, broken, NOW, "w", Ready(HERE))
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


async def test_variables_are_filled_in_everywhere(transport: Transport) -> None:
    async with Target().running() as target:
        before = Attempt(NOW, 5, 500, "status", "", "", "w")
        await send(
            transport,
            [before],
            name="Prüfung",
            timezone="Europe/Berlin",
            url=f"{target.url}/{{{{trigger}}}}?at={{{{scheduled_at.local}}}}",
            headers={"X-Run": "{{workspace}} {{attempt}} {{trigger.name}}", "X-Braces": "{{{{x}}"},
            payload=b'{"{{attempt}}":"{{trigger.name}} {{started_at.unix_ms}}","n":1}',
        )
        request = only(target)
        assert request.path == "/nightly?at=2026-09-21T16%3A14%3A00.000%2B02%3A00"
        assert request.headers["x-run"] == "acme 2 Pr%C3%BCfung"
        assert request.headers["x-braces"] == "{{x}}"
        assert json.loads(request.body) == {"2": f"Prüfung {NOW}", "n": 1}
        assert request.headers["content-length"] == str(len(request.body))
        assert request.headers["content-type"] == "application/json"
        assert request.headers["webhook-id"] == f"acme:nightly:{SLOT}"


async def test_variables_are_filled_in_for_each_attempt_anew(transport: Transport) -> None:
    async with Target().running() as target:
        one = claimed(url=f"{target.url}/?{{{{started_at.unix}}}}", payload=b'"at {{started_at.unix}}"')
        for second in range(3):
            await delivery.attempt(transport, one, NOW + 1000 * second, "w", Ready(HERE))
        times = [f"{NOW // 1000 + second}" for second in range(3)]
        assert [request.path for request in target.received] == [f"/?{time}" for time in times]
        assert [request.body.decode() for request in target.received] == [f"at {time}" for time in times]


async def test_a_get_with_variables_sends_no_body(transport: Transport) -> None:
    async with Target().running() as target:
        await send(
            transport, url=f"{target.url}/{{{{attempt}}}}", method="GET", payload=b'{"a":"{{attempt}}"}'
        )
        assert (only(target).path, only(target).body) == ("/1", b"")
        assert "content-length" not in only(target).headers


@pytest.mark.parametrize(
    ("schedule", "anchor", "previous"),
    [
        ({}, 0, "2026-09-21T14:13:00.000Z"),
        ({"cron": "", "interval": 90}, SLOT - 270_000, "2026-09-21T14:12:30.000Z"),
        ({"cron": "", "interval": 90}, SLOT - 90_000, ""),
        ({"starts_at": SLOT}, 0, ""),
    ],
)
async def test_the_slot_before_is_the_schedules(
    transport: Transport, schedule: dict[str, Any], anchor: int, previous: str
) -> None:
    async with Target().running() as target:
        one = claimed(url=target.url, headers={"X-Previous": "[{{previous_at}}]"}, **schedule)
        await delivery.attempt(transport, structs.replace(one, anchor=anchor), NOW, "w", Ready(HERE))
        assert only(target).headers["x-previous"] == f"[{previous}]"


@pytest.mark.parametrize(
    ("code", "fields", "what"),
    [
        (302, {"success_codes": ("3xx",)}, "succeeded"),
        (404, {"success_codes": ("2xx", "404")}, "succeeded"),
        (204, {"success_codes": ("200",)}, "failed"),
        (503, {"success_codes": ("500-599",), "retry_on": ("5xx",)}, "succeeded"),
        (418, {"retry_on": ("400-499",)}, "retry"),
        (500, {"retry_on": ("503", "timeout")}, "failed"),
    ],
)
async def test_a_trigger_says_what_succeeds_and_what_is_retried(
    transport: Transport, code: int, fields: dict[str, Any], what: str
) -> None:
    answer = status(code) if code != 204 else b"HTTP/1.1 204 X\r\n\r\n"
    async with Target(answer).running() as target:
        assert (await send(transport, url=target.url, **fields)).what == what


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (b"retry-after: 120\r\n", 120),
        (b"Retry-After: Mon, 21 Sep 2026 14:16:00 GMT\r\nDate: Mon, 21 Sep 2026 14:15:00 GMT\r\n", 60),
        (b"Retry-After: later\r\n", 1),
        (b"Retry-After: %s\r\n" % (b"9" * 5000), 3600),
    ],
)
async def test_a_targets_retry_after_is_honoured(transport: Transport, header: bytes, seconds: int) -> None:
    async with Target(status(429, header)).running() as target:
        ended = await send(transport, url=target.url)
        assert (ended.what, ended.delay_ms) == ("retry", seconds * 1000)


async def test_a_retry_after_date_is_held_against_redis_clock_without_a_date(transport: Transport) -> None:
    async with Target(status(503, b"Retry-After: Mon, 21 Sep 2026 14:15:00 GMT\r\n")).running() as target:
        ended = await send(transport, url=target.url)
        assert ended.attempt is not None
        assert ended.delay_ms == SLOT + 60_000 - NOW - ended.attempt.duration


async def test_a_410_disables_where_the_trigger_says_so(transport: Transport) -> None:
    async with Target(status(410)).running() as target:
        ended = await send(transport, url=target.url, disable_on_gone=True)
        assert (ended.what, ended.gone) == ("failed", True)
        assert (await send(transport, url=target.url)).gone is False


ONCE: dict[str, Any] = {"delivery": "at_most_once", "max_retries": 9}


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (writes(), "unknown_outcome"),
        (writes(b"SSH-2.0-OpenSSH_9\r\n"), "unknown_outcome"),
        (writes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nabc"), "unknown_outcome"),
        (writes(b"HTTP/1.1 200 OK\r\n", pause=30), "unknown_outcome"),
        (status(503, b"retry-after: 1\r\n"), "status"),
        (status(404), "status"),
    ],
    ids=["close", "not-http", "cut", "hang", "503", "404"],
)
async def test_at_most_once_never_sends_again_what_may_have_arrived(
    transport: Transport, answer: Any, kind: str
) -> None:
    async with Target(answer).running() as target:
        ended = await send(transport, url=target.url, timeout_seconds=0.5, **ONCE)
        assert ended.what == "failed"
        assert ended.attempt is not None
        assert ended.attempt.kind == kind
        assert ended.attempt.message
        assert ended.definition == claimed(url=target.url, timeout_seconds=0.5, **ONCE).definition


async def test_at_most_once_tries_again_what_never_left(transport: Transport) -> None:
    for url, kind in (("http://127.0.0.1:1/", "connect"), ("http://does-not-exist.invalid/", "dns")):
        ended = await send(transport, url=url, **ONCE)
        assert ended.what == "retry"
        assert ended.attempt is not None
        assert ended.attempt.kind == kind


async def test_a_timeout_before_there_is_a_connection_sent_nothing(transport: Transport) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=0) as silent:
        port = silent.getsockname()[1]
        # A TLS handshake that nobody answers: connected, and not a byte of the request sent.
        ended = await send(transport, url=f"https://127.0.0.1:{port}/", timeout_seconds=0.3, **ONCE)
    assert ended.what == "retry"
    assert ended.attempt is not None
    assert ended.attempt.kind == "timeout"


async def test_at_most_once_is_failed_by_bad_tls_and_the_outcome_is_known(
    transport: Transport, tmp_path: Path
) -> None:
    async def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=self_signed(tmp_path))
    port = server.sockets[0].getsockname()[1]
    ended = await send(transport, url=f"https://127.0.0.1:{port}/", **ONCE)
    server.close()
    assert ended.what == "failed"
    assert ended.attempt is not None
    assert ended.attempt.kind == "tls"


def test_what_a_stopping_worker_cut_off_is_sent_again_unless_at_most_once() -> None:
    again = delivery.interrupted(claimed(), NOW, NOW + 70, "w")
    assert (again.what, again.delay_ms) == ("retry", 0)
    never = delivery.interrupted(claimed(**ONCE), NOW, NOW + 70, "w")
    assert (never.what, never.definition) == ("failed", claimed(**ONCE).definition)
    for ended, kind in ((again, "worker_lost"), (never, "unknown_outcome")):
        assert ended.attempt is not None
        assert (ended.attempt.kind, ended.attempt.started, ended.attempt.duration) == (kind, NOW, 70)
        assert "stopped" in ended.attempt.message
