"""Places: how many requests this process sends at once, over all shards that it serves."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Places:
    """So many at once. Who finds none free is woken when one is."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.free = size
        self._waiting: dict[Callable[[], None], None] = {}

    @contextmanager
    def reserve(self, number: int) -> Iterator[None]:
        """Keep places from others while it is found out how many of them are needed."""
        self.free -= number
        try:
            yield
        finally:
            self._add(number)

    def take(self) -> None:
        """Take one. Who had it reserved does so before anybody else is asked."""
        self.free -= 1

    def give_back(self) -> None:
        """Give one back, and wake who waits for it."""
        self._add(1)

    def wake_when_free(self, wake: Callable[[], None]) -> None:
        """Call ``wake`` once when places are given back."""
        self._waiting[wake] = None

    def _add(self, number: int) -> None:
        self.free += number
        waiting, self._waiting = self._waiting, {}
        for wake in waiting:
            wake()
