"""One attempt at real targets on loopback: what arrives there, and how what comes back is judged."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path
from typing import Any

import pytest
from attempts import HERE, NOW, SLOT, claimed, only, send, status, writes
from certificates import self_signed
from helpers import Target
from msgspec import structs

from app.models import Attempt
from app.store.queue import Claimed
from workers import delivery
from workers.outgoing import Ready
from workers.transport import Transport

pytestmark = pytest.mark.anyio


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

    server = await asyncio.start_server(close, "127.0.0.1", 0, ssl=self_signed(tmp_path).context())
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
