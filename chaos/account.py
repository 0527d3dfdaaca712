"""The account: what was due by a computation of its own, what the target has, and what the ledger says.

Nothing is netted: a slot that was due and did not come is lost here, also where the ledger has it as missed;
what the ledger has is counted beside it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise

from msgspec import Struct

from chaos.load import Planned, Slot, due_slots
from chaos.target import Request

_SHOWN = 5  # of each kind of fault


class Entry(Struct, frozen=True):
    """What the ledger has about a trigger: how many slots were due and open, and how the others ended."""

    due: int
    open: int
    ended: dict[str, int]  # succeeded, failed, missed:deadline, …
    exceptions: list[
        tuple[int, int, str]
    ] = []  # runs of slots that ended other than well: first, last, state


class Repeat(Struct, frozen=True):
    """Two requests of one slot, one after the other."""

    before: Request
    after: Request


class Account(Struct):
    """What became of every slot. ``late`` is of the first request of each, in s."""

    due: int
    sent: int  # slots
    lost: list[Slot]
    early: int  # requests before their slot
    unknown: int  # requests for what is no slot
    repeats: list[Repeat]
    other_ids: int  # repeats with another webhook-id, or an id that is not made of its slot
    attempts_back: int  # repeats with a lower cronspace-attempt
    cut: int  # requests whose caller hung up before the answer
    late: list[float]
    ended: Counter[str]  # of the ledger, all triggers together
    disagreements: list[str]  # between ledger and target

    def faults(self, *, lost: int = 0, repeated: bool = False, cut: bool = False) -> list[str]:
        """What should not be, to be read; ``lost``, ``repeated`` and ``cut`` say what a scenario allows."""
        found = []
        if len(self.lost) != lost:
            found.append(f"{len(self.lost)} lost, not {lost}: {self.lost[:_SHOWN]}")
        for number, what in (
            (self.early, "requests before their slot"),
            (self.unknown, "requests for no slot"),
            (self.other_ids, "repeats with another webhook-id"),
            (self.attempts_back, "repeats with a lower attempt"),
            (0 if repeated else len(self.repeats), "slots sent again"),
            (0 if cut else self.cut, "requests cut off"),
        ):
            if number:
                found.append(f"{number} {what}")
        return found + self.disagreements[:_SHOWN]


def balance(
    load: Sequence[Planned], requests: Iterable[Request], ledger: Mapping[tuple[str, str], Entry]
) -> Account:
    """Compare; ``ledger`` has an entry for each trigger (workspace, id) of the load."""
    due = due_slots(load)
    by_slot: dict[Slot, list[Request]] = defaultdict(list)
    for request in requests:
        by_slot[request.workspace, request.trigger, request.slot].append(request)
    lost = sorted(due - by_slot.keys())
    repeats = [Repeat(before, after) for of_slot in by_slot.values() for before, after in pairwise(of_slot)]
    everything = [request for of_slot in by_slot.values() for request in of_slot]
    ended: Counter[str] = Counter()
    for entry in ledger.values():
        ended.update(entry.ended)
    return Account(
        due=len(due),
        sent=len(due & by_slot.keys()),
        lost=lost,
        early=sum(request.at * 1000 < request.slot for request in everything),
        unknown=sum(len(by_slot[slot]) for slot in by_slot.keys() - due),
        repeats=repeats,
        other_ids=sum(one.id != f"{one.workspace}:{one.trigger}:{one.slot}" for one in everything),
        attempts_back=sum(repeat.after.attempt < repeat.before.attempt for repeat in repeats),
        cut=sum(not request.answered for request in everything),
        late=[of_slot[0].at - slot[2] / 1000 for slot, of_slot in by_slot.items() if slot in due],
        ended=ended,
        disagreements=list(_disagreements(load, lost, ledger)),
    )


def _disagreements(
    load: Sequence[Planned], lost: Iterable[Slot], ledger: Mapping[tuple[str, str], Entry]
) -> Iterable[str]:
    lost_of: dict[tuple[str, str], set[int]] = defaultdict(set)
    for workspace, trigger, slot in lost:
        lost_of[workspace, trigger].add(slot)
    for one in load:
        slots, own_lost = one.slots(), lost_of[one.workspace, one.id]
        entry = ledger[one.workspace, one.id]
        sent = entry.ended.get("succeeded", 0) + entry.ended.get("failed", 0)
        unsent = sum(entry.ended.values()) - sent
        told = {
            slot
            for first, last, state in entry.exceptions
            if state != "failed"
            for slot in slots
            if first <= slot <= last
        }
        where = f"{one.workspace}:{one.id}: the ledger has"
        if entry.due != len(slots):
            yield f"{where} {entry.due} slots due, there were {len(slots)}"
        if entry.open:
            yield f"{where} {entry.open} slots open at the end"
        if sent != len(slots) - len(own_lost):
            yield f"{where} {sent} slots sent, {len(slots) - len(own_lost)} arrived"
        if unsent != len(own_lost) or told != own_lost:
            yield f"{where} {unsent} slots not sent ({len(told)} named), {len(own_lost)} did not arrive"
