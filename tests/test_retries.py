"""What an attempt means: the strategies' delays, Retry-After, what is tried again, at most once."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
from helpers import define
from hypothesis import given
from hypothesis import strategies as st

from app.models import Attempt, FailureKind, RetryStrategy, pack_definition
from app.store.queue import Claimed, Ended
from workers.retries import judge, policy_of, retry_after, retry_delay

NOW = 1_790_000_040_000  # Mon, 21 Sep 2026 14:14:00 GMT


def delays(count: int, **fields: Any) -> list[float]:
    policy = policy_of(define(**fields))
    return [retry_delay(policy, number, "seed") for number in range(1, count + 1)]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, [1, 2, 4, 8, 16]),
        ({"retry_strategy": "exponential"}, [1, 2, 4, 8, 16]),
        ({"retry_strategy": "linear"}, [5, 10, 15, 20]),
        ({"retry_strategy": "fixed"}, [60, 60, 60]),
        ({"retry_strategy": "exponential", "retry_delay_seconds": 0.5}, [0.5, 1, 2, 4]),
        ({"retry_strategy": "linear", "retry_delay_seconds": 7}, [7, 14, 21]),
        ({"retry_strategy": "fixed", "retry_delay_seconds": 9}, [9, 9]),
        ({"retry_delay_seconds": 0}, [0, 0, 0]),
        ({"retry_max_delay_seconds": 5}, [1, 2, 4, 5, 5]),
        ({"retry_strategy": "linear", "retry_max_delay_seconds": 12}, [5, 10, 12, 12]),
    ],
)
def test_each_strategy_has_its_delays(fields: dict[str, Any], expected: list[float]) -> None:
    assert delays(len(expected), **fields) == expected


def test_the_hundredth_retry_is_an_hour_away_at_most() -> None:
    assert delays(100)[-1] == 3600


@given(st.text(max_size=20), st.floats(0, 1), st.sampled_from(get_args(RetryStrategy)), st.integers(1, 100))
def test_jitter_takes_off_that_part_at_most_and_is_always_alike(
    seed: str, jitter: float, strategy: Any, number: int
) -> None:
    whole = retry_delay(policy_of(define(retry_strategy=strategy)), number, seed)
    jittered = policy_of(define(retry_strategy=strategy, retry_jitter=jitter))
    drawn = retry_delay(jittered, number, seed)
    assert whole * (1 - jitter) - 1e-6 <= drawn <= whole
    assert drawn == retry_delay(jittered, number, seed)


def test_jitter_spreads_executions() -> None:
    policy = policy_of(define(retry_strategy="fixed", retry_jitter=1.0))
    drawn = sorted(retry_delay(policy, 1, f"acme:t{n}:1#0") for n in range(1000))
    assert all(later - earlier < 2 for earlier, later in pairwise([0.0, *drawn, 60.0]))


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ([], 0),
        ([(b"Retry-After", b"120")], 120),
        ([(b"retry-after", b" 0 ")], 0),
        ([(b"Retry-After", b"-5")], 0),
        ([(b"Retry-After", b"1.5")], 0),
        ([(b"Retry-After", b"soon")], 0),
        ([(b"Retry-After", b"")], 0),
        ([(b"Retry-After", b"\xb2\xff")], 0),  # latin-1 digits that are none
        ([(b"Retry-After", b"9" * 60_000)], float("inf")),
        ([(b"Retry-After", b"Mon, 21 Sep 2026 14:15:30 GMT")], 90),
        ([(b"Retry-After", b"Monday, 21-Sep-26 14:15:30 GMT")], 90),
        ([(b"Retry-After", b"Mon Sep 21 14:15:30 2026")], 90),
        ([(b"Retry-After", b"Mon, 21 Sep 2026 14:00:00 GMT")], 0),
        ([(b"Retry-After", b"Mon, 99 Sep 2026 14:00:00 GMT")], 0),
        ([(b"Retry-After", b"Mon, 21 Sep 99999 14:00:00 GMT")], 0),
        ([(b"Retry-After", b"Mon, 21 Sep 2026 " * 1000)], 0),
        (
            [
                (b"Date", b"Fri, 01 Jan 2100 00:00:00 GMT"),
                (b"Retry-After", b"Fri, 01 Jan 2100 00:02:00 GMT"),
            ],
            120,
        ),
        ([(b"Date", b"yesterday"), (b"Retry-After", b"Mon, 21 Sep 2026 14:14:10 GMT")], 10),
    ],
)
def test_retry_after_is_read_in_every_form(headers: list[tuple[bytes, bytes]], seconds: float) -> None:
    assert retry_after(headers, NOW) == seconds


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_header_can_break_the_reading(asked: bytes, date: bytes) -> None:
    assert retry_after([(b"retry-after", asked), (b"date", date)], NOW) >= 0


def judged(
    kind: str = "", status: int = 0, sent: bool = True, headers: Any = (), made: int = 0, **fields: Any
) -> Ended:
    definition = define(**fields)
    before = [Attempt(NOW, 5, 500, "status", "", "", "w")] * made
    execution = Claimed(f"a:t:{NOW}", "a", "t", NOW, before, pack_definition(definition), 1, "t")
    attempt = Attempt(NOW, 0, status, kind, "m", "", "w")
    return judge(execution, attempt, policy_of(definition), sent, headers)


@pytest.mark.parametrize(
    ("seconds", "fields", "expected"),
    [
        (120, {}, 120),
        (0, {}, 1),
        (1, {"retry_strategy": "linear"}, 5),  # never shorter than the strategy's own
        (7200, {}, 3600),
        (7200, {"retry_max_delay_seconds": 86_400.0}, 7200),
        (120, {"retry_max_delay_seconds": 30.0}, 30),
    ],
)
@pytest.mark.parametrize("status", [429, 503, 500])
def test_retry_after_lengthens_a_delay_within_the_triggers_bound(
    status: int, seconds: int, fields: dict[str, Any], expected: float
) -> None:
    ended = judged("status", status, headers=[(b"retry-after", str(seconds).encode())], **fields)
    assert (ended.what, ended.delay_ms) == ("retry", expected * 1000)


def test_retry_after_does_not_make_an_answer_one_that_is_retried() -> None:
    assert judged("status", 404, headers=[(b"retry-after", b"5")]).what == "failed"


TARGET_KINDS = ("dns", "connect", "tls", "timeout", "protocol")


@pytest.mark.parametrize("kind", TARGET_KINDS)
def test_retry_on_names_kinds_and_statuses_and_nothing_else_is_retried(kind: str) -> None:
    assert judged(kind).what == "retry"
    assert judged(kind, retry_on=(kind,)).what == "retry"
    assert judged(kind, retry_on=("5xx",)).what == "failed"
    assert judged("status", 503, retry_on=(kind,)).what == "failed"
    assert judged("status", 404, retry_on=("404", kind)).what == "retry"
    assert judged("status", 599, retry_on=("500-598",)).what == "failed"


def test_retries_end_with_max_retries() -> None:
    assert [judged("status", 500, made=n, max_retries=2).what for n in range(4)] == [
        "retry",
        "retry",
        "failed",
        "failed",
    ]
    assert judged("status", 500, max_retries=0).what == "failed"


def test_a_failure_of_our_own_is_not_retried() -> None:
    assert judged("internal").what == "failed"


def test_a_dead_letter_keeps_its_definition_and_no_other_outcome_carries_it() -> None:
    assert judged("status", 404).definition == pack_definition(define())
    assert judged("status", 500).definition == judged("").definition == b""


@pytest.mark.parametrize(("set_", "gone"), [(True, True), (False, False)])
def test_410_says_gone_where_the_trigger_wants_to_know(set_: bool, gone: bool) -> None:
    ended = judged("status", 410, disable_on_gone=set_)
    assert (ended.what, ended.gone) == ("failed", gone)
    assert judged("status", 404, disable_on_gone=set_).gone is False
    retried = judged("status", 410, disable_on_gone=set_, retry_on=("410",))
    assert (retried.what, retried.gone) == (("failed", True) if set_ else ("retry", False))


@pytest.mark.parametrize(
    ("kind", "status", "sent", "what", "recorded"),
    [
        ("dns", 0, False, "retry", "dns"),
        ("connect", 0, False, "retry", "connect"),
        ("connect", 0, True, "retry", "connect"),  # a kept connection that was gone before a byte was written
        ("timeout", 0, False, "retry", "timeout"),
        ("timeout", 0, True, "failed", "unknown_outcome"),
        ("protocol", 0, True, "failed", "unknown_outcome"),
        ("internal", 0, True, "failed", "unknown_outcome"),
        ("internal", 0, False, "failed", "internal"),
        ("tls", 0, False, "failed", "tls"),
        ("status", 500, True, "failed", "status"),
        ("status", 429, True, "failed", "status"),
        ("status", 404, True, "failed", "status"),
        ("", 200, True, "succeeded", ""),
    ],
)
def test_at_most_once_tries_again_only_after_what_sent_nothing(
    kind: str, status: int, sent: bool, what: str, recorded: str
) -> None:
    ended = judged(kind, status, sent, delivery="at_most_once", max_retries=100)
    assert ended.what == what
    assert ended.attempt is not None
    assert ended.attempt.kind == recorded


def test_at_most_once_keeps_to_max_retries_and_retry_on() -> None:
    assert judged("dns", sent=False, delivery="at_most_once", max_retries=0).what == "failed"
    assert judged("dns", sent=False, delivery="at_most_once", retry_on=("connect",)).what == "failed"


def test_every_kind_is_either_a_targets_or_our_own() -> None:
    ours = {"status", "internal", "worker_lost", "unknown_outcome", "cancelled", "blocked", "secret", "key"}
    assert {kind.value for kind in FailureKind} == ours | set(TARGET_KINDS)
