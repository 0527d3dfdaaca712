"""What of a definition is shown to whom, and what a mask that comes back stands for."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from calls import ACME, bearer, client_of, key_for, ok, refused, store_set
from conftest import ShardFactory
from examples import ADMIN_KEY
from helpers import define

from app.auth.callers import Scope
from app.declared.checks import TYPES
from app.declared.masking import MASK, View, mask_headers, mask_payload, mask_url, unmask
from app.errors import MOST_FAULTS
from app.store import Shard

LONG = "T0Pe3secretinapath0Qz"


@pytest.mark.parametrize(
    ("url", "usual", "structure"),
    [
        ("https://a.example/x", None, None),
        ("https://a.example", None, None),
        ("https://a.example/x?page=2", None, f"https://a.example/x?page={MASK}"),
        (
            "https://a.example/?token=t&a=1",
            f"https://a.example/?token={MASK}&a=1",
            f"https://a.example/?token={MASK}&a={MASK}",
        ),
        (
            "https://a.example?api_key=t",
            f"https://a.example?api_key={MASK}",
            f"https://a.example?api_key={MASK}",
        ),
        ("https://a.example/?author=a", None, f"https://a.example/?author={MASK}"),
        ("https://a.example/?flag", None, f"https://a.example/?{MASK}"),
        ("https://a.example/?a=", None, None),
        ("https://a.example/?key={{secret.KEY}}&at={{scheduled_at.unix}}", None, None),
        (
            "https://a.example/?key=a{{attempt}}",
            f"https://a.example/?key={MASK}",
            f"https://a.example/?key={MASK}",
        ),
        (f"https://a.example/hooks/{LONG}", None, f"https://a.example/hooks/{MASK}"),
        ("https://a.example/nightly-reports-of-europe", None, None),
        ("https://a.example/x#part", None, f"https://a.example/x#{MASK}"),
    ],
)
def test_a_url_is_shown_without_values(url: str, usual: str | None, structure: str | None) -> None:
    assert mask_url(url, View.ALL) == url
    assert mask_url(url, View.USUAL) == (usual or url)
    assert mask_url(url, View.STRUCTURE) == (structure or url)


def test_headers_are_shown_by_what_they_are() -> None:
    headers = {
        "Authorization": "Bearer x",
        "X-Plain": "y",
        "Content-Type": "text/csv",
        "X-Token": "{{secret.T}}",
    }
    masked = {"Authorization": MASK, "X-Plain": MASK, "Content-Type": "text/csv", "X-Token": "{{secret.T}}"}
    assert mask_headers(headers, View.ALL) == headers
    assert mask_headers(headers, View.USUAL) == {**masked, "X-Plain": "y"}
    assert mask_headers(headers, View.STRUCTURE) == masked


@pytest.mark.parametrize(
    ("payload", "structure"),
    [
        ("", ""),
        ('"a=1&b=2"', f'"{MASK}"'),
        ("7", f'"{MASK}"'),
        (
            '{"a":[1,"x",true,null,{"b":""}],"at":"{{scheduled_at}}"}',
            f'{{"a":["{MASK}","{MASK}","{MASK}",null,{{"b":""}}],"at":"{{{{scheduled_at}}}}"}}',
        ),
        ("[" * 20_000 + "]" * 20_000, f'"{MASK}"'),
    ],
)
def test_a_payload_is_shown_without_values(payload: str, structure: str) -> None:
    assert mask_payload(payload.encode(), View.USUAL).decode() == payload
    assert mask_payload(payload.encode(), View.STRUCTURE).decode() == structure


STORED = define(
    url=f"https://a.example/{LONG}/x?a=1&token=t1&token=t2&flag",
    headers={"X-A": "a", "X-B": "b"},
    payload=b'{"a":[1.5,{"b":"x"}],"c":"y"}',
)


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        (
            {"url": f"https://b.example/{MASK}/y?token={MASK}&token={MASK}&a={MASK}"},
            {"url": f"https://b.example/{LONG}/y?token=t1&token=t2&a=1"},
        ),
        ({"url": f"https://a.example/?{MASK}"}, {"url": "https://a.example/?flag"}),
        ({"headers": {"X-B": MASK}}, {"headers": {"X-B": "b"}}),
        ({"payload": b'{"a":["********",{"b":"new"}]}'}, {"payload": b'{"a":[1.5,{"b":"new"}]}'}),
        ({"payload": b'"********"'}, {"payload": STORED.payload}),
        ({"payload": b'{"a":"not ******** alone"}'}, {"payload": b'{"a":"not ******** alone"}'}),
    ],
)
def test_a_mask_stands_for_what_is_stored(given: dict[str, Any], wanted: dict[str, Any]) -> None:
    plain: dict[str, Any] = {"url": STORED.url, "headers": STORED.headers, "payload": STORED.payload}
    assert unmask(define(**{**plain, **given}), STORED) == (define(**{**plain, **wanted}), [])


@pytest.mark.parametrize(
    ("given", "places"),
    [
        ({"url": f"https://a.example/?other={MASK}"}, ["url"]),
        ({"url": f"https://a.example/a/b/c/{MASK}"}, ["url"]),
        ({"url": f"https://a.example/?token={MASK}&token={MASK}&token={MASK}"}, ["url"]),
        ({"url": f"https://{MASK}/"}, ["url"]),
        ({"headers": {"X-C": MASK}}, ["headers['X-C']"]),
        ({"payload": b'{"a":[1,2,"********"],"d":{"e":"********"}}'}, ["payload.a[2]", "payload.d.e"]),
    ],
)
def test_a_mask_that_stands_for_nothing_is_told(given: dict[str, Any], places: list[str]) -> None:
    plain: dict[str, Any] = {"headers": {}, "payload": b""}
    assert unmask(define(**{**plain, **given}), STORED)[1] == places
    assert unmask(define(**{**plain, **given}), None)[1] == places


@pytest.fixture
async def guarded(make_shard: ShardFactory) -> Shard:
    shard = make_shard(auth="tokens", admin_key=ADMIN_KEY)
    await store_set(shard, one=STORED)
    return shard


def test_the_places_of_masks_take_no_more_memory_than_a_body() -> None:
    payload = msgspec.json.encode({"n" * 10_000: [MASK] * 3000})  # 60 kB, whose places would take 30 MB
    _, strange = unmask(define(payload=payload), None)
    assert len(strange) == MOST_FAULTS
    assert sum(map(len, strange)) < 200_000
    assert strange[7] == f"payload.{'n' * 100}[7]"


@pytest.mark.anyio
@pytest.mark.parametrize("scope", ["read", "operate", "write", "admin"])
async def test_what_is_masked_is_shown_on_demand_to_those_who_may_change_it(
    guarded: Shard, scope: Scope
) -> None:
    async with client_of(guarded) as client:
        client.headers.update(bearer(await key_for(client, scope, "acme")))
        usual = (await ok(client.get(f"{ACME}/triggers/one")))["trigger"]
        for path in ("triggers", "triggers/one", "revisions/1", "revisions/1/diff"):
            asked = client.get(f"{ACME}/{path}?reveal=true")
            if scope in ("write", "admin"):
                await ok(asked)
            else:
                await refused(asked, 403, "forbidden")
        if scope in ("write", "admin"):
            assert usual["url"] == mask_url(STORED.url)
            assert usual["headers"] == STORED.headers
            revealed = (await ok(client.get(f"{ACME}/triggers/one?reveal=true")))["trigger"]
            assert revealed["url"] == STORED.url
        else:
            assert usual["url"] == mask_url(STORED.url, View.STRUCTURE)
            assert usual["headers"] == dict.fromkeys(STORED.headers, MASK)
            assert usual["payload"] == {"a": [MASK, {"b": MASK}], "c": MASK}


@pytest.mark.anyio
async def test_nobody_finds_a_trigger_by_what_they_are_not_shown(guarded: Shard) -> None:
    async with client_of(guarded) as client:
        reader, writer = [bearer(await key_for(client, scope, "acme")) for scope in ("read", "write")]
        for text, counts in (("a.example", (1, 1)), ("a=1", (0, 1)), ("token=t1", (0, 0)), (LONG, (0, 1))):
            found = [
                (await ok(client.get(f"{ACME}/triggers", params={"q": text}, headers=key)))["count"]
                for key in (reader, writer)
            ]
            assert tuple(found) == counts, text
        revealed = client.get(f"{ACME}/triggers?q=token%3Dt1&reveal=true", headers=writer)
        assert (await ok(revealed))["count"] == 1


@pytest.mark.anyio
@pytest.mark.parametrize("scope", ["read", "write"])
async def test_an_answer_that_is_put_back_changes_nothing(guarded: Shard, scope: Scope) -> None:
    async with client_of(guarded) as client:
        reader, writer = [bearer(await key_for(client, one, "acme")) for one in (scope, "write")]
        jobs = (await ok(client.get(f"{ACME}/triggers", headers=reader)))["jobs"]
        given = [{name: one[name] for name in one if name in TYPES} for one in jobs]
        done = await ok(client.put(f"{ACME}/triggers", json={"triggers": given}, headers=writer))
        assert done["changes"]["unchanged"] == 1
        put = await ok(client.put(f"{ACME}/triggers/one", json=given[0], headers=writer))
        assert put["revision"] == 1
        patched = await ok(client.patch(f"{ACME}/triggers/one", json=given[0], headers=writer))
        assert patched["revision"] == 1
        problem = await refused(
            client.put(f"{ACME}/triggers/two", json={**given[0], "id": "two"}, headers=writer),
            400,
            "invalid_request",
        )
        assert {fault["path"] for fault in problem["errors"]} >= {"url"}


@pytest.mark.anyio
async def test_the_audit_tells_that_a_secret_changed_and_not_what_it_was(guarded: Shard) -> None:
    async with client_of(guarded) as client:
        client.headers.update(bearer(ADMIN_KEY))
        change = {"url": "https://a.example/?a=2", "payload": {"a": "new"}, "headers": {"X-A": "new"}}
        await ok(client.patch(f"{ACME}/triggers/one", json=change))
        (entry,) = (await ok(client.get(f"{ACME}/audit?action=patch_trigger")))["entries"]
        assert entry["before"]["url"] == mask_url(STORED.url, View.STRUCTURE)
        assert entry["after"] == {
            "url": f"https://a.example/?a={MASK}",
            "headers['X-A']": MASK,
            "payload": {"a": MASK, "c": MASK},
        }
        diff = await ok(client.get(f"{ACME}/revisions/1/diff"))
        fields = {one["field"]: one for one in diff["triggers"][0]["fields"]}
        assert fields["url"]["old"] == mask_url(STORED.url)
        assert (fields["url"]["masked"], fields["headers['X-A']"]["masked"]) == (True, False)
