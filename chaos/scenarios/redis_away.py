"""Redis that dies and comes back, and Redis that is away for longer than a lease."""

from __future__ import annotations

import time
from collections.abc import Callable

from chaos.arrivals import until_next
from chaos.callers import Replacer
from chaos.load import Planned, sleep_until, steady
from chaos.outcome import Outcome, Scenario, seconds
from chaos.rig import KEPT_ALWAYS, Rig
from chaos.target import Request

_RESUME_SECONDS = 5.0
_LEASE_SECONDS = 15.0  # the default


def killed(short: bool) -> Outcome:
    """Redis killed again and again, and started at once."""
    with Rig(redis=KEPT_ALWAYS) as rig, Replacer(rig.api.url) as replacer:
        load = rig.store_steady(6 if short else 40, "do=slow&seconds=0.2")
        sleep_until(load[0].first + 1.1)
        back: list[float] = []
        while time.time() < load[0].last - 2:
            rig.redis.process.kill()
            time.sleep(0.3)
            rig.redis.start()
            back.append(time.time())
            time.sleep(1.8 if short else 4.0)
        account = rig.settle(load)
        requests = rig.target.requests()
        faults = account.faults() + rig.dead() + replacer.faults
    waits = [until_next(requests, at) for at in back]
    if max(waits) > _RESUME_SECONDS:
        faults.append(f"sending went on only {max(waits):.1f} s after Redis was back")
    figures = {
        "kills": str(len(back)),
        "replaces acknowledged, none lost": str(replacer.acknowledged),
        "answers of the API": replacer.told(),
        "from Redis's return to the next request, longest": seconds(max(waits)),
        "lateness, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


def away(short: bool) -> Outcome:
    """Redis killed, and started 20 s later."""

    def stop(rig: Rig) -> Callable[[], None]:
        rig.redis.process.kill()
        return rig.redis.start

    return _outage(short, stop)


def hanging(short: bool) -> Outcome:
    """Redis there and silent for 20 s."""

    def stop(rig: Rig) -> Callable[[], None]:
        rig.redis.process.suspend()
        return rig.redis.process.resume

    return _outage(short, stop)


def _outage(short: bool, stop: Callable[[Rig], Callable[[], None]]) -> Outcome:
    lease, outage = (2.0, 5.0) if short else (_LEASE_SECONDS, 20.0)
    deadline = outage / 4
    with (
        Rig(redis=KEPT_ALWAYS, settings={"CRONSPACE_LEASE_SECONDS": str(lease)}) as rig,
        Replacer(rig.api.url) as replacer,
    ):
        url, span = rig.target.url, int(outage) + (4 if short else 20)

        def load_from(first: int) -> list[Planned]:
            return [*steady(url, first, span), *beside(url, first, span, outage, deadline)]

        load = rig.store_in_time(load_from)
        sleep_until(load[0].first + 2.3)
        start = stop(rig)
        time.sleep(outage)
        start()
        back = time.time()
        account = rig.settle(load)
        requests = rig.target.requests()
        missed = [slot for slot in account.lost if slot[0] == "misses"]
        faults = account.faults(lost=len(missed)) + rig.dead() + replacer.faults
    if not missed:
        faults.append("no slot was found beyond its deadline: the scenario shows nothing")
    if account.ended["missed:deadline"] != len(missed):
        faults.append(f"the ledger has {account.ended['missed:deadline']} slots missed, {len(missed)} are")
    if 503 not in replacer.answers:
        faults.append("the API never answered 503")
    wait = until_next(requests, back)
    if wait > _RESUME_SECONDS:
        faults.append(f"sending went on only {wait:.1f} s after Redis was back")
    figures = {
        "outage": f"{outage:g} s, lease {lease:g} s",
        "replaces acknowledged, none lost": str(replacer.acknowledged),
        "answers of the API": replacer.told(),
        "until it answered 503, longest": seconds(replacer.slowest_refusal),
        "from Redis's return to the next request": seconds(wait),
        "requests that were under way throughout, none repeated": str(
            sum(one.workspace == "sending" for one in requests)
        ),
        f"found beyond their deadline of {deadline:g} s: missed, in the ledger": str(len(missed)),
        "caught up": str(_caught_up(requests, deadline)),
        "late within the deadline of 60 s": str(
            sum(late > deadline for late in account.late) - _caught_up(requests, deadline)
        ),
    }
    return Outcome(account, figures, faults)


def beside(url: str, first: int, span: int, outage: float, deadline: float) -> list[Planned]:
    """Requests that are under way throughout, and two ways to treat late slots."""
    answered_late = f"do=slow&seconds={outage + 3}"
    found = [
        Planned("sending", f"t{number}", 1, first + 1, first + 1, url, answered_late, {"timeout_seconds": 60})
        for number in range(10)
    ]
    for workspace, catch_up in (("misses", False), ("catches-up", "all")):
        fields = {"start_deadline_seconds": deadline, "catch_up_missed": catch_up}
        found += [
            Planned(workspace, f"t{number}", "* * * * * *", first, first + span - 1, url, fields=fields)
            for number in range(3)
        ]
    return found


def _caught_up(requests: list[Request], deadline: float) -> int:
    return sum(one.workspace == "catches-up" and one.at - one.slot / 1000 > deadline for one in requests)


_OUTAGE = (
    " Replaces in one workspace go on all the time, ten requests are under way throughout, one workspace"
    " has a shorter deadline for late slots, and another one that deadline and catch_up_missed. appendfsync"
    " always."
)
_SHOWN = (
    "Workers and API stay alive. 503 with Retry-After meanwhile, sending again within 5 s, no acknowledged"
    " replace lost. Nothing is repeated that a living worker was sending, although every lease lapsed. Lost"
    " is only what the ledger has as missed, slot by slot."
)
SCENARIOS = [
    Scenario(
        "Redis killed and restarted",
        "SIGKILL to Redis every 4 s, and started again on its append-only file; appendfsync always."
        " Replaces in one workspace go on all the time.",
        "Nothing lost, nothing sent again, no acknowledged replace lost; sending again within 5 s.",
        killed,
    ),
    Scenario(
        "Redis gone for 20 s",
        "SIGKILL to Redis, and started 20 s later." + _OUTAGE,
        _SHOWN,
        away,
        in_tests=True,
    ),
    Scenario("Redis silent for 20 s", "SIGSTOP to Redis, and SIGCONT 20 s later." + _OUTAGE, _SHOWN, hanging),
]
