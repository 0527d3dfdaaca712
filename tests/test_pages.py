"""Calls by web pages while authentication is off; with it, they have no key."""

from __future__ import annotations

from typing import Any

import pytest
from calls import ACME, client_of, refused
from conftest import ShardFactory
from examples import ADMIN_KEY

pytestmark = pytest.mark.anyio

LOCAL = "localhost:3000"


async def status(make_shard: ShardFactory, method: str, headers: dict[str, str], **settings: Any) -> int:
    """What a call with some headers is answered."""
    async with client_of(make_shard(auth="none", **settings)) as client:
        if method == "GET":
            response = await client.get("/api/stats", headers=headers)
        else:
            response = await client.request(method, ACME, json={}, headers=headers)
    if response.status_code == 403:
        assert response.json()["code"] == "foreign_page"
    return response.status_code


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": f"http://{LOCAL}"},
        {"origin": f"http://{LOCAL.upper()}"},
        {"sec-fetch-site": "same-origin", "origin": f"http://{LOCAL}"},
        {"sec-fetch-site": "none"},
    ],
)
async def test_programs_and_the_apis_own_pages_may_change_things(
    make_shard: ShardFactory, headers: dict[str, str]
) -> None:
    assert await status(make_shard, "PUT", {"host": LOCAL, **headers}) == 201


@pytest.mark.parametrize(
    "headers",
    [
        {"sec-fetch-site": "cross-site", "origin": "https://evil.example"},
        {"sec-fetch-site": "same-site", "origin": "http://localhost:5173"},
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example"},
        {"origin": "http://localhost:5173"},
        {"origin": "null"},
        {"origin": ""} | {"sec-fetch-site": "cross-site"},
        {"origin": f"http://{LOCAL}.evil.example"},
        {"origin": f"http://{LOCAL}@evil.example"},
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "DELETE", "POST"])
async def test_pages_of_other_sites_may_change_nothing(
    make_shard: ShardFactory, method: str, headers: dict[str, str]
) -> None:
    if method == "POST":
        async with client_of(make_shard(auth="none")) as client:
            call = client.post(f"{ACME}/triggers", json={"triggers": []}, headers={"host": LOCAL, **headers})
            await refused(call, 403, "foreign_page")
    else:
        assert await status(make_shard, method, {"host": LOCAL, **headers}) == 403
        assert (
            await status(make_shard, "GET", {"host": LOCAL, **headers}) == 200
        )  # no page may read the answer


@pytest.mark.parametrize(
    ("host", "allowed", "wanted"),
    [
        ("localhost", "", 200),
        ("LOCALHOST:3000", "", 200),
        ("demo.localhost:3000", "", 200),
        ("127.0.0.1:3000", "", 200),
        ("[::1]:3000", "", 200),
        ("10.1.2.3", "", 200),  # of a probe; a name can be made to point here, an address can't
        ("evil.example", "", 403),
        ("localhost.evil.example", "", 403),
        ("evillocalhost", "", 403),
        ("127.0.0.1.evil.example", "", 403),
        ("[::1", "", 403),
        ("cronspace.internal", "cronspace.internal, .example.com", 200),
        ("jobs.example.com:80", "cronspace.internal, .example.com", 200),
        ("example.com.evil.example", "cronspace.internal, .example.com", 403),
        ("whatever.example", "*", 200),
    ],
)
async def test_names_that_point_here_without_being_ours_are_refused(
    make_shard: ShardFactory, host: str, allowed: str, wanted: int
) -> None:
    assert await status(make_shard, "GET", {"host": host}, allowed_hosts=allowed) == wanted


async def test_the_name_that_the_api_listens_on_is_ours(make_shard: ShardFactory) -> None:
    assert await status(make_shard, "GET", {"host": "cron.internal"}, host="cron.internal") == 200


async def test_with_authentication_a_key_decides(make_shard: ShardFactory) -> None:
    headers = {"host": "cron.example.com", "origin": "https://other.example", "sec-fetch-site": "cross-site"}
    async with client_of(make_shard(auth="tokens", admin_key=ADMIN_KEY)) as client:
        assert (await client.put(ACME, json={}, headers=headers)).status_code == 401
        with_key = {**headers, "authorization": f"Bearer {ADMIN_KEY}"}
        assert (await client.put(ACME, json={}, headers=with_key)).status_code == 201
