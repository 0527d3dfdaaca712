"""What an attempt means: success, a failure for good, or another try and when.

The n-th retry waits, from the trigger's ``retry_delay_seconds`` or the strategy's own first delay d:
exponential d·2^(n-1) (1, 2, 4, 8, 16 s), linear d·n (5, 10, 15 s), fixed d (60 s). ``retry_jitter`` makes
that part of the delay random. A ``Retry-After`` of the answer makes it longer, never shorter. And never is it
longer than ``retry_max_delay_seconds``: a target's word does not bind for longer than the trigger's owner
said.

At most once tries again only after what provably sent nothing: no address, no connection, or the time ran out
before there was one. Where a request was begun and no answer came, nobody knows, and it ends as
``unknown_outcome``.

What a worker can't open, because it lacks the key, is no attempt at the target, and its policy can't be read:
it waits for a worker that has the key, or for that key, an hour at most.
"""

from __future__ import annotations

from hashlib import blake2b

from msgspec import Struct, structs

from app.clock import parse_http_date
from app.declared.outcomes import FIRST_DELAYS, USUAL_RETRIES, kinds_of, statuses_of
from app.models import KEY_WAIT_MS, Attempt, Definition, FailureKind
from app.store.queue import Claimed, Ended
from workers.transport import ResponseHeaders

_GONE = 410
_NOTHING_SENT = frozenset({FailureKind.DNS, FailureKind.CONNECT})
_NO_TRIES = frozenset({FailureKind.WORKER_LOST, FailureKind.KEY})  # neither is an answer of the target's
_FIRST_LOOK_MS, _LATER_LOOK_MS = 1000, 30_000  # by who may have the key; jitter takes up to half


class Policy(Struct, frozen=True):
    """What a definition says about success and retries. Times are seconds."""

    max_retries: int
    strategy: str
    first_delay: float
    longest_delay: float
    jitter: float
    success: frozenset[int] | None  # None: 2xx
    retried_statuses: frozenset[int]
    retried_kinds: frozenset[str]
    at_most_once: bool
    disable_on_gone: bool

    def succeeds(self, status: int) -> bool:
        """Whether an answer is a success."""
        return 200 <= status < 300 if self.success is None else status in self.success


# Most triggers share one.
_USUAL_STATUSES, _USUAL_KINDS = statuses_of(USUAL_RETRIES), kinds_of(USUAL_RETRIES)


def policy_of(definition: Definition) -> Policy:
    """The policy of a definition."""
    first = definition.retry_delay_seconds
    retry_on = definition.retry_on
    return Policy(
        max_retries=definition.max_retries,
        strategy=definition.retry_strategy,
        first_delay=FIRST_DELAYS[definition.retry_strategy] if first is None else first,
        longest_delay=definition.retry_max_delay_seconds,
        jitter=definition.retry_jitter,
        success=statuses_of(definition.success_codes) if definition.success_codes else None,
        retried_statuses=statuses_of(retry_on) if retry_on else _USUAL_STATUSES,
        retried_kinds=kinds_of(retry_on) if retry_on else _USUAL_KINDS,
        at_most_once=definition.delivery == "at_most_once",
        disable_on_gone=definition.disable_on_gone,
    )


def judge(
    execution: Claimed, made: Attempt, policy: Policy, sent: bool, headers: ResponseHeaders = ()
) -> Ended:
    """What becomes of an execution after an attempt.

    ``sent``: its request was begun; ``headers``: those of the answer, if there was one.
    """
    if not made.kind:
        return Ended(execution.id, execution.token, "succeeded", 0, made)
    nothing_sent = made.kind in _NOTHING_SENT or (made.kind == FailureKind.TIMEOUT and not sent)
    if policy.at_most_once and sent and not nothing_sent and made.kind != FailureKind.STATUS:
        return failed(execution, _unknown(made))
    if made.status == _GONE and policy.disable_on_gone:
        return failed(execution, made, gone=True)
    number = 1 + sum(a.kind not in _NO_TRIES for a in execution.attempts)
    if number > policy.max_retries or not _worth_another(made, policy, nothing_sent):
        return failed(execution, made)
    seconds = retry_delay(policy, number, f"{execution.id}#{len(execution.attempts)}")
    if headers:
        now = made.started + made.duration
        seconds = max(seconds, min(retry_after(headers, now), policy.longest_delay))
    return Ended(execution.id, execution.token, "retry", round(seconds * 1000), made)


def failed(execution: Claimed, made: Attempt, gone: bool = False) -> Ended:
    """The end of an execution as a dead letter, which keeps what was sent."""
    return Ended(execution.id, execution.token, "failed", 0, made, execution.definition, gone)


def without_key(execution: Claimed, made: Attempt) -> Ended:
    """What becomes of an execution that this worker can't open: others look, as long as it waits for its key.

    Each look goes on with the same attempt. They come closely at first: where some have the key, others
    may look before them.
    """
    since = made.started
    for earlier in reversed(execution.attempts):
        if earlier.kind == FailureKind.KEY:
            since = earlier.started
        elif earlier.kind != FailureKind.WORKER_LOST:
            break
    waited = made.started - since
    if execution.attempts and execution.attempts[-1].kind == FailureKind.KEY:
        begun = execution.attempts[-1].started
        made = structs.replace(made, started=begun, duration=made.started + made.duration - begun)
    if waited >= KEY_WAIT_MS:
        return failed(execution, made)
    delay = min(max(waited / 4, _FIRST_LOOK_MS), _LATER_LOOK_MS)
    delay *= 1 - _drawn(f"{execution.id}@{waited}") / 2
    return Ended(execution.id, execution.token, "retry", round(delay), made)


def interrupted(execution: Claimed, policy: Policy, made: Attempt) -> Ended:
    """What becomes of an execution whose request was cut off by the end of its worker.

    Another worker sends it again, at once; at most once it fails, because nobody knows whether it arrived.
    """
    if policy.at_most_once:
        return failed(execution, _unknown(made))
    return Ended(execution.id, execution.token, "retry", 0, made)


def _unknown(made: Attempt) -> Attempt:
    return structs.replace(made, kind=str(FailureKind.UNKNOWN_OUTCOME))


def _worth_another(made: Attempt, policy: Policy, nothing_sent: bool) -> bool:
    if policy.at_most_once and not nothing_sent:
        return False
    if made.kind == FailureKind.STATUS:
        return made.status in policy.retried_statuses
    return made.kind in policy.retried_kinds


def retry_delay(policy: Policy, number: int, seed: str) -> float:
    """Seconds before the ``number``-th retry (from 1) by the strategy; ``seed`` fixes the random part."""
    if policy.strategy == "exponential":
        delay = policy.first_delay * 2.0 ** (number - 1)
    elif policy.strategy == "linear":
        delay = policy.first_delay * number
    else:
        delay = policy.first_delay
    delay = min(delay, policy.longest_delay)
    if policy.jitter:
        delay *= 1 - policy.jitter * _drawn(seed)
    return delay


def _drawn(seed: str) -> float:
    """A number from 0 to 1 that the seed fixes."""
    return int.from_bytes(blake2b(seed.encode(), digest_size=8).digest()) / 2**64


def retry_after(headers: ResponseHeaders, now_ms: int) -> float:
    """Seconds that an answer asks to wait (RFC 9110, 10.2.3); 0 where it does not, or unreadably.

    A date is held against the answer's own ``Date``, because a target's clock may be wrong, and without one
    against ``now_ms``, the time by Redis's clock.
    """
    asked = _first(headers, b"retry-after")
    if asked.isascii() and asked.isdigit():
        return float(asked)
    until = parse_http_date(asked) if asked else None
    if until is None:
        return 0.0
    since = parse_http_date(_first(headers, b"date"))
    return max(0, until - (now_ms if since is None else since)) / 1000


def _first(headers: ResponseHeaders, name: bytes) -> str:
    return next((value.decode("latin-1").strip() for key, value in headers if key.lower() == name), "")
