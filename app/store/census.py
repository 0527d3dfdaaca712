"""How many triggers and executions there are, over all workspaces, at a bounded cost."""

from __future__ import annotations

from app.store.everywhere import all_ids, counts
from app.store.shards import Shards
from app.store.workspaces import Counts

_AT_ONCE = 50  # workspaces a pipeline: between two of them the API answers its callers


class Census:
    """Triggers and executions of all workspaces, counted in steps: a call looks at no more than ``step``.

    With more workspaces than that a count takes several calls, and until the next is complete the last one
    holds. Single workspaces are told of the first ``named`` ones, by id; the rest together.
    """

    def __init__(self, shards: Shards, named: int = 0, step: int = 1000) -> None:
        self.total: Counts | None = None  # None until the first count is complete
        self.of_each: dict[str | None, dict[str, int]] = {}  # workspace (None: all others) → executions
        self._shards = shards
        self._named = named
        self._step = step
        self._left: list[str] = []
        self._begin()

    def _begin(self) -> None:
        self._triggers: dict[str, int] = {}
        self._executions: dict[str, int] = {}
        self._each: dict[str | None, dict[str, int]] = {}

    async def go_on(self) -> None:
        """Count some more. A count that fails is begun anew."""
        if not self._left:
            self._begin()
            self._left = await all_ids(self._shards)
        taken, left, self._left = self._left[: self._step], self._left[self._step :], []
        for start in range(0, len(taken), _AT_ONCE):
            await self._count(taken[start : start + _AT_ONCE])
        self._left = left
        if not left:
            self.total, self.of_each = (
                Counts(triggers=self._triggers, executions=self._executions),
                self._each,
            )

    async def _count(self, workspaces: list[str]) -> None:
        for workspace, found in zip(workspaces, await counts(self._shards, workspaces), strict=True):
            _add(self._triggers, found.triggers)
            _add(self._executions, found.executions)
            if self._named:
                own = workspace if len(self._each) < self._named or workspace in self._each else None
                _add(self._each.setdefault(own, {}), found.executions)


def _add(totals: dict[str, int], more: dict[str, int]) -> None:
    for name, number in more.items():
        totals[name] = totals.get(name, 0) + number
