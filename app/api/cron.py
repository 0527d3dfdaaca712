"""Questions about schedules that need no workspace: whether an expression is valid, and the time zones."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from app.api.fields import Answer, TriggerId, WorkspaceId, about
from app.api.operations import Noun
from app.clock import LAST_ASKED_MS, to_ms
from app.errors import InvalidSchedule
from app.formats import Cron, Moment, Zone
from app.models import Definition
from app.schedule import schedule_of
from app.schedule.fields import MAX_CRON
from app.schedule.presets import PRESETS, describe
from app.schedule.zones import load_zone, zone_names

noun = Noun("schedules", "Questions about schedules that need no workspace.", "/api")

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ValidateQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A schedule to look at."""

    expression: Annotated[
        str,
        Meta(max_length=MAX_CRON),
        about("A cron expression, perhaps a wrong one.", examples=["0 9 * * 1-5"]),
    ]
    timezone: Annotated[str, about("The name of an IANA time zone.")] = "UTC"
    after: (
        Annotated[datetime, Meta(tz=True, description="Runs after this moment; now, if left out.")] | None
    ) = None
    count: Annotated[int, Meta(ge=1, le=100, description="How many runs to show.")] = 5
    workspace: Annotated[WorkspaceId, about("What `H` is spread by, with the trigger.")] = "example"
    trigger: Annotated[TriggerId, about("What `H` is spread by, with the workspace.")] = "example"


class ScheduleFault(Answer, frozen=True, kw_only=True):
    """What is wrong with a schedule."""

    field: Annotated[str, about("The parameter that is wrong.", enum=["expression", "timezone"])]
    message: str


class Validation(Answer, frozen=True, kw_only=True):
    """Whether a schedule can be used, and what it means."""

    valid: bool
    error: Annotated[ScheduleFault | None, about("Null when it is valid.")]
    description: Annotated[str | None, about("The expression in words; null when it is not valid.")]
    next_runs: Annotated[list[Moment], about("The next runs, with the zone's offset; fewer where it ends.")]


class ShownPreset(Answer, frozen=True, kw_only=True):
    """An expression that people often need."""

    name: Annotated[str, about("Stable: for programs, and to look one up.")]
    expression: Cron
    description: str
    group: Annotated[str, about("The heading to show it under.")]


class PresetList(Answer, frozen=True, kw_only=True):
    """Expressions by name."""

    count: int
    presets: list[ShownPreset]


class ZonesQuery(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which time zones."""

    text: Annotated[str, about("Only zones whose name contains this, in either case.")] = ""


class ShownZone(Answer, frozen=True, kw_only=True):
    """A time zone."""

    name: Zone
    offset: Annotated[str, about("From UTC, now.", pattern="^[+-][0-9]{2}:[0-9]{2}$")]


class ZoneList(Answer, frozen=True, kw_only=True):
    """The time zones that a trigger can have."""

    count: int
    timezones: list[ShownZone]


@noun.operation("GET", "/cron/validate")
async def validate_cron(query: ValidateQuery) -> Validation:
    """Whether an expression is valid, and when it would run.

    An invalid expression or zone is a good answer, too: `valid` is false and `error` says why.
    """
    try:
        load_zone(query.timezone)
    except InvalidSchedule as error:
        return _invalid("timezone", error)
    try:
        description = describe(query.expression)
    except InvalidSchedule as error:
        return _invalid("expression", error)
    after = datetime.now(UTC) if query.after is None else query.after
    slots = []
    if to_ms(after) < LAST_ASKED_MS:  # the rarest dates are decades apart: a hundred of them take a while
        definition = Definition(cron=query.expression, timezone=query.timezone, url="", method="GET")
        schedule = schedule_of(definition, query.workspace, query.trigger, 0)
        slots = await asyncio.to_thread(schedule.slots, to_ms(max(after, _EPOCH)), query.count)
    return Validation(
        valid=True,
        error=None,
        description=description,
        next_runs=[_local(slot, query.timezone) for slot in slots],
    )


@noun.operation("GET", "/cron/presets")
async def list_presets() -> PresetList:
    """Expressions to choose from by name."""
    presets = [ShownPreset(**msgspec.structs.asdict(preset)) for preset in PRESETS]
    return PresetList(count=len(presets), presets=presets)


@noun.operation("GET", "/timezones")
async def list_timezones(query: ZonesQuery) -> ZoneList:
    """The time zones by name, with their offsets as they are now."""
    wanted = query.text.casefold()
    now = int(time.time()) * 1000
    zones = [
        ShownZone(name=name, offset=_offset(_local(now, name)))
        for name in sorted(zone_names())
        if wanted in name.casefold() and name != "localtime"  # the server's own, under no lasting name
    ]
    return ZoneList(count=len(zones), timezones=zones)


def _invalid(field: str, error: InvalidSchedule) -> Validation:
    return Validation(
        valid=False, error=ScheduleFault(field=field, message=str(error)), description=None, next_runs=[]
    )


def _local(ms: int, zone: str) -> str:
    """A time in RFC 3339 with the zone's offset, in UTC where that offset is no whole number of minutes."""
    local = datetime.fromtimestamp(ms / 1000, load_zone(zone))
    offset = local.utcoffset()
    if offset is None or offset.seconds % 60:
        local = local.astimezone(UTC)
    return local.isoformat(timespec="seconds")


def _offset(moment: str) -> str:
    return moment[-6:]
