"""The API as its callers see it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from types import TracebackType
from typing import Any, Self

import httpx

from chaos.account import Entry
from chaos.load import Planned, by_workspace
from lab.processes import LabError

_PATIENCE = 60.0  # s until a call is given up: calls on a Redis that hangs take a while to be answered


class Client:
    """Calls of the API; but for those of :meth:`call` whatever is not 2xx is a :class:`LabError`."""

    def __init__(self, url: str) -> None:
        self._http = httpx.Client(base_url=url, timeout=_PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._http.close()

    def call(self, method: str, path: str, body: Any = None) -> httpx.Response:
        """Any call, below /api, with any answer."""
        return self._http.request(method, f"/api{path}", json=body)

    def get(self, path: str) -> dict[str, Any]:
        """Read something that is there."""
        return self._good(self.call("GET", path))

    def replace(self, workspace: str, triggers: Iterable[Any]) -> dict[str, Any]:
        """Replace a workspace's set."""
        return self._good(
            self.call("POST", f"/workspaces/{workspace}/triggers", {"triggers": list(triggers)})
        )

    def store(self, load: Iterable[Planned]) -> None:
        """Store a load: a replace for each of its workspaces."""
        for workspace, members in by_workspace(load).items():
            self.replace(workspace, [one.declared() for one in members])

    def counted(self, workspace: str) -> tuple[int, int]:
        """How many slots of a workspace were due, and how many are open, by its history."""
        counted = self.get(f"/workspaces/{workspace}/history/stats")["counted"]
        return counted["due"], counted["open"]

    def executions(self, workspace: str) -> list[dict[str, Any]]:
        """All executions that are kept of a workspace."""
        found: list[dict[str, Any]] = []
        cursor = ""
        while True:
            page = self.get(f"/workspaces/{workspace}/executions?limit=500{cursor}")
            found += page["executions"]
            if page["next_cursor"] is None:
                return found
            cursor = f"&cursor={page['next_cursor']}"

    def entry(self, workspace: str, trigger: str) -> Entry:
        """What the ledger has about a trigger."""
        ledger = self.get(f"/workspaces/{workspace}/ledger?trigger={trigger}")
        ended: dict[str, int] = {}
        for day in ledger["days"]:
            for end in day["ended"]:
                name = f"{end['state']}:{end['reason']}" if end["reason"] else end["state"]
                ended[name] = ended.get(name, 0) + end["count"]
        return Entry(
            due=sum(day["due"] for day in ledger["days"]),
            open=sum(day["open"] for day in ledger["days"]),
            ended=ended,
            exceptions=[(_ms(run["first"]), _ms(run["last"]), run["state"]) for run in ledger["exceptions"]],
        )

    def _good(self, response: httpx.Response) -> dict[str, Any]:
        if not response.is_success:
            raise LabError(
                f"{response.request.url.path} was answered {response.status_code}: {response.text[:500]}"
            )
        found: dict[str, Any] = response.json()
        return found


def _ms(moment: str) -> int:
    return round(datetime.fromisoformat(moment).timestamp() * 1000)
