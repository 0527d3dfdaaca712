"""A trigger as a client declares it and sees it: flat fields, to and from the stored definition."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType, structs

from app.clock import (
    INTERVAL_PATTERN,
    LONGEST_INTERVAL,
    MOMENT_PATTERN,
    parse_interval,
    parse_moment,
    rfc3339,
)
from app.masking import mask_headers
from app.models import (
    Definition,
    Delivery,
    Id,
    Method,
    OverlapPolicy,
    RetryStrategy,
)
from app.outcomes import STATUS_PATTERN, TARGET_KINDS, USUAL_RETRIES, USUAL_SUCCESS, canonical
from app.schedule import load_zone

DAY = 86_400  # seconds

MOST_TAGS, MOST_CODES = 20, 100  # in one trigger

# A value of any kind: said in full, because an empty schema looks like a forgotten one.
ANY_JSON = {"type": ["object", "array", "string", "number", "boolean", "null"]}

# The fields, one by one. What is said here is what the API's schema says.

TriggerId = Annotated[
    Id,
    Meta(
        description="The trigger's identity; history follows it. In a set, without one, its index.",
        examples=["nightly-report"],
    ),
]
Name = Annotated[str, Meta(max_length=256, description="For people.", examples=["Nightly report"])]
Description = Annotated[str, Meta(max_length=4096, description="For people.")]
Tag = Annotated[str, Meta(min_length=1, max_length=64)]
Tags = Annotated[
    list[Tag],
    Meta(
        max_length=MOST_TAGS, description="To find and to handle triggers by.", examples=[["reports", "eu"]]
    ),
]
Enabled = Annotated[
    bool, Meta(description="Part of the definition; without it no slot is due. Default true.")
]
CronText = Annotated[
    str,
    Meta(
        description="Five fields, or six with the seconds first, or a preset such as `@daily`."
        " Exactly one of `cron`, `interval` and `at` is set.",
        examples=["0 9 * * 1-5", "*/30 * * * * *", "@hourly"],
    ),
]
IntervalSeconds = Annotated[
    int,
    Meta(ge=1, le=LONGEST_INTERVAL, description="Seconds between slots, up to 366 days.", examples=[300]),
]
IntervalText = Annotated[
    str,
    Meta(
        pattern=INTERVAL_PATTERN,
        description="Seconds, or days, hours, minutes and seconds in this order, each once; up to 366 days.",
        examples=["5m", "1h30m", "2d", "300"],
    ),
]
Moment = Annotated[
    str,
    Meta(
        pattern=MOMENT_PATTERN,
        description="RFC 3339, or without an offset local time in the trigger's zone: one that the clock"
        " skips means the moment right after the gap, one that it shows twice the first.",
        examples=["2026-03-29T02:30:00Z", "2026-03-29T02:30:00+02:00", "2026-03-29T02:30:00"],
    ),
]
Zone = Annotated[
    str, Meta(description="IANA name. Default: the workspace's, or UTC.", examples=["Europe/Berlin"])
]
MaxRuns = Annotated[
    int, Meta(ge=1, le=1_000_000_000, description="After so many slots the trigger is finished.")
]
Jitter = Annotated[
    int, Meta(ge=0, le=3600, description="Spreads slots over so many seconds, each always alike. Default 0.")
]
StartDeadline = Annotated[
    float,
    Meta(
        gt=0,
        le=31 * DAY,
        description="A slot found later than this is caught up or recorded as missed. Default: the server's.",
    ),
]
Url = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=8192,
        description="http or https, without user and password. Variables may stand after the host.",
        examples=["https://example.com/hook?slot={{scheduled_at.unix}}"],
    ),
]
Headers = Annotated[
    dict[str, str],
    Meta(
        description="Sent as they are; values may hold variables. Credentials are masked in answers, and a"
        " mask sent back keeps what is stored.",
        examples=[{"Authorization": "Bearer …"}],
    ),
]
Payload = Annotated[Raw, Meta(description="Any JSON value; null for none.", extra_json_schema=ANY_JSON)]
Timeout = Annotated[
    float, Meta(gt=0, le=3600, description="Bounds a whole attempt. Default: the workspace's, or 30.")
]
Overlap = Annotated[
    OverlapPolicy,
    Meta(description="What becomes of a slot while an execution before it is still open. Default `allow`."),
]
QueueLimit = Annotated[
    int, Meta(ge=1, le=1000, description="With `overlap_policy` `queue`: how many slots wait. Default 1.")
]
CatchUp = Annotated[
    bool | Literal["all", "latest"],
    Meta(
        description="What becomes of slots after an outage; true means `all`. Default false: they are missed."
    ),
]
CatchUpWindow = Annotated[
    int, Meta(ge=10, le=31 * DAY, description="With `catch_up_missed`: how old a slot may be. Default a day.")
]
Guarantee = Annotated[
    Delivery,
    Meta(
        description="Default `at_least_once`. `at_most_once` tries again only after what provably sent"
        " nothing (`dns`, `connect`), whatever `max_retries` and `retry_on` say."
    ),
]
MaxRetries = Annotated[int, Meta(ge=0, le=100, description="Default: the workspace's, or 3.")]
Strategy = Annotated[
    RetryStrategy,
    Meta(
        description="`exponential` waits 1, 2, 4, 8, 16 s, `linear` 5, 10, 15 s, `fixed` 60 s."
        " Default `exponential`."
    ),
]
RetryDelay = Annotated[
    float, Meta(ge=0, le=DAY, description="The strategy's first delay, in its own's place (1, 5 or 60 s).")
]
RetryMaxDelay = Annotated[
    float,
    Meta(gt=0, le=DAY, description="Bounds every delay, a target's `Retry-After` too. Default 3600."),
]
RetryJitter = Annotated[
    float, Meta(ge=0, le=1, description="The part of each delay that is random. Default 0.")
]
Status = Annotated[int, Meta(ge=100, le=999, examples=[503])]
StatusText = Annotated[str, Meta(pattern=STATUS_PATTERN, examples=["503", "5xx", "500-599"])]
RetryOnText = Annotated[
    str,
    Meta(
        pattern=STATUS_PATTERN.replace("^(", f"^({'|'.join(TARGET_KINDS)}|"),
        examples=["5xx", "timeout"],
    ),
]
RetryOn = Annotated[
    list[Status | RetryOnText],
    Meta(
        min_length=1,
        max_length=MOST_CODES,
        description=f"Answers and failures that are tried again. Default: {', '.join(USUAL_RETRIES)}.",
        examples=[[429, "5xx", "timeout"]],
    ),
]
SuccessCodes = Annotated[
    list[Status | StatusText],
    Meta(
        min_length=1,
        max_length=MOST_CODES,
        description="Answers that count as success; they go before `retry_on`. Default: 2xx.",
        examples=[["2xx", 304]],
    ),
]
DisableOnGone = Annotated[bool, Meta(description="An answer 410 disables the trigger. Default false.")]


class DstPolicy(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a cron schedule does where the clock changes; by default as Debian's cron does."""

    gap: Annotated[
        Literal["after", "skip"] | None,
        Meta(description="Local times that the clock skips: run right after the gap, or not at all."),
    ] = None
    repeat: Annotated[
        Literal["first", "second", "both"] | None,
        Meta(description="Local times that the clock shows twice: which of them."),
    ] = None


_NO_DST = DstPolicy()


class ShownDstPolicy(Struct, frozen=True, kw_only=True):
    """What a cron schedule does where the clock changes; null: as Debian's cron does."""

    gap: Literal["after", "skip"] | None
    repeat: Literal["first", "second", "both"] | None


class Defaults(Struct, frozen=True, kw_only=True):
    """What a trigger that leaves a field out is stored with: a workspace's settings, or the product's own."""

    timezone: str = "UTC"
    timeout_seconds: float = 30.0
    max_retries: int = 3


PRODUCT_DEFAULTS = Defaults()


class TriggerInput(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A trigger as a client declares it. A field that is null is not set."""

    id: TriggerId | None = None
    name: Name | None = None
    description: Description | None = None
    tags: Tags | None = None
    enabled: Enabled | None = None
    cron: CronText | None = None
    interval: IntervalSeconds | IntervalText | None = None
    at: Moment | None = None
    timezone: Zone | None = None
    dst_policy: DstPolicy | None = None
    starts_at: Moment | None = None
    ends_at: Moment | None = None
    max_runs: MaxRuns | None = None
    jitter_seconds: Jitter | None = None
    start_deadline_seconds: StartDeadline | None = None
    url: Url
    method: Method
    headers: Headers | None = None
    payload: Raw | UnsetType = UNSET
    timeout_seconds: Timeout | None = None
    overlap_policy: Overlap | None = None
    queue_limit: QueueLimit | None = None
    catch_up_missed: CatchUp | None = None
    catch_up_window_seconds: CatchUpWindow | None = None
    delivery: Guarantee | None = None
    max_retries: MaxRetries | None = None
    retry_strategy: Strategy | None = None
    retry_delay_seconds: RetryDelay | None = None
    retry_max_delay_seconds: RetryMaxDelay | None = None
    retry_jitter: RetryJitter | None = None
    retry_on: RetryOn | None = None
    success_codes: SuccessCodes | None = None
    disable_on_gone: DisableOnGone | None = None

    def to_definition(self, defaults: Defaults = PRODUCT_DEFAULTS) -> Definition:
        """As it is stored. It must have been checked (:mod:`app.validation`)."""
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
    """A JSON merge patch (RFC 7396) of a trigger's fields: null unsets, objects are merged."""

    url: Url | UnsetType = UNSET  # type: ignore[assignment]
    method: Method | UnsetType = UNSET  # type: ignore[assignment]


class TriggerFields(Struct, frozen=True, kw_only=True):
    """A stored trigger's fields, in a form that is accepted back unchanged. What is not set is null."""

    name: Name | None
    description: Description | None
    tags: Tags
    enabled: Enabled
    cron: CronText | None
    interval: IntervalSeconds | None
    at: Moment | None
    timezone: Zone
    dst_policy: ShownDstPolicy | None
    starts_at: Moment | None
    ends_at: Moment | None
    max_runs: MaxRuns | None
    jitter_seconds: Jitter
    start_deadline_seconds: StartDeadline | None
    url: Url
    method: Method
    headers: Headers
    payload: Payload
    timeout_seconds: Timeout
    overlap_policy: Overlap
    queue_limit: QueueLimit | None
    catch_up_missed: CatchUp
    catch_up_window_seconds: CatchUpWindow | None
    delivery: Guarantee
    max_retries: MaxRetries
    retry_strategy: Strategy
    retry_delay_seconds: RetryDelay | None
    retry_max_delay_seconds: RetryMaxDelay
    retry_jitter: RetryJitter
    retry_on: Annotated[list[RetryOnText], Meta(min_length=1)] | None
    success_codes: Annotated[list[StatusText], Meta(min_length=1)] | None
    disable_on_gone: DisableOnGone


def shown(definition: Definition, mask: bool = True) -> TriggerFields:
    """A stored definition's fields; with ``mask`` without what is likely to be a credential."""
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
        url=d.url,
        method=d.method,
        headers=mask_headers(d.headers) if mask else d.headers,
        payload=Raw(d.payload or b"null"),
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
