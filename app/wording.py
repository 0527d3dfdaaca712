"""The words of an explanation: the codes, a sentence for each end, moments and spans. Pure."""

from __future__ import annotations

from typing import Literal

from app.clock import from_ms
from app.counts import counted
from app.models import FailureKind, State
from app.schedule.zones import load_zone

Code = Literal[
    "no_such_trigger",
    "trigger_disabled",
    "trigger_paused",
    "workspace_paused",
    "schedule_finished",
    "schedule_error",
    "no_worker",
    "firing_held",
    "next_slot",
    "slot_overdue",
    "slots_being_computed",
    "running",
    "ready",
    "waiting_for_place",
    "waiting_for_rate",
    "waiting_for_host",
    "waiting_in_line",
    "waiting_for_live",
    "waiting_for_jitter",
    "retrying",
    "succeeded",
    "failed",
    "unknown_outcome",
    "worker_lost",
    "cancelled_by_person",
    "cancelled_replaced",
    "cancelled_removed",
    "skipped_overlap",
    "skipped_backlog_full",
    "missed_deadline",
    "missed_catch_up_window",
    "missed_data_loss",
    "ended",
    "never_ran",
    "not_a_slot",
    "slot_ahead",
    "in_pause",
    "in_workspace_pause",
    "while_disabled",
    "while_changed",
    "day_succeeded",
    "not_recorded",
]


_CODES: dict[tuple[str, str], Code] = {
    (State.SUCCEEDED, ""): "succeeded",
    (State.FAILED, ""): "failed",
    (State.FAILED, FailureKind.UNKNOWN_OUTCOME): "unknown_outcome",
    (State.FAILED, FailureKind.WORKER_LOST): "worker_lost",
    (State.CANCELLED, "requested"): "cancelled_by_person",
    (State.CANCELLED, "replaced"): "cancelled_replaced",
    (State.CANCELLED, "trigger_removed"): "cancelled_removed",
    (State.SKIPPED, "overlap"): "skipped_overlap",
    (State.SKIPPED, "backlog_full"): "skipped_backlog_full",
    (State.MISSED, "deadline"): "missed_deadline",
    (State.MISSED, "catch_up_window"): "missed_catch_up_window",
    (State.MISSED, "data_loss"): "missed_data_loss",
}


def code_of(state: State, reason: str) -> Code:
    """The code of an end."""
    return _CODES.get((state, reason), "ended")


def sentence(code: Code, deadline_seconds: float) -> str:
    """What became of a slot, as the rest of a sentence that begins with it."""
    if code == "missed_deadline":
        return (
            f"was missed: it was found more than {deadline_seconds:g} s late (start_deadline_seconds):"
            " no worker ran, or Redis was away, and the trigger does not catch up (catch_up_missed)."
        )
    return _SENTENCES.get(code, "ended.")


_SENTENCES: dict[Code, str] = {
    "succeeded": "succeeded.",
    "failed": "failed for good: it is a dead letter, which can be retried.",
    "unknown_outcome": (
        "failed: its worker was lost while it was sent. Whether the request arrived is unknown, and the"
        " trigger sends at most once."
    ),
    "worker_lost": "failed: it lost one worker after another. Perhaps the request itself ends them.",
    "cancelled_by_person": "was cancelled by a person.",
    "cancelled_replaced": "was cancelled because a later slot was due (overlap_policy replace).",
    "cancelled_removed": "was cancelled because the trigger was removed from the set.",
    "skipped_overlap": "was skipped because an earlier execution was still open (overlap_policy).",
    "skipped_backlog_full": "was skipped because too many executions of this workspace waited already.",
    "missed_catch_up_window": (
        "was missed: it was older than what the trigger catches up (catch_up_window_seconds), or one of"
        " too many."
    ),
    "missed_data_loss": "was missed: Redis had lost what it knew of that time.",
}


def when(ms: int, zone: str) -> str:
    """A moment on the wall clock of a zone; the milliseconds, too, where there are some: those of an interval
    tell its slots from others of the same second.
    """
    rest = f".{ms % 1000:03d}" if ms % 1000 else ""
    return f"{from_ms(ms, load_zone(zone)):%Y-%m-%d %H:%M:%S}{rest} {zone}"


def lasting(ms: int) -> str:
    """A span in the unit that fits it."""
    seconds = ms / 1000
    for unit, size in (("days", 86_400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return counted(round(seconds), "second")


def noted(note: str) -> str:
    """The note of a pause, in brackets."""
    return f" ({note!r})" if note else ""
