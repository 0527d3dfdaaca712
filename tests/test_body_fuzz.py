"""Bodies of any shape: what is not accepted is a problem that says where, and never a fault of ours."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
from calls import ACME
from conftest import Clock
from examples import ONE
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from strategies import examples

from app.config import Settings
from app.declared.inputs import TriggerInput
from app.main import create_app
from app.store import Shard, Shards, connect

FIELDS = sorted(TriggerInput.__struct_fields__)

# Numbers that overflow, text with what is special to JSON, cron, URLs and Redis, and lone surrogates.
odd_texts = st.sampled_from(
    [
        "",
        "\x00",
        "\ud800",
        "{{",
        "{{now}}",
        "*" * 300,
        "* * * * *",
        "@daily",
        "../..",
        "http://",
        "a:b",
        "0",
        "\uff0d\uff11",
    ]
)
leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([2**53, -(2**63), 2**64, 10**400])
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20)
    | odd_texts
)
names = st.sampled_from(FIELDS) | st.sampled_from(["triggers", "Cron", "corn"]) | st.text(max_size=8)
anything = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
    max_leaves=25,
)
# Nearly good triggers reach further into the checks than anything does.
nearly = st.dictionaries(st.sampled_from(FIELDS), anything, max_size=4).map(lambda odd: {**ONE, **odd})


def nested(depth: int, kind: str) -> bytes:
    """Arrays or objects within one another."""
    start = "[" if kind == "[]" else '{"payload":'
    return (start * depth + "1" + kind[1] * depth).encode()


deep = st.builds(nested, st.integers(1, 3000), st.sampled_from(["[]", "{}"]))


def encode(value: Any) -> bytes:
    return value if isinstance(value, bytes) else json.dumps(value).encode()


triggers = (anything | nearly | deep).map(encode)
sets = st.one_of(
    anything.map(encode),
    st.fixed_dictionaries({"triggers": st.lists(nearly | anything, max_size=4) | anything}).map(encode),
    triggers.map(lambda one: b'{"triggers":[' + one + b"]}"),
    st.binary(max_size=40),
)


def judge(response: httpx.Response) -> None:
    """A good answer, or a problem that names what is wrong and where."""
    if response.is_success:
        return
    assert response.status_code in (400, 409, 413), response.text
    assert response.headers["content-type"] == "application/problem+json"
    told = response.json()
    assert told["success"] is False
    assert told["status"] == response.status_code
    if response.status_code == 400:
        assert told["code"] == "invalid_request"
        assert told["errors"]
        for fault in told["errors"]:
            assert fault["message"]
            assert isinstance(fault["path"], str)


@settings(examples(80), suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(sets, triggers)
@example(b"{}", encode(ONE | {"payload": {"a": [10**400]}}))
@example(b"{}", encode(ONE | {"payload": -(2**64)}))
@example(b'{"triggers":' + nested(100_000, "[]") + b"}", nested(100_000, "{}"))
def test_whatever_a_body_holds_it_is_accepted_or_refused_with_its_paths(
    redis_url: str, replacing: bytes, one: bytes
) -> None:
    async def send() -> None:
        options = Settings(redis_url=redis_url)
        shard = Shard(connect(options), options, now=Clock())
        served = httpx.ASGITransport(create_app(options, Shards([shard])), raise_app_exceptions=True)
        try:
            await shard.redis.flushdb()
            async with httpx.AsyncClient(transport=served, base_url="http://localhost") as client:
                judge(await client.put(f"{ACME}/triggers", content=replacing))
                judge(await client.post(f"{ACME}/triggers/new", content=one))
                judge(await client.put(f"{ACME}/triggers/t", content=one))
                await client.put(f"{ACME}/triggers/there", json=ONE | {"id": "there"})
                judge(await client.patch(f"{ACME}/triggers/there", content=one))
                assert (await client.get(f"{ACME}/triggers")).is_success
        finally:
            await shard.redis.aclose()

    asyncio.run(send())
