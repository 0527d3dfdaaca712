"""Redis emptied, or rolled back to what it was, under a running system."""

from __future__ import annotations

import time
from collections import Counter

from chaos.arrivals import during, silence, until_next
from chaos.load import Planned, sleep_until, steady
from chaos.outcome import Outcome, Scenario, seconds
from chaos.rig import Rig

_TOLERANCE_SECONDS = 10  # the default: what was lost has to be more
_SNAPSHOTS = ("--save", "", "--appendonly", "no")  # what is saved is saved when told


def emptied(short: bool) -> Outcome:
    """FLUSHALL, and nothing is sent until an admin says so."""
    with Rig() as rig:
        rig.store_steady(600)
        time.sleep(5)
        rig.redis.client.flushall()
        begun = time.time()
        noticed = rig.wait_for_hold("data_loss")
        load = rig.store_steady(8 if short else 30)
        sleep_until(load[0].first + (2 if short else 10))
        resumed = time.time()
        rig.resume()
        account = rig.settle(load, since=load[0].first)
        requests = rig.target.requests()
        faults = account.faults() + rig.dead(critical=True) + silence(requests, noticed, resumed)
    figures = {
        "from FLUSHALL until the API said that firing is held": seconds(noticed - begun),
        "held": seconds(resumed - noticed),
        "requests while it was held": str(len(during(requests, noticed, resumed))),
        "from resume to the next request": seconds(until_next(requests, resumed)),
        "lateness of what was due meanwhile, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


def continued(short: bool) -> Outcome:
    """FLUSHALL, and everything goes on with what is put again."""
    with Rig(settings={"CRONSPACE_ON_DATA_LOSS": "continue"}) as rig:
        rig.store_steady(600)
        time.sleep(5)
        rig.redis.client.flushall()
        load = rig.store_steady(5 if short else 30)
        account = rig.settle(load, since=load[0].first)
        system = rig.client.get("/system")
        faults = account.faults() + rig.dead(critical=True)
    if not system["firing"] or [loss["kind"] for loss in system["losses"]] != ["emptied"]:
        faults.append(f"not told as one loss after which firing goes on: {system}")
    figures = {
        "losses that the API tells": ", ".join(loss["kind"] for loss in system["losses"]),
        "lateness, longest": seconds(max(account.late)),
    }
    return Outcome(account, figures, faults)


def rolled_back(short: bool) -> Outcome:
    """Redis killed, and started from what it saved a while ago, when every other process is new as well."""
    lost_seconds = _TOLERANCE_SECONDS + 3
    with Rig(redis=_SNAPSHOTS, state=True) as rig:
        load = rig.store_in_time(lambda first: with_once(rig.target.url, first, 22 if short else 60))
        sleep_until(load[0].first + 3.5)
        rig.redis.client.save()
        saved = time.time()
        sleep_until(saved + lost_seconds)
        rig.redis.process.kill()
        for process in (*rig.workers, rig.api.process):
            process.kill()
        killed = time.time()
        rig.redis.start()
        rig.restart()
        noticed = rig.wait_for_hold("data_loss")
        time.sleep(2)
        resumed = time.time()
        rig.resume()
        usual = [one for one in load if one.workspace != "once"]
        account = rig.settle(usual)
        requests = rig.target.requests()
        once = [request for request in requests if request.workspace == "once"]
        missed = sum(
            rig.client.entry(one.workspace, one.id).ended.get("missed:data_loss", 0)
            for one in load
            if one.workspace == "once"
        )
        faults = (
            account.faults(repeated=True, cut=True)
            + rig.dead(critical=True)
            + silence(requests, noticed, resumed)
        )
    others = [repeat for repeat in account.repeats if not saved - 2 <= repeat.before.at <= killed]
    if others:
        faults.append(f"{len(others)} slots sent again that were not sent in the lost time: {others[:2]}")
    if not account.repeats or not missed:
        faults.append("nothing was lost: the scenario shows nothing")
    twice = [slot for slot, count in Counter(one.slot for one in once).items() if count > 1]
    if twice:
        when = ", ".join(f"{slot / 1000 - killed:.1f} s" for slot in twice)
        faults.append(f"sent again although the trigger sends at most once, relative to the kill: {when}")
    figures = {
        "lost": seconds(killed - saved),
        "from the kill, over the restart of everything, until the API said that firing is held": seconds(
            noticed - killed
        ),
        "requests while it was held": str(len(during(requests, noticed, resumed))),
        "from resume to the next request": seconds(until_next(requests, resumed)),
        "sent again with the same id, all of the lost time": str(len(account.repeats)),
        "slots of an at_most_once trigger in the lost time: missed, not sent again": str(missed),
    }
    return Outcome(account, figures, faults)


def with_once(url: str, first: int, span: int) -> list[Planned]:
    """The steady load, and a trigger that sends at most once."""
    fields = {"delivery": "at_most_once"}
    once = Planned("once", "t", "* * * * * *", first, first + span - 1, url, fields=fields)
    return [*steady(url, first, span), once]


_MADE = "FLUSHALL amid 100 slots a second, and the sets put again"
SCENARIOS = [
    Scenario(
        "Redis emptied",
        f"{_MADE} while firing is held (CRONSPACE_ON_DATA_LOSS=hold, the default). An admin resumes later.",
        "Noticed within seconds and told by `GET /api/system`; nothing is sent until an admin resumes;"
        " then what was due meanwhile is sent. The account is of the sets that were put again.",
        emptied,
    ),
    Scenario(
        "Redis emptied, and continue",
        f"{_MADE} at once, with CRONSPACE_ON_DATA_LOSS=continue.",
        "Told as a loss; firing goes on. The account is of the sets that were put again.",
        continued,
    ),
    Scenario(
        "Redis rolled back",
        "SIGKILL to Redis and to every other process, Redis started with a snapshot that is 13 s old, the"
        " others started anew with the same CRONSPACE_STATE_DIR.",
        "Noticed by processes that are all new; nothing is sent until an admin resumes; then slots of the"
        " lost time are sent again with the same ids, but for those of a trigger that sends at most once:"
        " they are missed (`data_loss`) in the ledger.",
        rolled_back,
    ),
]
