"""The formats of strings that mean something, as types: each names its format in the JSON schemas.

The types only say what is meant. Whether a cron expression can be used, say, is checked where it is parsed.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

# What is not in the registry of JSON schema formats; the API's document tells it to its readers.
FORMATS = {
    "cron": "a cron expression: 5 fields, 6 with the seconds first, or a preset such as `@daily`",
    "time-zone": "the name of an IANA time zone, such as `Europe/Berlin`",
    "http-url": "an absolute URL with the scheme `http` or `https`, without credentials",
    "given-moment": "RFC 3339, or without an offset local time in the trigger's zone",
    "cursor": "what the page before gave as `next_cursor`; its form may change",
    "http-header-name": "a name that a trigger may set: not one that frames the message or that we set",
    "webhook-secret": "`whsec_` and the base64 of 24 to 64 random bytes",
    "egress-entry": "a host, a network such as `10.0.0.0/8`, `.example.com` for all below a host, or `*`",
    "http-header-value": "printable ASCII without a space at either end",
}

# Without what ends a line, and what a terminal would obey.
_LINE_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"

Line = Annotated[str, Meta(pattern=_LINE_PATTERN)]
Cron = Annotated[str, Meta(extra_json_schema={"format": "cron"})]
Zone = Annotated[str, Meta(extra_json_schema={"format": "time-zone"})]
HttpUrl = Annotated[str, Meta(extra_json_schema={"format": "http-url"})]
HeaderName = Annotated[str, Meta(extra_json_schema={"format": "http-header-name"})]
HeaderValue = Annotated[str, Meta(extra_json_schema={"format": "http-header-value"})]
GivenMoment = Annotated[str, Meta(extra_json_schema={"format": "given-moment"})]
Cursor = Annotated[str, Meta(extra_json_schema={"format": "cursor"})]
Moment = Annotated[str, Meta(extra_json_schema={"format": "date-time"})]
WebhookSecret = Annotated[str, Meta(extra_json_schema={"format": "webhook-secret"})]
EgressEntry = Annotated[str, Meta(extra_json_schema={"format": "egress-entry"})]


def in_words(message: str) -> str:
    """What msgspec says of a value, without the pattern of a line in it."""
    return "Expected one line without control characters" if repr(_LINE_PATTERN) in message else message
