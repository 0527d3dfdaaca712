"""What the fields of one trigger must have to do with one another."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from datetime import UTC, tzinfo
from operator import attrgetter

from app.clock import parse_moment
from app.declared.inputs import Defaults, TriggerInput
from app.declared.outcomes import FIRST_DELAYS
from app.errors import InvalidSchedule
from app.models import Definition
from app.schedule.zones import load_zone

SCHEDULES = ("cron", "interval", "at")

# Fields that mean something only beside another, and the fields that they need.
OWNERS: dict[str, tuple[str, ...]] = {
    "dst_policy": ("cron",),
    "starts_at": ("cron", "interval"),
    "ends_at": ("cron", "interval"),
    "max_runs": ("cron", "interval"),
    "queue_limit": ("overlap_policy",),
    "catch_up_window_seconds": ("catch_up_missed",),
}

# What there is to say about beside a cron expression.
_others = attrgetter("interval", "at", *OWNERS, "retry_delay_seconds", "retry_max_delay_seconds")
_NO_OTHERS = (None,) * (len(OWNERS) + 4)

_LONGEST_DELAY = Definition(url="", method="GET").retry_max_delay_seconds


def rule_faults(
    trigger: TriggerInput, defaults: Defaults, bad: Collection[str] = ()
) -> Iterator[tuple[str, str]]:
    """Fields that do not go together, as (path, message).

    ``bad`` are fields that were given, have faults of their own, and are left out of ``trigger``.
    """
    if trigger.timeout_seconds is not None and trigger.timeout_seconds > defaults.max_timeout_seconds:
        most = f"{defaults.max_timeout_seconds:g} s (CRONSPACE_MAX_TIMEOUT_SECONDS)"
        yield "timeout_seconds", f"{trigger.timeout_seconds:g} s, but an attempt may take {most} at most"
    if not bad and trigger.cron is not None and _others(trigger) == _NO_OTHERS:
        return
    given = [name for name in SCHEDULES if getattr(trigger, name) is not None or name in bad]
    if not given:
        yield (
            "cron",
            "expected 'str', or else 'interval' or 'at' is set: a trigger has exactly one of the three",
        )
    for name in given[1:]:
        yield (
            name,
            f"{given[0]!r} is set too: a trigger has exactly one of cron, interval and at (null unsets)",
        )
    if given and trigger.dst_policy is not None and "cron" not in given:
        yield "dst_policy", f"it is for cron schedules: {given[0]!r} goes by elapsed time"
    if given == ["at"]:
        for name in ("starts_at", "ends_at", "max_runs"):
            if getattr(trigger, name) is not None:
                yield name, "a one-off has one slot: it goes with cron and interval only"
    if trigger.queue_limit is not None and trigger.overlap_policy != "queue" and "overlap_policy" not in bad:
        yield "queue_limit", "it goes with the overlap_policy 'queue' only"
    if (
        trigger.catch_up_window_seconds is not None
        and not trigger.catch_up_missed
        and "catch_up_missed" not in bad
    ):
        yield "catch_up_window_seconds", "it goes with catch_up_missed only"
    yield from _moment_faults(trigger, trigger.timezone or defaults.timezone)
    if trigger.retry_delay_seconds is not None or trigger.retry_max_delay_seconds is not None:
        yield from _delay_faults(trigger)


def _moment_faults(trigger: TriggerInput, zone: str) -> Iterator[tuple[str, str]]:
    """What is wrong with moments: they are fields that only the zone gives a meaning."""
    try:
        tz: tzinfo = load_zone(zone)
    except InvalidSchedule:
        tz = UTC  # its own fault is told by itself
    found = {}
    for name in ("at", "starts_at", "ends_at"):
        text = getattr(trigger, name)
        if text is not None:
            try:
                found[name] = parse_moment(text, tz)
            except ValueError as error:
                yield name, str(error)
    if {"starts_at", "ends_at"} <= found.keys() and found["ends_at"] < found["starts_at"]:
        yield "ends_at", "it lies before starts_at"


def _delay_faults(trigger: TriggerInput) -> Iterator[tuple[str, str]]:
    first = trigger.retry_delay_seconds
    if first is None:
        first = FIRST_DELAYS[trigger.retry_strategy or "exponential"]
    longest = trigger.retry_max_delay_seconds
    if longest is None:
        longest = _LONGEST_DELAY
    if longest < first:
        yield (
            "retry_max_delay_seconds",
            f"{longest:g} s (3600 unless given) is shorter than the first delay, {first:g} s"
            f" (retry_delay_seconds, or the strategy's own)",
        )
