"""Redis that is full, slow, or takes no more connections."""

from __future__ import annotations

import time
from collections.abc import Callable

from chaos.arrivals import until_next
from chaos.callers import Replacer
from chaos.load import sleep_until
from chaos.outcome import Outcome, Scenario, percentile, seconds
from chaos.proxy import SlowProxy
from chaos.rig import Rig

_RESUME_SECONDS = 5.0
_DELAY_SECONDS = 0.2


def full(short: bool) -> Outcome:
    """Redis at maxmemory: what needs memory is refused."""

    def begin(rig: Rig) -> Callable[[], None]:
        used = rig.redis.client.info("memory")["used_memory"]
        rig.redis.client.config_set("maxmemory-policy", "noeviction")
        rig.redis.client.config_set("maxmemory", used - 200_000)
        return lambda: rig.redis.client.config_set("maxmemory", 0)

    return _scarce(short, begin, "maxmemory")


def crowded(short: bool) -> Outcome:
    """All connections cut, and no new ones."""

    def begin(rig: Rig) -> Callable[[], None]:
        rig.redis.client.config_set("maxclients", 1)
        rig.redis.client.client_kill_filter(_type="normal", skipme=True)
        rig.redis.client.client_kill_filter(_type="pubsub", skipme=True)
        return lambda: rig.redis.client.config_set("maxclients", 10_000)

    return _scarce(short, begin, "maxclients")


def _scarce(short: bool, begin: Callable[[Rig], Callable[[], None]], told: str) -> Outcome:
    lasting = 2.0 if short else 10.0
    with Rig() as rig, Replacer(rig.api.url) as replacer:
        load = rig.store_steady(int(lasting) + (3 if short else 20))
        sleep_until(load[0].first + 1.3)
        end = begin(rig)
        time.sleep(lasting)
        end()
        back = time.time()
        account = rig.settle(load)
        requests = rig.target.requests()
        faults = account.faults() + rig.dead() + replacer.faults
    wait = until_next(requests, back)
    if wait > _RESUME_SECONDS:
        faults.append(f"sending went on only {wait:.1f} s after it was over")
    if 503 not in replacer.answers:
        faults.append("the API never answered 503: the scenario shows nothing")
    if not any(told in refusal for refusal in replacer.refusals):
        faults.append(f"no refusal names {told}: {replacer.refusals}")
    figures = {
        "lasting": f"{lasting:g} s",
        "answers of the API": replacer.told(),
        "what the 503s said": " ".join(sorted(replacer.refusals)),
        "from its end to the next request": seconds(wait),
        "lateness, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


class SlowRig(Rig):
    """Everything that talks to Redis talks to it through a proxy."""

    def reach_redis(self) -> str:
        self.proxy = SlowProxy(self.lab.path("p"), self.redis.socket)
        self.lab.at_end(self.proxy.close)
        return self.proxy.url


def slow(short: bool) -> Outcome:
    """Every command of workers and API takes 200 ms."""
    lasting = 3 if short else 20
    with SlowRig() as rig, Replacer(rig.api.url) as replacer:
        load = rig.store_steady(lasting + (3 if short else 10))
        sleep_until(load[0].first + 1.3)
        rig.proxy.delay = _DELAY_SECONDS
        sleep_until(load[0].first + 1.3 + lasting)
        rig.proxy.delay = 0.0
        back = time.time()
        account = rig.settle(load)
        faults = account.faults() + rig.dead() + replacer.faults
        late = [
            request.at - request.slot / 1000
            for request in rig.target.requests()
            if request.slot / 1000 > back
        ]
    if not late or percentile(late, 99) > 1:
        faults.append("lateness did not become what it was")
    figures = {
        "lasting": f"{lasting} s",
        "lateness throughout, p99": seconds(percentile(account.late, 99)),
        "lateness after it, p99": seconds(percentile(late, 99)),
        "answers of the API": replacer.told(),
        "slowest answer": seconds(replacer.slowest),
    }
    return Outcome(account, figures, faults)


SCENARIOS = [
    Scenario(
        "Redis full",
        "maxmemory set below what is used, with noeviction, for 10 s; then lifted.",
        "503 that says so, nothing ends; when it is lifted all goes on by itself, and nothing is lost.",
        full,
        in_tests=True,
    ),
    Scenario(
        "Redis slow",
        "A proxy holds back whatever workers and API send to Redis, 200 ms each time, for 20 s.",
        "Nothing lost, nothing sent again, no error; then as before.",
        slow,
    ),
    Scenario(
        "Redis takes no connections",
        "maxclients set to 1 and all connections cut, for 10 s.",
        "503 that names it, or says that Redis can't be reached; nothing ends;"
        " then all goes on by itself, and nothing is lost.",
        crowded,
    ),
]
