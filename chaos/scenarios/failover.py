"""A primary that dies, and sentinels that put a replica in its place."""

from __future__ import annotations

import time

from chaos.arrivals import until_next
from chaos.callers import Replacer
from chaos.load import sleep_until
from chaos.outcome import Outcome, Scenario, seconds
from chaos.rig import KEPT, Rig
from lab.redis_servers import Replicated

_RESUME_SECONDS = 15.0  # from the death of the primary: the sentinels take their part of it
_UNCONFIRMED = "stored and in force, but it is not confirmed"
_DOWN_MS = 1000


class SentinelRig(Rig):
    """A primary, two replicas and three sentinels in the place of one Redis."""

    def reach_redis(self) -> str:
        self.servers = Replicated(replicas=2, sentinels=3, down_after_ms=_DOWN_MS, options=KEPT)
        self.lab.at_end(self.servers.close)
        return self.servers.url()


def failover(short: bool) -> Outcome:
    """The primary killed; later the replica that is left of the new one, too."""
    settings = {"CRONSPACE_WAIT_REPLICAS": "1"}
    with SentinelRig(settings=settings) as rig, Replacer(rig.api.url) as replacer:
        load = rig.store_steady(20 if short else 50, "do=slow&seconds=0.2")
        first = rig.servers.primary
        sleep_until(load[0].first + 3.1)
        first.process.kill()
        killed = time.time()
        sleep_until(load[0].first + (13 if short else 30))
        confirmed, answers = replacer.acknowledged, replacer.told()
        heir = rig.servers.primary
        for server in rig.servers.servers:
            if server not in (first, heir):
                server.process.kill()
        account = rig.settle(load)
        requests = rig.target.requests()
        faults = account.faults(repeated=True) + rig.dead() + replacer.faults
    again = [repeat for repeat in account.repeats if not repeat.before.at <= killed <= repeat.after.at]
    if again:
        faults.append(f"{len(again)} slots sent again that have nothing to do with the failover")
    unconfirmed = sum(_UNCONFIRMED in refusal for refusal in replacer.refusals)
    if not unconfirmed or replacer.acknowledged - confirmed > 50:
        faults.append(f"without a replica replaces were not answered as not confirmed: {replacer.refusals}")
    wait = until_next([request for request in requests if request.at > killed + 0.5], killed)
    if wait > _RESUME_SECONDS:
        faults.append(f"sending went on only {wait:.1f} s after the primary had died")
    figures = {
        "replaces confirmed by a replica, none lost": str(confirmed),
        "answers of the API until the last replica died": answers,
        "and at the end": replacer.told(),
        "from the primary's death to the next request": seconds(wait),
        "lateness, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


SCENARIOS = [
    Scenario(
        "Sentinel failover",
        "One primary, two replicas, three sentinels (down-after-milliseconds 1000),"
        " CRONSPACE_WAIT_REPLICAS=1: SIGKILL to the primary, and later to the replica that is left. Replaces"
        " go on all the time.",
        "Sending goes on by itself; no confirmed replace is lost; what the new primary did not know of is"
        " sent again with the same id; without a replica a replace is answered 503, stored, not confirmed.",
        failover,
    ),
]
