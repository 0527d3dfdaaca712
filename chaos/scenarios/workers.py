"""Workers that are killed, and workers that are restarted."""

from __future__ import annotations

import time

from chaos.account import Account, Repeat
from chaos.outcome import Outcome, Scenario, percentile, seconds
from chaos.rig import Rig
from lab.lab import wait_for_worker

_LEASE_SECONDS = 15.0  # the default
_UNRECORDED_SECONDS = 0.5  # an answer that came so shortly before a kill may not have been recorded
_CUT_SECONDS = 0.5  # within so long after a kill the target has heard that the connection is gone
_LATER_SECONDS = 2.0  # what a takeover may take beyond the lease: until somebody looks and sends


def kills(short: bool) -> Outcome:
    """A random worker killed every two seconds, another started in its place."""
    lease = 2.0 if short else _LEASE_SECONDS
    settings = {"CRONSPACE_LEASE_SECONDS": str(lease), "CRONSPACE_CLAIM_BATCH": "10"}
    with Rig(settings=settings) as rig:
        load = rig.store_steady(6 if short else 60, "do=slow&seconds=0.4")
        begins, ends = load[0].first, load[0].last
        killed: list[float] = []
        next_kill = begins + 1.2
        while next_kill < ends:
            time.sleep(max(0.0, next_kill - time.time()))
            place = rig.any_worker()
            killed.append(time.time())
            rig.workers[place].kill()
            rig.workers[place] = rig.start_worker()
            next_kill += 2.1  # not in step with the slots
        account = rig.settle(load, within=lease + 30)
        faults = account.faults(repeated=True, cut=True) + rig.dead()
    return judge_kills(account, killed, lease, faults)


def judge_kills(account: Account, killed: list[float], lease: float, faults: list[str]) -> Outcome:
    """Whether every repeat is of a request that was in flight at a kill, and how long takeover took.

    A worker that is killed between its claim and its request has sent nothing, but it had the lease: then the
    next attempt has the number after the next, and comes two leases after the first kill.
    """
    took, unanswered, unrecorded, twice = [], 0, 0, 0
    for repeat in account.repeats:
        kill = kill_of(repeat, killed)
        if kill is None:
            faults.append(f"sent again, and not in flight at a kill: {repeat}")
            continue
        leases = repeat.after.attempt - repeat.before.attempt
        took.append((repeat.after.at - kill) / max(1, leases))
        unanswered += not repeat.before.answered
        unrecorded += repeat.before.answered
        twice += leases > 1
        if took[-1] > lease + _LATER_SECONDS:
            faults.append(f"a takeover took {took[-1]:.1f} s, with a lease of {lease:g} s: {repeat}")
    if not took:
        faults.append("no kill met a request in flight: the scenario shows nothing")
    figures = {
        "kills": str(len(killed)),
        "repeats of unanswered requests": str(unanswered),
        "repeats of answers not yet recorded": str(unrecorded),
        "of these, taken over by a worker that was killed before it sent": str(twice),
        f"takeover after a kill (lease {lease:g} s), p50": seconds(percentile(took, 50)),
        "takeover, longest": seconds(max(took, default=float("nan"))),
    }
    return Outcome(account, figures, faults)


def kill_of(repeat: Repeat, killed: list[float]) -> float | None:
    """The kill that a request was in flight at: unanswered then, or just answered; None: there is none."""
    before = repeat.before
    for kill in killed:
        if not before.at <= kill <= repeat.after.at or before.ended is None:
            continue
        if before.answered and kill - _UNRECORDED_SECONDS <= before.ended <= kill + _CUT_SECONDS:
            return kill
        if not before.answered and kill <= before.ended <= kill + _CUT_SECONDS:
            return kill
    return None


def rolling(short: bool) -> Outcome:
    """One worker after the other stopped with SIGTERM and another started in its place."""
    with Rig() as rig:
        load = rig.store_steady(7 if short else 40, "do=slow&seconds=0.4")
        begins, ends = load[0].first, load[0].last
        time.sleep(max(0.0, begins + 1 - time.time()))
        restarts, took, codes = 0, [], set()
        while time.time() < ends - 1.5:
            place = restarts % len(rig.workers)
            began = time.time()
            rig.workers[place].terminate()
            codes.add(rig.workers[place].wait(20))
            took.append(time.time() - began)
            rig.workers[place] = rig.start_worker()
            wait_for_worker(rig.workers[place])
            restarts += 1
        account = rig.settle(load)
        faults = account.faults() + rig.dead()
    if codes != {0}:
        faults.append(f"exit codes {codes} on SIGTERM")
    figures = {
        "restarts": str(restarts),
        "from SIGTERM to the end, longest": seconds(max(took)),
        "lateness, p99": seconds(percentile(account.late, 99)),
    }
    return Outcome(account, figures, faults)


SCENARIOS = [
    Scenario(
        "A random worker killed every 2 s",
        "SIGKILL to one of three workers every 2.1 s, and another started in its place. The target takes"
        " 0.4 s to answer and a claim takes at most 10 executions, so that kills meet requests in flight.",
        "Nothing lost. Sent again is only what was in flight at a kill: unanswered then, or answered less"
        " than 0.5 s before, so that nobody had recorded it. Takeover within the lease.",
        kills,
        in_tests=True,
    ),
    Scenario(
        "Rolling restart",
        "SIGTERM to one worker after the other, and another started when it has ended; as fast as they come"
        " up.",
        "Nothing lost, nothing sent again, no request cut off.",
        rolling,
        in_tests=True,
    ),
]
