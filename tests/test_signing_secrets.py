"""Signing secrets: what arrives is verified by the library of Standard Webhooks, while they are rotated."""

from __future__ import annotations

import base64

import pytest
from calls import ACME, client_of, ok, once, refused, run_once, store_set
from conftest import Clock, ShardFactory
from helpers import Received, Target, worker_running
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from app.store import Shard, outgoing

pytestmark = pytest.mark.anyio


def verifies(secret: str, request: Received) -> bool:
    try:
        Webhook(secret).verify(request.body, request.headers, json_parse=False)
    except WebhookVerificationError:
        return False
    return True


async def test_rotated_secrets_both_verify_until_the_old_one_is_deleted(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    path = f"{ACME}/signing-secrets"
    given = "whsec_" + base64.b64encode(b"g" * 32).decode()
    async with (
        Target().running() as target,
        client_of(shard) as client,
        worker_running(make_shard(real_time=True)),
    ):
        await store_set(shard, t=once(target, payload=b'{"n":1}'))

        async def arrived() -> Received:
            await run_once(client)
            return target.received[-1]

        assert "webhook-signature" not in (await arrived()).headers
        old = (await ok(client.post(path), 201))["signing_secret"]
        first = await arrived()
        assert verifies(old["secret"], first)
        assert not verifies(given, first)
        new = (await ok(client.post(path, json={"secret": given}), 201))["signing_secret"]
        assert new["secret"] == given
        both = await arrived()
        assert verifies(old["secret"], both)
        assert verifies(given, both)
        await ok(client.delete(f"{path}/{old['id']}"))
        last = await arrived()
        assert verifies(given, last)
        assert not verifies(old["secret"], last)
        await ok(client.delete(f"{path}/{new['id']}"))
        assert "webhook-signature" not in (await arrived()).headers


async def test_the_secret_before_expires_when_told_and_makes_room(shard: Shard, clock: Clock) -> None:
    path = f"{ACME}/signing-secrets"
    async with client_of(shard) as client:
        old = (await ok(client.post(path, json={}), 201))["signing_secret"]
        new = (await ok(client.post(path, json={"previous_expires_in_seconds": 3600}), 201))["signing_secret"]
        listed = (await ok(client.get(path)))["signing_secrets"]
        assert [one["id"] for one in listed] == [old["id"], new["id"]]
        assert [one["expires_at"] is None for one in listed] == [False, True]
        assert "whsec_" not in str(listed)
        assert (await ok(client.get(f"{path}/{new['id']}")))["signing_secret"]["secret"] == new["secret"]
        await refused(client.post(path), 409, "too_many_secrets")
        clock.advance(3600)
        assert [one["id"] for one in (await ok(client.get(path)))["signing_secrets"]] == [new["id"]]
        await refused(client.get(f"{path}/{old['id']}"), 404, "not_found")
        await ok(client.post(path), 201)
        stored = (await outgoing.read(shard, "acme")).signing
        assert old["id"] not in [one.id for one in stored]


async def test_a_signing_secret_is_given_once_and_read_back_with_write_scope_only(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(auth="tokens", admin_key="an admin key that is only for tests")
    async with client_of(shard) as client:
        client.headers["authorization"] = f"Bearer {shard.settings.admin_key}"
        made = await ok(client.post(f"{ACME}/signing-secrets"), 201)
        body = {"name": "x", "scope": "operate", "workspaces": ["acme"]}
        operator = (await ok(client.post("/api/keys", json=body), 201))["key"]
        client.headers["authorization"] = f"Bearer {operator}"
        await refused(client.get(f"{ACME}/signing-secrets/{made['signing_secret']['id']}"), 403, "forbidden")


@pytest.mark.parametrize("secret", ["hunter2", "whsec_aHVudGVyMg==", "whsec_hunter2!"])
async def test_a_bad_signing_secret_is_refused_without_repeating_it(shard: Shard, secret: str) -> None:
    async with client_of(shard) as client:
        problem = await refused(
            client.post(f"{ACME}/signing-secrets", json={"secret": secret}), 400, "invalid_request"
        )
        assert problem["errors"][0]["path"] == "secret"
        assert secret.removeprefix("whsec_") not in str(problem)
        same = "whsec_" + base64.b64encode(b"g" * 32).decode()
        await ok(client.post(f"{ACME}/signing-secrets", json={"secret": same}), 201)
        await refused(client.post(f"{ACME}/signing-secrets", json={"secret": same}), 400, "invalid_request")
