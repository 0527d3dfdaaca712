"""The types of a trigger's fields. What is said here is what the API's schema says."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Raw, Struct

from app import formats
from app.clock import INTERVAL_PATTERN, LONGEST_INTERVAL, MOMENT_PATTERN
from app.declared.outcomes import STATUS_PATTERN, TARGET_KINDS, USUAL_RETRIES
from app.formats import Line
from app.models import Delivery, Id, Method, OverlapPolicy, RetryStrategy
from app.schedule.fields import MAX_CRON

DAY = 86_400  # seconds

MOST_TAGS, MOST_CODES = 20, 100  # in one trigger

# A value of any kind: said in full, because an empty schema looks like a forgotten one.
ANY_JSON = {"type": ["object", "array", "string", "number", "boolean", "null"]}

TriggerId = Annotated[
    Id,
    Meta(
        description="The trigger's identity; history follows it. In a set, without one, its index.",
        examples=["nightly-report"],
    ),
]
Name = Annotated[Line, Meta(max_length=256, description="For people.", examples=["Nightly report"])]
Description = Annotated[str, Meta(max_length=4096, description="For people.")]
Tag = Annotated[Line, Meta(min_length=1, max_length=64)]
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
    formats.Cron,
    Meta(
        max_length=MAX_CRON,
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
    formats.GivenMoment,
    Meta(
        pattern=MOMENT_PATTERN,
        description="RFC 3339, or without an offset local time in the trigger's zone: one that the clock"
        " skips means the moment right after the gap, one that it shows twice the first.",
        examples=["2026-03-29T02:30:00Z", "2026-03-29T02:30:00+02:00", "2026-03-29T02:30:00"],
        extra={
            "rule": "expected RFC 3339, such as '2026-03-29T02:30:00Z' or '…+01:00', or without the offset"
            " local time in the trigger's time zone"
        },
    ),
]
Zone = Annotated[
    formats.Zone, Meta(description="IANA name. Default: the workspace's, or UTC.", examples=["Europe/Berlin"])
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
    formats.HttpUrl,
    Meta(
        min_length=1,
        max_length=8192,
        description="http or https, without user and password. Variables may stand after the host.",
        examples=["https://example.com/hook?slot={{scheduled_at.unix}}"],
    ),
]
Verb = Annotated[Method, Meta(description="`GET` and `DELETE` send no payload.")]
MOST_HEADERS, MAX_HEADERS, MAX_PAYLOAD = 100, 32_768, 1_048_576  # how many; bytes of all of them; bytes
MAX_DEPTH = 100  # of a payload: what keeps its values to the letter reads it once for each level

Headers = Annotated[
    dict[formats.HeaderName, formats.HeaderValue],
    Meta(
        description="Sent as they are; values may hold variables. Credentials are masked in answers, and a"
        f" mask sent back keeps what is stored. At most {MOST_HEADERS}, of {MAX_HEADERS:,} bytes together.",
        examples=[{"Authorization": "Bearer YOUR_TOKEN"}],
    ),
]
Payload = Annotated[
    Raw,
    Meta(
        description="Any JSON, sent as it is; a text is sent as text/plain. Strings and names may hold"
        f" variables. Null for none. At most {MAX_PAYLOAD:,} bytes, and {MAX_DEPTH} levels deep.",
        examples=[{"event": "nightly", "at": "{{scheduled_at}}"}, "a=1&b=2"],
    ),
]
ShownPayload = Annotated[Raw, Meta(description="Any JSON; null for none.", extra_json_schema=ANY_JSON)]
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
_RETRY_ON = f"Answers and failures that are tried again. Default: {', '.join(USUAL_RETRIES)}."
_SUCCESS = "Answers that count as success; they go before `retry_on`. Default: 2xx."
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
        description=_RETRY_ON,
        examples=[[429, "5xx", "timeout"]],
    ),
]
SuccessCodes = Annotated[
    list[Status | StatusText],
    Meta(
        min_length=1,
        max_length=MOST_CODES,
        description=_SUCCESS,
        examples=[["2xx", 304]],
    ),
]
RetryOnShown = Annotated[list[RetryOnText], Meta(min_length=1, description=_RETRY_ON)]
SuccessShown = Annotated[list[StatusText], Meta(min_length=1, description=_SUCCESS)]
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


ClockChange = Annotated[
    DstPolicy | None, Meta(description="With `cron`: what clock changes do. Default: as Debian's cron.")
]
