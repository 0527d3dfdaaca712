"""Much at once: one workspace with ten thousand slots among three hundred, and a backlog of an outage."""

from __future__ import annotations

import time
from collections import defaultdict

from chaos.load import Planned, sleep_until, steady
from chaos.outcome import Outcome, Scenario, percentile, seconds
from chaos.rig import Rig
from lab.lab import wait_for_worker
from lab.processes import LabError

_LATE_SECONDS = 1.0


def greedy(short: bool) -> Outcome:
    """Ten thousand slots of one workspace at once, to a target that hangs; default settings."""
    small, many, span = (30, 1000, 10) if short else (300, 10_000, 60)
    with Rig() as rig:
        first = int(time.time()) + (4 if short else 20)
        first -= first % 10 - 10  # every tenth second, all at once
        load = [
            Planned(f"small-{number}", "t", "*/10 * * * * *", first, first + span, rig.target.url)
            for number in range(small)
        ]
        at = first + span // 20 * 10  # in the same second as the others
        rush = [
            Planned("greedy", f"t{number}", 1, at, at, rig.target.url, "do=hang") for number in range(many)
        ]
        rig.client.store([*rush, *load])
        if time.time() > first:
            raise LabError("storing took longer than the time until the first slot")
        account = rig.settle(load)
        faults = account.faults() + rig.dead()
        ledger = rig.client.get("/workspaces/greedy/history/stats")["counted"]
        hanging = sum(request.workspace == "greedy" for request in rig.target.requests())
        late = [
            request.at - request.slot / 1000
            for request in rig.target.requests()
            if request.workspace != "greedy" and request.slot / 1000 >= at
        ]
    if ledger["due"] != many:
        faults.append(f"the ledger has {ledger['due']} slots due in the greedy workspace, not {many}")
    p99 = percentile(late, 99)
    if not p99 < _LATE_SECONDS:
        faults.append(f"p99 lateness of the others is {p99:.2f} s")
    figures = {
        "slots at once in one workspace": f"{many}, of which {hanging} were sent meanwhile",
        "lateness of the others after that, p50": seconds(percentile(late, 50)),
        "p99": seconds(p99),
        "longest": seconds(max(late)),
    }
    return Outcome(account, figures, faults)


def backlog(short: bool) -> Outcome:
    """A fleet that starts when slots of the last 100 s were never looked at, and more fall due."""
    triggers, outage, live_seconds = (60, 5, 5) if short else (500, 100, 60)
    fields = {"start_deadline_seconds": 1, "catch_up_missed": "all"}
    with Rig(idle=True) as rig:
        first = int(time.time()) + (2 if short else 5)
        old = [
            Planned(
                f"old-{number % 10}",
                f"t{number}",
                "* * * * * *",
                first,
                first + outage - 1,
                rig.target.url,
                "",
                fields,
            )
            for number in range(triggers)
        ]
        rig.client.store(old)
        sleep_until(first + outage + 1.5)
        live = steady(rig.target.url, int(time.time()) + 5, live_seconds)
        rig.client.store(live)
        began = time.time()
        rig.start_workers()
        for worker in rig.workers:
            wait_for_worker(worker)
        ready = time.time()
        account = rig.settle([*old, *live], within=180)
        requests = rig.target.requests()
        faults = account.faults() + rig.dead()
    order: dict[tuple[str, str], list[int]] = defaultdict(list)
    for request in requests:
        if request.workspace.startswith("old-"):
            order[request.workspace, request.trigger].append(request.slot)
    unordered = sum(slots != sorted(slots) for slots in order.values())
    drained = max((one.at for one in requests if one.workspace.startswith("old-")), default=float("nan"))
    # A slot before there was a worker is late for that.
    late = [
        one.at - one.slot / 1000
        for one in requests
        if one.workspace.startswith("ws-") and one.slot / 1000 >= ready
    ]
    p99 = percentile(late, 99)
    if unordered:
        faults.append(f"{unordered} triggers had their slots sent out of order")
    if not p99 < _LATE_SECONDS:
        faults.append(f"p99 lateness of live slots is {p99:.2f} s")
    figures = {
        "overdue": f"{len(old) * outage}",
        "triggers whose slots came out of order": str(unordered),
        "from the fleet's start until all its workers were up": seconds(ready - began),
        "until the last overdue slot": seconds(drained - began),
        "lateness of live slots, p50": seconds(percentile(late, 50)),
        "p99": seconds(p99),
        "longest": seconds(max(late, default=float("nan"))),
    }
    return Outcome(account, figures, faults)


SCENARIOS = [
    Scenario(
        "10,000 slots at once in one workspace",
        "300 workspaces with a slot every ten seconds, all in the same second; one more with 10,000 slots"
        " at once, to a target that hangs until the time-out. Default settings.",
        "The others' p99 lateness stays under 1 s. The account is theirs.",
        greedy,
    ),
    Scenario(
        "A backlog of 50,000",
        "500 triggers with a slot a second, and no worker for 100 s; then three at once, and 100 live slots a"
        " second from 5 s later on. catch_up_missed, and a deadline of 1 s.",
        "The slots of each trigger go in order, none is lost, and live ones are not behind them (p99"
        " lateness under 1 s).",
        backlog,
    ),
]
