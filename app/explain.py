"""Why a trigger did or did not run, in words. Pure: what is known comes in as :class:`Facts`.

Each sentence is for a person who is on call at night and knows nothing of this trigger; its code is for
programs and will not change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from app.clock import from_ms
from app.counts import counted
from app.models import Definition, Execution, LastSlot, Pause, Standing, State, Trigger
from app.tally import Tally
from app.wording import Code, code_of, lasting, noted, sentence, when

OVERDUE_MS = 5000
_OPEN_SHOWN, _RUNS_SHOWN = 5, 3


class Finding(Struct, frozen=True):
    """One thing that explains something. ``at``: the moment that it speaks of, ms."""

    code: Code
    message: str
    at: int | None = None
    execution: str | None = None


class Open(Struct, frozen=True):
    """An open execution, and which set of open ones it is in (see ``app/keys.py``)."""

    execution: Execution
    waits_in: str | None


class Span(Struct, frozen=True):
    """A time in which no slot was due; or slots that ended in the same way, if ``count`` is not 0. In ms."""

    first: int
    last: int
    count: int
    state: str  # a final state; paused, disabled, changed, workspace_paused
    reason: str  # or the note of a pause


class Facts(Struct, frozen=True, kw_only=True):
    """What is known of a trigger."""

    now: int
    workspace: str
    trigger_id: str
    trigger: Trigger | None
    workspace_pause: Pause | None
    spans: Sequence[Span]  # newest first; those of the workspace too
    newest: Execution | None  # of the last slot that ended, while it is kept
    last: Sequence[LastSlot]  # newest first
    open: Sequence[Open]  # newest first
    max_concurrency: int
    max_rate: float  # a second; 0: no bound
    held: int  # executions that hold a place of the workspace
    deadline_seconds: float
    served: bool  # whether a worker lives that sends for the shard
    worker_seen: int | None  # when a worker last called, ms
    firing_held: str  # why nothing at all is fired; empty: it is


class Asked(Struct, frozen=True, kw_only=True):
    """What is known of one slot. Moments in ms."""

    at: int  # the moment that was asked about
    slot: int  # the slot at that moment, or else the nearest
    execution: Execution | None
    waits_in: str | None
    day: Tally  # of the slot's UTC day


def explain(facts: Facts) -> list[Finding]:
    """How things stand: what holds the trigger up, what comes next, what is open, what was last."""
    if facts.trigger is None:
        return [_gone(facts), *_open(facts)]
    found = [*_holds(facts), *_next(facts), *_open(facts)]
    if facts.newest is not None and facts.newest.state == State.FAILED:  # it knows more than a status
        found.append(_finished(facts, facts.newest))
    elif facts.last:
        found.append(_slot_outcome(facts, facts.last[0]))
    elif not facts.open:
        found.append(Finding("never_ran", "No slot of this trigger has ended yet."))
    newest = facts.last[0].slot if facts.last else None
    runs = [span for span in facts.spans if span.count and span.last != newest]
    return [*found, *(_run_outcome(facts, span) for span in runs[:_RUNS_SHOWN])]


def explain_slot(facts: Facts, asked: Asked) -> list[Finding]:
    """What became of a slot, and whether it was one."""
    found = [_gone(facts)] if facts.trigger is None else []
    slot = asked.slot
    if facts.trigger is not None and asked.at != slot:
        message = f"{_when(facts, asked.at)} is no slot of its schedule; the nearest is {_when(facts, slot)}."
        found.append(Finding("not_a_slot", message, slot))
    return [*found, *_became(facts, asked)]


def _became(facts: Facts, asked: Asked) -> Iterator[Finding]:
    slot = asked.slot
    if asked.execution is not None:
        yield _execution(facts, Open(asked.execution, asked.waits_in))
        return
    remembered = next((one for one in facts.last if one.slot == slot), None)
    if remembered is not None:
        yield _slot_outcome(facts, remembered)
        return
    if facts.trigger is not None and slot > facts.now:
        yield Finding(
            "slot_ahead",
            f"The slot {_when(facts, slot)} is still ahead, in {lasting(slot - facts.now)}.",
            slot,
        )
        yield from _holds(facts)
        return
    held = next(_held_at(facts, slot), None)
    if held is not None:
        yield held
        return
    run = next((one for one in facts.spans if one.count and one.first <= slot <= one.last), None)
    if run is not None:
        yield _run_outcome(facts, run)
        return
    trigger = facts.trigger
    if trigger is not None and trigger.next_slot is not None and trigger.next_slot <= slot:
        yield from _holds(facts)
        yield from _next(facts)
        return
    yield _by_day(facts, asked)


def _by_day(facts: Facts, asked: Asked) -> Finding:
    day = asked.day
    good = sum(number for (state, _), number in day.ended.items() if state == State.SUCCEEDED)
    date = f"{from_ms(asked.slot):%Y-%m-%d}"
    if day.due and good == day.due:
        return Finding(
            "day_succeeded",
            f"Single slots of that time are remembered no more, but all {day.due} of {date} (UTC) succeeded.",
            asked.slot,
        )
    told = ", ".join(
        f"{number} {state}{f' ({reason})' if reason else ''}" for (state, reason), number in day.ended.items()
    )
    counted = (
        f"Of {date} (UTC) {day.due} slots were counted: {told}."
        if day.due
        else (f"No slot was counted on {date} (UTC).")
    )
    return Finding(
        "not_recorded",
        f"Nothing is recorded of the slot {_when(facts, asked.slot)}: the trigger or its schedule is newer,"
        f" or it is too long ago. {counted}",
        asked.slot,
    )


def _gone(facts: Facts) -> Finding:
    return Finding(
        "no_such_trigger",
        f"There is no trigger {facts.trigger_id!r} in {facts.workspace!r} (any more): no slot of it is due."
        " The revisions of the workspace tell what removed it.",
    )


def _holds(facts: Facts) -> Iterator[Finding]:
    """What keeps slots from being due."""
    trigger = facts.trigger
    assert trigger is not None
    if trigger.standing == Standing.DISABLED:
        since = trigger.disabled_since
        told = f" since {_when(facts, since)}" if since else ""
        yield Finding(
            "trigger_disabled",
            f"The trigger has been disabled by its definition{told} (enabled: false): no slot is due.",
            since,
        )
    if trigger.pause is not None:
        since = trigger.pause.since
        message = (
            f"The trigger is paused since {_when(facts, since)}{noted(trigger.pause.note)}: no slot is due."
        )
        yield Finding("trigger_paused", message, since)
    if facts.workspace_pause is not None:
        since, note = facts.workspace_pause.since, facts.workspace_pause.note
        message = f"The whole workspace is paused since {_when(facts, since)}{noted(note)}: no slot is due."
        yield Finding("workspace_paused", message, since)
    if trigger.standing == Standing.FINISHED:
        yield Finding("schedule_finished", _why_finished(facts, trigger.definition))
    if trigger.error is not None:
        message = (
            f"Its next slot can't be computed, which is tried again every five minutes: {trigger.error}."
        )
        yield Finding("schedule_error", message)
    if facts.firing_held:
        message = f"{facts.firing_held} Nothing is fired or sent until an admin resumes."
        yield Finding("firing_held", message)
    seen = facts.worker_seen
    if not facts.served:
        told = (
            "No worker has called yet" if seen is None else f"No worker has called since {_when(facts, seen)}"
        )
        yield Finding("no_worker", f"{told}: nothing is sent until one runs.", seen)


def _why_finished(facts: Facts, definition: Definition) -> str:
    if definition.max_runs:
        return f"The trigger has finished: it has had its max_runs ({definition.max_runs}), or has ended."
    if definition.at:
        return f"The trigger has finished: its only slot was {_when(facts, definition.at)}."
    ends = f" at {_when(facts, definition.ends_at)} (ends_at)" if definition.ends_at else ""
    return f"The trigger has finished: its schedule ended{ends}."


def _next(facts: Facts) -> Iterator[Finding]:
    trigger = facts.trigger
    assert trigger is not None
    slot = trigger.next_slot
    if trigger.standing != Standing.ACTIVE:
        return
    if slot is None:
        yield Finding("slots_being_computed", "Its next slot is being computed: look again in a moment.")
    elif slot >= facts.now - OVERDUE_MS:
        message = f"The next slot is {_when(facts, slot)}, in {lasting(max(0, slot - facts.now))}."
        yield Finding("next_slot", message, slot)
    elif facts.workspace_pause is None:
        message = (
            f"The slot {_when(facts, slot)} is overdue by {lasting(facts.now - slot)}: no worker has come to"
            " it yet. What becomes of late slots is decided when one does."
        )
        yield Finding("slot_overdue", message, slot)


def _open(facts: Facts) -> Iterator[Finding]:
    yield from (_execution(facts, one) for one in facts.open[:_OPEN_SHOWN])


def _execution(facts: Facts, one: Open) -> Finding:
    execution = one.execution
    if execution.finished is not None:
        return _finished(facts, execution)
    code, told = _standing_of(facts, one)
    return Finding(
        code, f"The execution of the slot {_when(facts, execution.slot)} {told}", execution.slot, execution.id
    )


def _standing_of(facts: Facts, one: Open) -> tuple[Code, str]:
    execution = one.execution
    if execution.state == State.RUNNING:
        if execution.attempts:
            number, last = len(execution.attempts), execution.attempts[-1]
            return "running", (
                f"is being sent once more, by the worker {execution.worker}: attempt {number} failed"
                f" ({last.message or last.kind})."
            )
        since = f" since {_when(facts, execution.started)}" if execution.started else ""
        return "running", f"is being sent{since}, by the worker {execution.worker}."
    if execution.state == State.RETRYING:
        last = execution.attempts[-1]
        again = f" at {_when(facts, execution.next_attempt)}" if execution.next_attempt else ""
        return "retrying", (
            f"is tried again{again}: attempt {len(execution.attempts)} failed ({last.message or last.kind})."
        )
    match one.waits_in:
        case "backlog":
            limit = facts.max_concurrency
            if facts.max_rate and (not limit or facts.held < limit):
                return "waiting_for_rate", (
                    f"waits until its workspace may send again: max_rate is {facts.max_rate:g} a second."
                )
            return "waiting_for_place", (
                f"waits for a free place: all of its workspace are taken (max_concurrency {limit})."
            )
        case "lined":
            return "waiting_in_line", (
                "waits for an earlier execution of this trigger to end: they go one after another"
                " (overlap_policy, or they were late)."
            )
        case "late":
            return "waiting_for_live", (
                "is caught up, retried or filled in afterwards: it waits until no live execution is ready."
            )
        case "waiting":
            jitter = facts.trigger.definition.jitter_seconds if facts.trigger else 0
            if (execution.next_attempt or 0) > execution.slot + jitter * 1000:
                return "waiting_for_host", (
                    "waits for its target: as many requests as may be are on their way to that host"
                    " (CRONSPACE_MAX_CONCURRENCY_PER_HOST)."
                )
            until = f" until {_when(facts, execution.next_attempt)}" if execution.next_attempt else ""
            return "waiting_for_jitter", f"waits{until}, for its share of the jitter."
    return "ready", "is ready, and waits for a worker to take it."


def _finished(facts: Facts, execution: Execution) -> Finding:
    reason = execution.reason or ""
    code = code_of(execution.state, reason)
    last = execution.attempts[-1] if execution.attempts else None
    told = _told(facts, code)
    if execution.state == State.FAILED and last is not None and not reason:
        tried = counted(len(execution.attempts), "attempt")
        told = f"failed for good after {tried}: {last.message or last.kind}."
    elif execution.state == State.SUCCEEDED and last is not None:
        told = f"succeeded: the target answered {last.status}."
    return Finding(
        code, f"The execution of the slot {_when(facts, execution.slot)} {told}", execution.slot, execution.id
    )


def _slot_outcome(facts: Facts, slot: LastSlot) -> Finding:
    """Of a slot whose reason only the exceptional runs know."""
    run = next(
        (s for s in facts.spans if s.count and s.first <= slot.slot <= s.last and s.state == slot.state), None
    )
    code = code_of(slot.state, run.reason if run else "")
    answer = f" The target answered {slot.status}." if slot.status else ""
    return Finding(code, f"The slot {_when(facts, slot.slot)} {_told(facts, code)}{answer}", slot.slot)


def _run_outcome(facts: Facts, run: Span) -> Finding:
    code = code_of(State(run.state), run.reason)
    if run.count == 1:
        return Finding(code, f"The slot {_when(facts, run.first)} {_told(facts, code)}", run.first)
    told = f"Each of {run.count} slots from {_when(facts, run.first)} to {_when(facts, run.last)}"
    return Finding(code, f"{told} {_told(facts, code)}", run.last)


def _held_at(facts: Facts, slot: int) -> Iterator[Finding]:
    """The pause or the like that a slot lies in: it was never due."""
    trigger = facts.trigger
    moment = _when(facts, slot)
    if trigger is not None and trigger.disabled_since is not None and slot > trigger.disabled_since:
        yield Finding("while_disabled", f"{moment} was not due: the trigger is disabled since before.", slot)
    if trigger is not None and trigger.pause is not None and slot > trigger.pause.since:
        note = noted(trigger.pause.note)
        yield Finding("in_pause", f"{moment} was not due: the trigger is paused since before{note}.", slot)
    if facts.workspace_pause is not None and slot > facts.workspace_pause.since:
        note = noted(facts.workspace_pause.note)
        message = f"{moment} was not due: the whole workspace is paused since before{note}."
        yield Finding("in_workspace_pause", message, slot)
    for span in facts.spans:
        if span.count or not span.first < slot <= span.last:
            continue
        between = f"from {_when(facts, span.first)} to {_when(facts, span.last)}{noted(span.reason)}"
        if span.state == "disabled":
            yield Finding(
                "while_disabled", f"{moment} was not due: the trigger was disabled {between}.", slot
            )
        elif span.state == "changed":
            message = f"{moment} was not due: firing was held, and the trigger got another schedule meanwhile"
            yield Finding("while_changed", f"{message}, {between}.", slot)
        elif span.state == "workspace_paused":
            message = f"{moment} was not due: the whole workspace was paused {between}."
            yield Finding("in_workspace_pause", message, slot)
        else:
            yield Finding("in_pause", f"{moment} was not due: the trigger was paused {between}.", slot)


def _told(facts: Facts, code: Code) -> str:
    own = facts.trigger.definition.start_deadline_seconds if facts.trigger else None
    return sentence(code, facts.deadline_seconds if own is None else own)


def _when(facts: Facts, ms: int) -> str:
    """A moment on the wall clock of the trigger's zone."""
    return when(ms, facts.trigger.definition.timezone if facts.trigger else "UTC")
