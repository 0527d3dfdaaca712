"""The declaring of operations: what is read from a request, and what an answer can have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Annotated, Any, Literal

import httpx
import msgspec
import pytest
from msgspec import Meta

from app.api.fields import Answer, WorkspaceId, about
from app.api.openapi import document_of
from app.api.operations import Call, Noun, routes_of
from app.errors import MOST_FAULTS
from app.main import create_app
from app.models import State
from app.store import Shard, Shards

pytestmark = pytest.mark.anyio

noun = Noun("things", "For these tests.", "/things")


class Query(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    number: Annotated[int, Meta(ge=1, le=9)] = 5
    part: Annotated[float, Meta(gt=0)] = 0.5
    flag: bool = False
    state: State | None = None
    order: Literal["newest", "oldest"] = "newest"
    tags: list[str] = []
    numbers: Annotated[list[int], Meta(max_length=3)] = []
    begin: Annotated[datetime, Meta(tz=True)] | None = msgspec.field(name="from", default=None)


class Conditions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    if_match: Annotated[str | None, about("The revision that is there.")] = None


class Note(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    note: Annotated[str, Meta(max_length=5)] = ""
    times: list[Annotated[int, Meta(ge=0)]] = []
    by: str | None = None
    kind: Literal["short", "long"] = "short"


class Echo(Answer, frozen=True, kw_only=True):
    """What arrived."""

    seen: Annotated[str, about("As Python shows it.")]
    extra: str = "always sent"


@noun.operation("GET")
async def list_things(query: Query) -> Echo:
    """Things."""
    return Echo(seen=repr(query))


@noun.operation("POST", "/{workspace_id}/notes", status=(200, 201), headers={"ETag": "The revision."})
async def add_note(call: Call, workspace_id: WorkspaceId, headers: Conditions, body: Note | None) -> Echo:
    """Add a note.

    More about it.
    """
    call.status = 200 if body is None else 201
    call.headers["etag"] = '"7"'
    return Echo(seen=repr((workspace_id, headers.if_match, body)))


@noun.operation("PUT", "/{workspace_id}/notes")
async def put_note(workspace_id: WorkspaceId, body: Note) -> Echo:
    """Put a note."""
    return Echo(seen=repr(body))


@noun.operation("GET", "/{workspace_id}/latest")
async def latest(workspace_id: WorkspaceId) -> Echo:
    """A word in the place of a parameter."""
    return Echo(seen="latest of " + workspace_id)


@noun.operation("GET", "/{workspace_id}/{name}")
async def named(workspace_id: WorkspaceId, name: Annotated[str, about("A name.")]) -> Echo:
    """A parameter in the place of a word."""
    return Echo(seen=name)


@pytest.fixture
async def client(shard: Shard) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(shard.settings, Shards([shard]))
    app.router.routes[:] = routes_of([noun])
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("number=9", "number=9"),
        ("part=2.5", "part=2.5"),
        ("part=2", "part=2.0"),
        ("flag=true", "flag=True"),
        ("state=missed", "state=<State.MISSED: 'missed'>"),
        ("order=oldest", "order='oldest'"),
        ("tags=a,b", "tags=['a', 'b']"),
        ("numbers=1,2,3", "numbers=[1, 2, 3]"),
        ("from=2026-01-31T09:00:00%2B01:00", "begin=datetime.datetime(2026, 1, 31, 9, 0, "),
    ],
)
async def test_a_query_is_read_into_its_types(client: httpx.AsyncClient, text: str, shown: str) -> None:
    assert shown in (await client.get(f"/things?{text}")).json()["seen"]


@pytest.mark.parametrize(
    ("text", "path", "message"),
    [
        ("number=0", "number", "a whole number from 1 to 9"),
        ("number=%2B5", "number", "a whole number"),
        ("number=5.0", "number", "a whole number"),
        ("number=05", "number", "a whole number"),
        ("number=", "number", "a whole number"),
        ("number=5&number=6", "number", "more than once"),
        ("part=nan", "part", "a number above 0"),
        ("part=1e3", "part", "a number"),
        ("part=0", "part", "above 0"),
        ("flag=1", "flag", "true or false"),
        ("state=done", "state", "not one of queued, running"),
        ("state=null", "state", "not one of"),
        ("order=Newest", "order", "not one of"),
        ("numbers=1,x", "numbers", "a whole number"),
        ("numbers=1,2,3,4", "numbers", "length <= 3"),
        ("from=2026-01-31", "from", "RFC 3339"),
        ("from=2026-01-31T09:00:00", "from", "offset"),
        ("from=2026-01-31T09:00:00+01:00", "from", "%2B"),
        ("nubmer=1", "nubmer", "did you mean 'number'?"),
        ("zzz=1", "zzz", "the parameters are"),
    ],
)
async def test_a_query_is_read_strictly(
    client: httpx.AsyncClient, text: str, path: str, message: str
) -> None:
    response = await client.get(f"/things?{text}")
    assert response.status_code == 400
    (fault,) = response.json()["errors"]
    assert fault["path"] == path
    assert message in fault["message"]


async def test_faults_of_path_query_and_headers_are_told_at_once(client: httpx.AsyncClient) -> None:
    response = await client.post("/things/a b/notes?x=1&y=2")
    assert [fault["path"] for fault in response.json()["errors"]] == ["workspace_id", "x", "y"]
    assert "letters" in response.json()["errors"][0]["message"]


async def test_so_many_faults_of_a_request_are_told_and_no_more(client: httpx.AsyncClient) -> None:
    many = [f"nte{number}" for number in range(3000)]
    body = await client.post("/things/acme/notes", json=dict.fromkeys(many, 1))
    query = await client.get(f"/things?{'&'.join(many)}")
    for response in (body, query):
        assert [fault["path"] for fault in response.json()["errors"]] == many[:MOST_FAULTS]


async def test_a_long_name_is_not_held_against_the_names_that_there_are(client: httpx.AsyncClient) -> None:
    response = await client.get(f"/things?{'number' * 1000}=1")
    (fault,) = response.json()["errors"]
    assert "the parameters are" in fault["message"]


async def test_an_optional_body_may_be_left_out_and_a_handler_chooses_status_and_headers(
    client: httpx.AsyncClient,
) -> None:
    empty = await client.post("/things/acme/notes", headers={"If-Match": '"6"'})
    assert empty.status_code == 200
    assert empty.json() == {"seen": "('acme', '\"6\"', None)", "extra": "always sent"}
    full = await client.post("/things/acme/notes", content=b'{"note": "hello"}')
    assert (full.status_code, full.headers["etag"]) == (201, '"7"')


@pytest.mark.parametrize(
    ("body", "faults"),
    [
        (b'{"note": 5, "times": [1, -1], "nte": 1}', ["note", "times[1]", "nte"]),
        (b'{"note": "longer", "note": "short"}', ["note"]),
        (b"[]", [""]),
        (b"{", [""]),
        (b'{"note": "\xff"}', [""]),
        (b"[" * 100_000, [""]),
    ],
)
async def test_every_fault_of_a_small_body_is_told(
    client: httpx.AsyncClient, body: bytes, faults: list[str]
) -> None:
    response = await client.post("/things/acme/notes", content=body)
    assert response.status_code == 400
    assert [fault["path"] for fault in response.json()["errors"]] == faults


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"kind": "loud"}', "expected one of long, short"),
        (b'{"times": [1.5]}', "expected a whole number of at least 0"),
        (b" ", "malformed JSON: "),
        (b'{"note": "",}', "malformed JSON: trailing comma in object (byte 12)"),
    ],
)
async def test_a_fault_of_a_small_body_says_what_is_expected(
    client: httpx.AsyncClient, body: bytes, message: str
) -> None:
    (fault,) = (await client.post("/things/acme/notes", content=body)).json()["errors"]
    assert fault["message"].startswith(message)


async def test_an_empty_body_is_called_so(client: httpx.AsyncClient) -> None:
    (fault,) = (await client.put("/things/acme/notes")).json()["errors"]
    assert fault == {"path": "", "message": "the body is empty: expected JSON"}


async def test_a_word_in_a_path_goes_before_a_parameter(client: httpx.AsyncClient) -> None:
    assert (await client.get("/things/acme/latest")).json()["seen"] == "latest of acme"
    assert (await client.get("/things/acme/first")).json()["seen"] == "first"


def test_the_document_shows_what_is_declared() -> None:
    document = document_of([noun])
    shown = document["paths"]["/things/{workspace_id}/notes"]["post"]
    assert (shown["summary"], shown["description"]) == ("Add a note", "More about it.")
    assert [(one["name"], one["in"]) for one in shown["parameters"]] == [
        ("workspace_id", "path"),
        ("If-Match", "header"),
    ]
    assert shown["requestBody"]["required"] is False
    assert list(shown["responses"]) == ["200", "201", "400", "403", "408", "413"]  # no 503: it takes no store
    assert shown["responses"]["201"]["headers"]["ETag"]["description"] == "The revision."
    assert document["components"]["schemas"]["Echo"] == {
        "description": "What arrived.",
        "type": "object",
        "properties": {
            "seen": {"type": "string", "description": "As Python shows it."},
            "extra": {"type": "string"},
        },
        "required": ["seen", "extra"],
        "additionalProperties": False,
    }
    query = {one["name"]: one for one in document["paths"]["/things"]["get"]["parameters"]}
    assert query["state"]["schema"] == {"$ref": "#/components/schemas/State"}
    assert query["numbers"]["explode"] is False
    assert query["from"]["schema"] == {"type": "string", "format": "date-time"}


@pytest.mark.parametrize("path", ["/{other}", ""])
def test_a_handler_that_does_not_fit_its_path_is_refused(path: str) -> None:
    async def handler(workspace_id: WorkspaceId) -> Echo:
        raise NotImplementedError

    with pytest.raises(TypeError, match="its path is"):
        Noun("t", "For this test.").operation("GET", "/x" + path)(handler)


def test_an_input_that_lets_unknown_fields_through_is_refused() -> None:
    class Open(msgspec.Struct):
        x: int = 0

    async def handler(query: Any) -> Echo:
        raise NotImplementedError

    handler.__annotations__ = {"query": Open, "return": Echo}
    with pytest.raises(TypeError, match="forbid unknown"):
        Noun("t", "For this test.").operation("GET", "/x")(handler)
