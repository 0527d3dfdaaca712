"""What a process saw last of a shard, so that it notices what Redis itself can't: that it lost what it had
acknowledged, or that its clock jumped. Pure.

Redis's root hash has an *epoch* (the id of the data, given when a shard is first used) and a *beat* that
changes every second as long as any process lives; the beats of the last minutes are kept. A process tells
with its call which beat it saw last. Data without that beat is not what it was: Redis was emptied, rolled
back or replaced.

The clock is held against one that nobody sets (the time since the machine's start): what passed on both
since the last reply has to agree. A process whose own evidence is against Redis's clock stands back, and
tells the others; one with evidence for it takes that back. Evidence begins with a reply while nothing was
held, so a process that starts after a jump can't speak for the new time.

``store/lua/_witness.lua`` compares, in the script that would fire, before it does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

HoldKind = Literal["data_loss", "clock_jump"]


class Seen(Struct, frozen=True, array_like=True):
    """What a process tells with a call; as the scripts take it. Times are ms, by Redis's clock."""

    epoch: str  # empty: it has seen nothing yet
    beat: str
    at: int  # the last reply
    expected: int  # now, by the process's own clock; 0: it has none to go by
    since: int  # how far back its evidence goes
    term: int  # how often a clock was accepted, when it last heard
    who: str
    token: str  # of the process
    tolerance: int  # a loss of less than this is only told
    max_jump: int  # 0: the clock may do what it wants
    holds: bool  # whether a loss holds firing


class Loss(Struct, frozen=True, array_like=True):
    """What Redis did from ``since`` ``until`` (ms) at most is lost. ``since`` 0: it lost all."""

    epoch: str  # of the data that was lost
    since: int
    until: int
    noticed: int
    who: str
    held: bool  # firing was held for it

    @property
    def kind(self) -> Literal["emptied", "rolled_back"]:
        """Whether nothing was left, or an older state."""
        return "rolled_back" if self.since else "emptied"


class Verdict(Struct, frozen=True):
    """What a script found. ``why`` firing is held, empty: it is not."""

    why: HoldKind | Literal[""]
    own: bool  # by this process's own evidence
    epoch: str = ""
    beat: str = ""
    term: int = 0


class Remembered(Struct, frozen=True):
    """What outlives a process."""

    epoch: str
    beat: str
    at: int


class Witness:
    """What one process saw last of one shard.

    ``steady`` gives the seconds on a clock that nobody sets; None: Redis's clock is taken as it is.
    """

    def __init__(
        self,
        who: str,
        token: str,
        *,
        tolerance: int,
        max_jump: int,
        holds: bool,
        steady: Callable[[], float] | None,
    ) -> None:
        self.why: HoldKind | Literal[""] = ""  # firing is held, as far as this process knows
        self._who, self._token = who, token
        self._tolerance, self._max_jump, self._holds = tolerance, max_jump, holds
        self._steady = steady
        self._epoch, self._beat, self._at = "", "", 0
        self._offset: float | None = None  # Redis's clock minus the steady one, ms
        self._since, self._term = 0, 0

    @property
    def remembered(self) -> Remembered | None:
        """What to keep outside Redis; None before the first reply."""
        return Remembered(self._epoch, self._beat, self._at) if self._epoch else None

    def recall(self, what: Remembered) -> None:
        """Go by what an earlier process saw, unless this one has seen something itself."""
        if not self._epoch:
            self._epoch, self._beat, self._at = what.epoch, what.beat, what.at

    def testify(self) -> Seen:
        """What to tell with the next call."""
        expected = 0
        if self._steady is not None and self._offset is not None:
            expected = max(1, round(self._steady() * 1000 + self._offset))
        return Seen(
            self._epoch,
            self._beat,
            self._at,
            expected,
            self._since,
            self._term,
            self._who,
            self._token,
            self._tolerance,
            self._max_jump,
            self._holds,
        )

    def hear(self, verdict: Verdict, now: int) -> None:
        """Take in what a script found at ``now``, by Redis's clock."""
        self.why = verdict.why
        if verdict.why == "clock_jump":
            if verdict.own:
                self._since = 0  # it saw the time before: when both clocks agree again, it may say so
            else:
                self._offset = None  # others know more: what it holds for the time began too late
            return
        self._epoch, self._beat, self._at = verdict.epoch, verdict.beat, now
        if self._steady is not None:
            if self._offset is None or verdict.term != self._term:
                self._since = now
            self._offset = now - self._steady() * 1000
        self._term = verdict.term
