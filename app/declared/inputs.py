"""A trigger as a client declares it and sees it: flat fields, to and from the stored definition."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from app.clock import parse_interval, parse_moment, rfc3339
from app.declared import fields as of
from app.declared.fields import DstPolicy
from app.declared.masking import View, mask_headers, mask_payload, mask_url
from app.declared.outcomes import USUAL_RETRIES, USUAL_SUCCESS, canonical
from app.models import Definition
from app.schedule.zones import load_zone

_NO_DST = DstPolicy()


class ShownDstPolicy(Struct, frozen=True, kw_only=True):
    """What a cron schedule does where the clock changes; null: as Debian's cron does."""

    gap: Literal["after", "skip"] | None
    repeat: Literal["first", "second", "both"] | None


class Defaults(Struct, frozen=True, kw_only=True):
    """What a trigger that leaves a field out is stored with: a workspace's settings, or the product's own.
    Beside that the longest time-out of the deployment.
    """

    timezone: str = "UTC"
    timeout_seconds: float = 30.0
    max_retries: int = 3
    max_timeout_seconds: float = 3600.0


PRODUCT_DEFAULTS = Defaults()


class TriggerInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trigger as a client declares it. A field that is null is not set."""

    id: of.TriggerId | None = None
    name: of.Name | None = None
    description: of.Description | None = None
    tags: of.Tags | None = None
    enabled: of.Enabled | None = None
    cron: of.CronText | None = None
    interval: of.IntervalSeconds | of.IntervalText | None = None
    at: of.Moment | None = None
    timezone: of.Zone | None = None
    dst_policy: of.ClockChange = None
    starts_at: of.Moment | None = None
    ends_at: of.Moment | None = None
    max_runs: of.MaxRuns | None = None
    jitter_seconds: of.Jitter | None = None
    start_deadline_seconds: of.StartDeadline | None = None
    url: of.Url
    method: of.Verb
    headers: of.Headers | None = None
    payload: of.Payload | UnsetType = UNSET
    timeout_seconds: of.Timeout | None = None
    overlap_policy: of.Overlap | None = None
    queue_limit: of.QueueLimit | None = None
    catch_up_missed: of.CatchUp | None = None
    catch_up_window_seconds: of.CatchUpWindow | None = None
    delivery: of.Guarantee | None = None
    max_retries: of.MaxRetries | None = None
    retry_strategy: of.Strategy | None = None
    retry_delay_seconds: of.RetryDelay | None = None
    retry_max_delay_seconds: of.RetryMaxDelay | None = None
    retry_jitter: of.RetryJitter | None = None
    retry_on: of.RetryOn | None = None
    success_codes: of.SuccessCodes | None = None
    disable_on_gone: of.DisableOnGone | None = None

    def to_definition(self, defaults: Defaults = PRODUCT_DEFAULTS) -> Definition:
        """As it is stored. It must have been checked (:mod:`app.declared`)."""
        zone = self.timezone or defaults.timezone
        timeout, retries = self.timeout_seconds, self.max_retries
        common = Definition(
            cron=self.cron or "",
            timezone=zone,
            enabled=self.enabled is not False,
            url=self.url,
            method=self.method,
            headers=self.headers or {},
            payload=stored_payload(self.payload),
            timeout_seconds=defaults.timeout_seconds if timeout is None else timeout,
            max_retries=defaults.max_retries if retries is None else retries,
            name=self.name or "",
            description=self.description or "",
            tags=tuple(dict.fromkeys(self.tags)) if self.tags else (),
        )
        further = _further(self)
        if further == _NOTHING:  # as most triggers: a set of thousands is to be stored soon
            return common
        given = {name: value for name, value in zip(_FURTHER, further, strict=True) if value is not None}
        for name, convert in _STORED.items():
            if name in given:
                given[name] = convert(given[name], zone)
        dst: DstPolicy = given.pop("dst_policy", _NO_DST)
        return structs.replace(common, dst_gap=dst.gap or "", dst_repeat=dst.repeat or "", **given)


# Fields that few triggers have, and how those are stored that are not stored as they are given.
_FURTHER = (
    "interval",
    "at",
    "dst_policy",
    "starts_at",
    "ends_at",
    "max_runs",
    "jitter_seconds",
    "start_deadline_seconds",
    "overlap_policy",
    "queue_limit",
    "catch_up_missed",
    "catch_up_window_seconds",
    "delivery",
    "retry_strategy",
    "retry_delay_seconds",
    "retry_max_delay_seconds",
    "retry_jitter",
    "retry_on",
    "success_codes",
    "disable_on_gone",
)
_further = attrgetter(*_FURTHER)
_NOTHING = (None,) * len(_FURTHER)


def _stored_moment(text: str, zone: str) -> int:
    return parse_moment(text, load_zone(zone))


def _stored_codes(usual: tuple[str, ...]) -> Callable[[list[int | str], str], tuple[str, ...]]:
    def convert(given: list[int | str], _: str) -> tuple[str, ...]:
        found = canonical(given)
        return () if found == usual else found

    return convert


_STORED: dict[str, Callable[[Any, str], object]] = {
    "interval": lambda given, _: parse_interval(given),
    "at": _stored_moment,
    "starts_at": _stored_moment,
    "ends_at": _stored_moment,
    "catch_up_missed": lambda given, _: "all" if given is True else given or "",
    "retry_on": _stored_codes(USUAL_RETRIES),
    "success_codes": _stored_codes(USUAL_SUCCESS),
}


class ReplaceInput(Struct, frozen=True, forbid_unknown_fields=True):
    """The body of a replace."""

    triggers: Annotated[list[TriggerInput], Meta(description="The whole set, in the order to show it in.")]


class PatchInput(TriggerInput, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A JSON merge patch (RFC 7396) of a trigger's fields: null unsets, objects are merged.

    So a patch can't put a null into an object that is the payload; a PUT of the whole trigger can.
    """

    # What a whole trigger needs may be left out here: wider than in the class above, which is meant.
    url: of.Url | UnsetType = UNSET  # type: ignore[assignment]
    method: of.Verb | UnsetType = UNSET  # type: ignore[assignment]


class TriggerFields(Struct, frozen=True, kw_only=True):
    """A stored trigger's fields, in a form that is accepted back unchanged. What is not set is null."""

    name: of.Name | None
    description: of.Description | None
    tags: of.Tags
    enabled: of.Enabled
    cron: of.CronText | None
    interval: of.IntervalSeconds | None
    at: of.Moment | None
    timezone: of.Zone
    dst_policy: Annotated[
        ShownDstPolicy | None, Meta(description="Null: as Debian's cron does at clock changes.")
    ]
    starts_at: of.Moment | None
    ends_at: of.Moment | None
    max_runs: of.MaxRuns | None
    jitter_seconds: of.Jitter
    start_deadline_seconds: of.StartDeadline | None
    url: of.Url
    method: of.Verb
    headers: of.Headers
    payload: of.ShownPayload
    timeout_seconds: of.Timeout
    overlap_policy: of.Overlap
    queue_limit: of.QueueLimit | None
    catch_up_missed: of.CatchUp
    catch_up_window_seconds: of.CatchUpWindow | None
    delivery: of.Guarantee
    max_retries: of.MaxRetries
    retry_strategy: of.Strategy
    retry_delay_seconds: of.RetryDelay | None
    retry_max_delay_seconds: of.RetryMaxDelay
    retry_jitter: of.RetryJitter
    retry_on: of.RetryOnShown | None
    success_codes: of.SuccessShown | None
    disable_on_gone: of.DisableOnGone


def shown(definition: Definition, view: View = View.USUAL) -> TriggerFields:
    """A stored definition's fields, masked as the view has it."""
    d = definition
    dst = ShownDstPolicy(gap=d.dst_gap or None, repeat=d.dst_repeat or None)
    return TriggerFields(
        name=d.name or None,
        description=d.description or None,
        tags=list(d.tags),
        enabled=d.enabled,
        cron=d.cron or None,
        interval=d.interval or None,
        at=_shown_moment(d.at),
        timezone=d.timezone,
        dst_policy=dst if d.dst_gap or d.dst_repeat else None,
        starts_at=_shown_moment(d.starts_at),
        ends_at=_shown_moment(d.ends_at),
        max_runs=d.max_runs or None,
        jitter_seconds=d.jitter_seconds,
        start_deadline_seconds=d.start_deadline_seconds,
        url=mask_url(d.url, view),
        method=d.method,
        headers=mask_headers(d.headers, view),
        payload=Raw(mask_payload(d.payload, view) or b"null"),
        timeout_seconds=d.timeout_seconds,
        overlap_policy=d.overlap_policy,
        queue_limit=d.queue_limit if d.overlap_policy == "queue" else None,
        catch_up_missed=d.catch_up_missed or False,
        catch_up_window_seconds=d.catch_up_window_seconds if d.catch_up_missed else None,
        delivery=d.delivery,
        max_retries=d.max_retries,
        retry_strategy=d.retry_strategy,
        retry_delay_seconds=d.retry_delay_seconds,
        retry_max_delay_seconds=d.retry_max_delay_seconds,
        retry_jitter=d.retry_jitter,
        retry_on=list(d.retry_on) or None,
        success_codes=list(d.success_codes) or None,
        disable_on_gone=d.disable_on_gone,
    )


_ESCAPED_BRACE = re.compile(rb"(?<!\\)((?:\\\\)*)\\u007[bB]")


def stored_payload(payload: Raw | UnsetType) -> bytes:
    """The JSON text of a payload as it is stored: without insignificant space, and empty for null.

    An opening brace never stays escaped, so that what looks like a variable is one in every way of writing.
    """
    if payload is UNSET:
        return b""
    text = msgspec.json.format(bytes(payload), indent=-1)
    if b"\\u007" in text:
        text = _ESCAPED_BRACE.sub(rb"\1{", text)
    return b"" if text == b"null" else text


def _shown_moment(ms: int) -> str | None:
    return rfc3339(ms) if ms else None
