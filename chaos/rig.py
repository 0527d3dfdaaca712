"""What every scenario runs on: Redis with an append-only file, an API, three workers, and the target."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

from chaos import target
from chaos.account import Account, balance
from chaos.client import Client
from chaos.load import Planned, by_workspace, sleep_until, steady
from lab.lab import Lab, wait_for_worker
from lab.processes import LabError, Process

KEPT = ("--save", "", "--appendonly", "yes", "--appendfsync", "everysec")
KEPT_ALWAYS = ("--save", "", "--appendonly", "yes", "--appendfsync", "always")
WORKERS = 3
_NOTICED_SECONDS = 10.0
_FAR_SECONDS = 3600
_SETTLE_SECONDS = 45.0  # in which what was due has to have ended, after the last slot
_TRACE = re.compile(r'"traceback":.*|^Traceback (?:.*\n)*', re.MULTILINE)
_CRITICAL = '"level":"critical"'


class Rig:
    """Everything, running; leaving it ends it.

    ``settings`` are variables of the workers' and the API's environment, ``each`` those of each worker alone.
    """

    def __init__(
        self,
        *,
        redis: Sequence[str] = KEPT,
        settings: Mapping[str, str] | None = None,
        each: Sequence[Mapping[str, str]] = ({},) * WORKERS,
        idle: bool = False,
        state: bool = False,
    ) -> None:
        self._redis_options = redis
        self._settings = dict(settings or {})
        self._each = each
        self._idle = idle  # no worker yet
        self._state = state  # with a folder that outlives processes

    def __enter__(self) -> Self:
        self.lab = Lab().__enter__()
        try:
            if self._state:
                self._settings["CRONSPACE_STATE_DIR"] = str(self.lab.path("state"))
            self.start_redis()
            self.redis_url = self.reach_redis()
            self.api = self.lab.start_api(self.redis_url, self._settings)
            self.workers: list[Process] = []
            if not self._idle:
                self.start_workers()
            self.target = target.start(self.lab.process, self.lab.path("target"))
            self.api.wait()
            self.client = Client(self.api.url).__enter__()
            for worker in self.workers:
                wait_for_worker(worker)
        except BaseException as error:
            self.lab.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.__exit__(kind, error, trace)
        for process in self.workers:
            process.kill()  # the account is drawn up: what still runs is of no interest
        self.lab.__exit__(kind, error, trace)

    def start_redis(self) -> None:
        """Start Redis."""
        self.redis = self.lab.redis(*self._redis_options)

    def reach_redis(self) -> str:
        """The URL that workers and API get; a scenario may put something in between."""
        return self.redis.url()

    def start_workers(self) -> None:
        """Start the fleet, without waiting."""
        self.workers = [self.start_worker(own) for own in self._each]

    def start_worker(self, own: Mapping[str, str] | None = None) -> Process:
        """Start one more worker, without waiting."""
        return self.lab.start_worker(self.redis_url, {**self._settings, **(own or {})})

    def restart(self) -> None:
        """Start API and fleet again, when they have ended, and wait for them."""
        self.client.__exit__(None, None, None)
        self.api = self.lab.start_api(self.redis_url, self._settings)
        self.start_workers()
        self.api.wait()
        self.client = Client(self.api.url).__enter__()
        for worker in self.workers:
            wait_for_worker(worker)

    def resume(self) -> None:
        """What an admin does when firing is held."""
        self.client.call("POST", "/system/resume").raise_for_status()

    def wait_for_hold(self, kind: str) -> float:
        """When the API said that firing is held for that; after a while without, now."""
        deadline = time.monotonic() + _NOTICED_SECONDS
        while time.monotonic() < deadline:
            if [hold["kind"] for hold in self.client.get("/system")["holds"]] == [kind]:
                break
            time.sleep(0.05)
        return time.time()

    def store_in_time(self, make: Callable[[int], list[Planned]]) -> list[Planned]:
        """Store what ``make`` gives for a first slot (s since the epoch), and that before it.

        How long storing takes here is found by storing it once for a time that is far away.
        """
        began = time.monotonic()
        self.client.store(make(int(time.time()) + _FAR_SECONDS))
        took = time.monotonic() - began
        load = make(int(time.time() + 2 * took) + 2)
        self.client.store(load)
        if time.time() > min(one.first for one in load):
            raise LabError("storing took longer than the time until the first slot")
        return load

    def store_steady(self, seconds: int, do: str = "", **fields: object) -> list[Planned]:
        """Store 100 slots a second, which begin soon."""
        return self.store_in_time(lambda first: steady(self.target.url, first, seconds, do, **fields))

    def settle(self, load: Sequence[Planned], within: float = _SETTLE_SECONDS, since: int = 0) -> Account:
        """Wait until all that is due has ended (or for so long), and draw up the account.

        ``since``: requests of earlier slots (s) belong to something else. What is in workspaces that are not
        in the load is left out.
        """
        sleep_until(max(one.last for one in load) + 1)
        workspaces = by_workspace(load)
        due = {workspace: sum(len(one.slots()) for one in own) for workspace, own in workspaces.items()}
        deadline = time.monotonic() + within
        while time.monotonic() < deadline:
            if all(self.client.counted(workspace) == (number, 0) for workspace, number in due.items()):
                break
            time.sleep(0.2)
        requests = [
            request
            for request in self.target.requests()
            if request.workspace in workspaces and request.slot >= since * 1000
        ]
        ledger = {(one.workspace, one.id): self.client.entry(one.workspace, one.id) for one in load}
        return balance(load, requests, ledger)

    def dead(self, *, critical: bool = False) -> list[str]:
        """Processes that ended by themselves, and what was said that nobody should have to say.

        ``critical``: something is so wrong that it has to be said by somebody.
        """
        found = []
        for process in (self.api.process, *self.workers):
            if not process.alive():
                found.append(f"{process.log.stem} ended by itself: {process.said()[-300:]}")
            for trace in _TRACE.findall(process.said())[:1]:
                found.append(f"{process.log.stem} has a traceback in its log: {trace[-500:]}")
        said = [process for process in (self.api.process, *self.workers) if _CRITICAL in process.said()]
        if bool(said) is not critical:
            found.append(f"{len(said)} processes have something critical in their log")
        return found

    def any_worker(self) -> int:
        """The place of a worker in the fleet, by chance."""
        return random.randrange(len(self.workers))
