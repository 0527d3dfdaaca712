"""What schemathesis has to know beside the document: values of our formats, and rules between fields.

Loaded by the schemathesis process that ``test_openapi.py`` starts.
"""

from __future__ import annotations

from typing import Any
from zoneinfo import available_timezones

import schemathesis
from hypothesis import strategies as st

from app.formats import FORMATS
from app.store.executions import _write_cursor

_CRONS = [
    "* * * * *",
    "*/5 9-17 * * 1-5",
    "0 0 1 1 *",
    "30 2 L * *",
    "0 0 * * 5#2",
    "*/10 * * * * *",
    "@daily",
]
_HOSTS = st.sampled_from(["example.com", "api.example.com:8443", "127.0.0.1:9", "[::1]:9"])
_URLS = st.builds(
    "{}://{}/{}".format,
    st.sampled_from(["http", "https"]),
    _HOSTS,
    st.text("abcxyz019-._~", max_size=12),
)
_VALUE = st.text([chr(code) for code in range(33, 127)], max_size=20)

VALUES = {
    "cron": st.sampled_from(_CRONS),
    "time-zone": st.sampled_from(sorted(available_timezones() - {"localtime"})),
    "http-url": _URLS,
    "cursor": st.integers(0, 10**13).map(lambda slot: _write_cursor((slot, f"acme:t:{slot}"))),
    "http-header-name": st.text("ABCxyz019-_", min_size=1, max_size=12).map("X-{}".format),
    "http-header-value": _VALUE.filter(lambda value: set(value) != {"*"}),  # a mask stands for a stored value
}
assert set(VALUES) == set(FORMATS)

for name, values in VALUES.items():
    schemathesis.openapi.format(name, values)


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """What no schema can say: ids differ within a set. And 5.0 is a number of ours, but no whole one."""
    body = _whole(body)
    triggers = body.get("triggers") if isinstance(body, dict) else None
    if isinstance(triggers, list):
        for index, trigger in enumerate(triggers):
            if isinstance(trigger, dict) and isinstance(trigger.get("id"), str):
                trigger["id"] = f"{trigger['id'][:100]}-{index}"
    return body


def _whole(value: Any) -> Any:
    """To JSON schema, 5.0 is an integer; to our types it is a float, and refused where a count is wanted."""
    if isinstance(value, dict):
        return {name: _whole(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_whole(one) for one in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
