"""Named secrets: in every place of a request, and in nothing that is recorded."""

from __future__ import annotations

import asyncio
import json

import pytest
from calls import ACME, client_of, ok, once, refused, run_once, store_set
from conftest import Clock, ShardFactory
from helpers import Received, Target, define, worker_running

from app.store import Shard, revisions

pytestmark = pytest.mark.anyio


VALUE = 'hunter2/"ü & more'
MASK = "********"


async def test_a_secrets_value_arrives_in_each_place_and_another_one_with_the_next_attempt(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True)
    async with (
        Target().running() as target,
        client_of(shard) as client,
        worker_running(make_shard(real_time=True)),
    ):
        for name, value in {"odd": VALUE, "token": "first value"}.items():
            await ok(client.put(f"{ACME}/secrets/{name}", json={"value": value}), 201)
        await store_set(
            shard,
            t=once(
                target,
                url=f"{target.url}/{{{{secret.odd}}}}",
                headers={"authorization": "Bearer {{secret.token}}"},
                payload=b'{"k {{secret.odd}}":"{{ secret.token }}"}',
            ),
        )
        revision = await revisions.current(shard, "acme")
        for value in ("first value", "second value"):
            await ok(client.put(f"{ACME}/secrets/token", json={"value": value}), 200)  # no trigger is touched
            await run_once(client)
            request = target.received[-1]
            assert request.path == "/hunter2%2F%22%C3%BC%20%26%20more"
            assert request.headers["authorization"] == f"Bearer {value}"
            assert json.loads(request.body) == {f"k {VALUE}": value}
        assert await revisions.current(shard, "acme") == revision


async def test_what_a_target_repeats_is_masked_in_every_form_and_the_dead_letter_keeps_the_template(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True, snippet_bytes=300)

    def echo(request: Received, writer: asyncio.StreamWriter) -> None:
        """The request, its values once more, and one that the snippet's end cuts off."""
        value = json.loads(request.body)
        parts = [request.path, request.body.decode(), value, json.dumps({"v": value})]
        body = " | ".join(parts).encode()
        body += b"." * (300 - len(body) - 6) + value.encode() + b"tail"
        writer.write(b"HTTP/1.1 500 X\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))

    async with (
        Target(echo).running() as target,
        client_of(shard) as client,
        worker_running(make_shard(real_time=True, snippet_bytes=300)),
    ):
        await ok(client.put(f"{ACME}/secrets/odd", json={"value": VALUE}), 201)
        trigger = once(
            target,
            url=f"{target.url}/?v={{{{secret.odd}}}}",
            headers={"content-type": "application/json"},
            payload=b'["{{secret.odd}}"]',
            max_retries=0,
        )
        target.answer = lambda request, writer: echo(
            request._replace(body=request.body.removeprefix(b"[").removesuffix(b"]")), writer
        )
        await store_set(shard, t=trigger)
        execution = await run_once(client)
        assert execution["state"] == "failed"
        snippet = execution["attempts"][0]["response_snippet"]
        assert snippet.count(MASK) == 5
        assert "hunt" not in snippet
        letter = await ok(client.get(f"{ACME}/executions/{execution['id']}"))
        assert "hunt" not in str(letter)
        stored = await shard.redis.hget(shard.keys.of("acme", "requests"), execution["id"])  # type: ignore[misc]
        assert b"{{secret.odd}}" in shard.sealer.open(stored)


async def test_a_secret_that_is_missing_or_does_not_fit_fails_at_once_and_sends_nothing(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(real_time=True)
    path = f"{ACME}/secrets"
    async with (
        Target().running() as target,
        client_of(shard) as client,
        worker_running(make_shard(real_time=True)),
    ):
        await ok(client.put(f"{path}/token", json={"value": "line\r\nbreak"}), 201)
        await store_set(shard, t=once(target, headers={"x-token": "{{secret.token}}"}, max_retries=5))
        execution = await run_once(client)
        assert execution["attempt_count"] == 1
        assert execution["error"]["kind"] == "secret"
        assert "'token'" in execution["error"]["message"]
        assert "break'" not in execution["error"]["message"]
        problem = await refused(client.delete(f"{path}/token"), 409, "secret_in_use")
        assert "'t'" in problem["detail"]
        await ok(client.delete(f"{path}/token?force=true"))
        await refused(client.delete(f"{path}/token"), 404, "not_found")
        execution = await run_once(client)
        assert (execution["attempt_count"], execution["state"]) == (1, "failed")
        assert execution["error"] == {"kind": "secret", "message": "the workspace has no secret 'token'"}
        assert target.received == []
        assert target.connections == 0


async def test_an_unknown_secret_is_refused_where_it_is_declared_with_its_place_and_the_nearest_name(
    shard: Shard,
) -> None:
    trigger = {
        "id": "t",
        "cron": "* * * * *",
        "method": "POST",
        "url": "http://h.example/{{secret.api_tokn}}",
    }
    good = {**trigger, "id": "good", "url": "http://h.example/{{secret.api_token}}"}
    async with client_of(shard) as client:
        await ok(client.put(f"{ACME}/secrets/api_token", json={"value": "hunter2"}), 201)
        await ok(client.put(f"{ACME}/triggers/good", json=good), 201)
        header = {"headers": {"X-A": "{{secret.none}}"}}
        for call, place in (
            (client.put(f"{ACME}/triggers", json={"triggers": [good, trigger]}), "triggers[1].url"),
            (client.put(f"{ACME}/triggers?dry_run=1", json={}), "dry_run"),
            (client.put(f"{ACME}/triggers?dry_run=true", json={"triggers": [trigger]}), "triggers[0].url"),
            (client.post(f"{ACME}/triggers/new", json=trigger), "url"),
            (client.put(f"{ACME}/triggers/t", json=trigger), "url"),
            (client.patch(f"{ACME}/triggers/good", json=header), "headers['X-A']"),
            (client.post(f"{ACME}/triggers/good/run", json={"payload": "{{secret.none}}"}), "payload"),
        ):
            problem = await refused(call, 400, "invalid_request")
            assert problem["errors"][0]["path"] == place
            if place.endswith("url"):
                assert "'api_tokn'" in problem["errors"][0]["message"]
                assert "did you mean 'api_token'?" in problem["errors"][0]["message"]
        await ok(client.delete(f"{ACME}/secrets/api_token?force=true"))
        await ok(client.put(f"{ACME}/triggers", json={"triggers": [good]}))  # it was there so before
        await refused(
            client.put(f"{ACME}/triggers", json={"triggers": [good, {**good, "id": "more"}]}),
            400,
            "invalid_request",
        )


async def test_secrets_are_listed_with_their_users_and_never_with_their_values(
    shard: Shard, clock: Clock
) -> None:
    path = f"{ACME}/secrets"
    async with client_of(shard) as client:
        for name in ("b", "a"):
            await ok(client.put(f"{path}/{name}", json={"value": "hunter2"}), 201)
        using = define(url="http://h.example/{{secret.a}}")
        await store_set(shard, one=using, two=using, three="* * * * *")
        clock.advance(60)
        again = await ok(client.put(f"{path}/a", json={"value": "hunter2"}))
        listed = await ok(client.get(path))
        assert [(one["name"], one["used_by"], one["used_by_count"]) for one in listed["secrets"]] == [
            ("a", ["one", "two"], 2),
            ("b", [], 0),
        ]
        assert listed["secrets"][0]["changed_at"] == again["changed_at"] > again["created_at"]
        assert "hunter2" not in str((listed, again))
        await ok(client.delete(f"{path}/b"))
        await refused(client.delete(f"{path}/b"), 404, "not_found")


async def test_number_and_size_of_secrets_are_bounded(make_shard: ShardFactory) -> None:
    shard = make_shard(max_secrets=2, max_secret_bytes=16)
    path = f"{ACME}/secrets"
    async with client_of(shard) as client:
        for value in ("abc", "ü" * 9, 5, None):
            problem = await refused(client.put(f"{path}/a", json={"value": value}), 400, "invalid_request")
            assert problem["errors"][0]["path"] == "value"
            assert "üü" not in str(problem)
        for escapes in (b"\\ud800\\ud800abcd", b"\\ud800", b"\\udc00abcd"):
            body = b'{"value": "%s"}' % escapes
            await refused(client.put(f"{path}/a", content=body), 400, "invalid_request")
        for name in ("a", "b"):
            await ok(client.put(f"{path}/{name}", json={"value": "ü" * 8}), 201)
        await refused(client.put(f"{path}/c", json={"value": "hunter2"}), 409, "too_many_secrets")
        await ok(client.put(f"{path}/b", json={"value": "hunter2"}))
        await refused(client.put(f"{path}/2nd", json={"value": "hunter2"}), 400, "invalid_request")


async def test_a_value_in_the_message_of_a_failure_is_masked(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with client_of(shard) as client, worker_running(make_shard(real_time=True)):
        await ok(client.put(f"{ACME}/secrets/host", json={"value": "127.0.0.1"}), 201)
        await store_set(shard, t=define("0 0 1 1 *", url="http://127.0.0.1:9/", max_retries=0))
        execution = await run_once(client)
        assert execution["error"]["message"].startswith(f"can't connect to {MASK}:9")
