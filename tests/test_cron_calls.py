"""The calls about schedules that need no workspace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime

import httpx
import pytest
from helpers import define

from app.main import create_app
from app.schedule import schedule_of
from app.store import Shard, Shards

pytestmark = pytest.mark.anyio

VALIDATE = "/api/cron/validate"


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(shard.settings, Shards([shard])), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def test_a_valid_expression_shows_its_next_runs_with_the_zones_offset(
    client: httpx.AsyncClient,
) -> None:
    asked = {
        "expression": "0 9 * * *",
        "timezone": "Europe/Berlin",
        "after": "2026-10-24T00:00:00Z",
        "count": "2",
    }
    assert (await client.get(VALIDATE, params=asked)).json() == {
        "valid": True,
        "error": None,
        "description": "At 09:00, every day",
        "next_runs": ["2026-10-24T09:00:00+02:00", "2026-10-25T09:00:00+01:00"],
    }


async def test_five_runs_from_now_are_shown_unless_told_otherwise(client: httpx.AsyncClient) -> None:
    body = (await client.get(VALIDATE, params={"expression": "@hourly"})).json()
    assert len(body["next_runs"]) == 5


async def test_an_offset_that_rfc_3339_cannot_write_is_shown_in_utc(client: httpx.AsyncClient) -> None:
    asked = {
        "expression": "0 0 1 * *",
        "timezone": "Africa/Monrovia",
        "after": "1971-01-01T12:00:00Z",
        "count": 1,
    }
    assert (await client.get(VALIDATE, params=asked)).json()["next_runs"] == ["1971-02-01T00:44:30+00:00"]


@pytest.mark.parametrize("after", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-12:00"])
async def test_moments_at_the_ends_of_the_calendar_are_answered(
    client: httpx.AsyncClient, after: str
) -> None:
    response = await client.get(VALIDATE, params={"expression": "* * * * *", "after": after})
    assert (response.status_code, response.json()["valid"]) == (200, True)


@pytest.mark.parametrize(
    ("asked", "field", "message"),
    [
        ({"expression": "61 * * * *"}, "expression", "minute"),
        ({"expression": "0 0 31 2 *"}, "expression", "never"),
        ({"expression": ""}, "expression", "5 fields"),
        ({"expression": "* * * * *", "timezone": "Mars/Phobos"}, "timezone", "IANA"),
    ],
)
async def test_an_invalid_schedule_is_a_good_answer_that_says_why(
    client: httpx.AsyncClient, asked: dict[str, str], field: str, message: str
) -> None:
    response = await client.get(VALIDATE, params=asked)
    assert response.status_code == 200
    body = response.json()
    assert (body["valid"], body["error"]["field"], body["next_runs"]) == (False, field, [])
    assert message in body["error"]["message"]


async def test_the_slots_of_h_are_those_that_the_trigger_would_have(client: httpx.AsyncClient) -> None:
    def asked(trigger: str) -> dict[str, str]:
        after = "2026-01-01T00:00:00Z"
        return {"expression": "H H * * *", "workspace": "acme", "trigger": trigger, "after": after}

    first, again, other = [
        (await client.get(VALIDATE, params=asked(trigger))).json()["next_runs"] for trigger in "aab"
    ]
    assert first == again != other
    slots = schedule_of(define("H H * * *"), "acme", "a", 0).slots(1_767_225_600_000, 5)
    assert [round(datetime.fromisoformat(run).timestamp() * 1000) for run in first] == slots


async def test_every_preset_is_valid_as_it_stands(client: httpx.AsyncClient) -> None:
    body = (await client.get("/api/cron/presets")).json()
    assert body["count"] == len(body["presets"]) >= 30
    assert len({preset["name"] for preset in body["presets"]}) == body["count"]
    for preset in body["presets"]:
        assert (await client.get(VALIDATE, params={"expression": preset["expression"]})).json()["valid"]


async def test_time_zones_are_found_by_a_part_of_their_name(client: httpx.AsyncClient) -> None:
    found = (await client.get("/api/timezones", params={"text": "kolk"})).json()
    assert found == {"count": 1, "timezones": [{"name": "Asia/Kolkata", "offset": "+05:30"}]}
    everything = (await client.get("/api/timezones")).json()
    assert everything["count"] == len(everything["timezones"]) > 400
    assert {"name": "UTC", "offset": "+00:00"} in everything["timezones"]


async def test_an_expression_is_no_longer_than_anybody_needs(client: httpx.AsyncClient) -> None:
    long = f"{'1,' * 1024}1 * * * *"
    response = await client.get("/api/cron/validate", params={"expression": long})
    assert response.status_code == 400
    assert [fault["path"] for fault in response.json()["errors"]] == ["expression"]
