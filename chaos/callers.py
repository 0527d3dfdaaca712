"""Callers of the API that do not stop when it fails: what they were told, and whether it was kept."""

from __future__ import annotations

import threading
import time
from collections import Counter
from types import TracebackType
from typing import Self

import httpx

from chaos.client import Client

WORKSPACE = "replaced-all-the-time"
_PAUSE_SECONDS = 0.02


class Replacer:
    """Replaces a workspace's set all the time, and reads it back each time.

    The n-th replace declares the number n. What is read may never be older than what was acknowledged.
    """

    def __init__(self, url: str) -> None:
        self.answers: Counter[int] = Counter()  # by status
        self.acknowledged = 0
        self.faults: list[str] = []
        self.refusals: set[str] = set()  # code and detail of what was refused
        self.slowest = 0.0  # s until an answer
        self.slowest_refusal = 0.0
        self._url = url
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        number, kept = 0, 0
        with Client(self._url) as client:
            while not self._stop.wait(_PAUSE_SECONDS):
                number += 1
                one = {"cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/", "method": "POST", "payload": number}
                try:
                    if self._call(client, "POST", {"triggers": [one]}) is not None:
                        self.acknowledged += 1
                        kept = number
                    found = self._call(client, "GET")
                except httpx.HTTPError as error:
                    self.faults.append(f"the API did not answer: {error!r}")
                    continue
                jobs = found.json()["jobs"] if found is not None else []
                if found is not None and (jobs[0]["payload"] if jobs else 0) < kept:
                    self.faults.append(f"an acknowledged replace was lost: {kept}, there is {jobs}")
                    kept = jobs[0]["payload"] if jobs else 0

    def _call(self, client: Client, method: str, body: object = None) -> httpx.Response | None:
        """A call's good answer; None for a refusal."""
        began = time.monotonic()
        response = client.call(method, f"/workspaces/{WORKSPACE}/triggers", body)
        took = time.monotonic() - began
        self.slowest = max(self.slowest, took)
        self.answers[response.status_code] += 1
        if response.is_success:
            return response
        self.slowest_refusal = max(self.slowest_refusal, took)
        is_problem = response.headers["content-type"] == "application/problem+json"
        if response.status_code == 503 and "retry-after" in response.headers and is_problem:
            self.refusals.add(response.json()["detail"])
        else:
            self.faults.append(f"answered {response.status_code}: {response.text[:300]}")
        return None

    def told(self) -> str:
        """The statuses, to be read."""
        return ", ".join(f"{number:,} times {status}" for status, number in sorted(self.answers.items()))
