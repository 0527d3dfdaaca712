"""Where one workspace's requests may go, and others' may not: a real worker, a real target."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import pytest
from calls import ACME, client_of, ok, once, refused, run_once, store_set
from conftest import LOOPBACK, ShardFactory
from helpers import Target, worker_running

from app.egress import Egress, Refused, make_egress
from app.outgoing import OwnEgress

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize(
    ("own", "common", "host", "address", "port", "wanted"),
    [
        # wider
        (OwnEgress(allow=("127.0.0.1",)), ("", "", ""), "h", "127.0.0.1", 443, True),
        (OwnEgress(allow=("127.0.0.1",)), ("", "", ""), "h", "127.0.0.2", 443, False),
        (OwnEgress(allow=("h.internal",)), ("", "*", ""), "h.internal", "10.0.0.1", 443, True),
        (OwnEgress(allow=("*",)), ("", "*", ""), "h", "10.0.0.1", 443, True),
        (OwnEgress(ports=(8080,)), ("", "", "443"), "h", "8.8.8.8", 8080, True),
        # tighter
        (OwnEgress(deny=("8.8.8.0/24",)), ("", "", ""), "h", "8.8.8.8", 443, False),
        (OwnEgress(deny=("8.8.8.0/24",)), ("8.8.8.8,h", "", ""), "h", "8.8.8.8", 443, False),
        (OwnEgress(deny=("*",)), ("*", "", ""), "h", "8.8.8.8", 443, False),
        (OwnEgress(("h",), ("*",)), ("*", "", ""), "h", "8.8.8.8", 443, True),
        (OwnEgress(ports=(443,)), ("", "", ""), "h", "8.8.8.8", 80, False),
        (OwnEgress(ports=(8080,)), ("", "", "443"), "h", "8.8.8.8", 443, False),
        # what the deployment denies by name stays denied
        (OwnEgress(allow=("*",)), ("", "169.254.0.0/16", ""), "h", "169.254.169.254", 80, False),
        (OwnEgress(allow=("h", "8.8.8.8")), ("", "h", ""), "h", "8.8.8.8", 80, False),
        (OwnEgress(allow=("*",)), ("", "10.0.0.0/8", ""), "h", "::ffff:10.0.0.1", 80, False),
        # what says nothing leaves it to the deployment
        (OwnEgress(ports=(443,)), ("10.0.0.0/8", "", ""), "h", "10.0.0.1", 443, True),
        (OwnEgress(allow=("h2",)), ("10.0.0.0/8", "*", ""), "h", "10.0.0.1", 443, True),
        (OwnEgress(allow=("h2",)), ("", "", ""), "h", "10.0.0.1", 443, False),
    ],
)
def test_a_workspaces_lists_are_looked_at_before_the_deployments(
    own: OwnEgress, common: tuple[str, str, str], host: str, address: str, port: int, wanted: bool
) -> None:
    assert passes(make_egress(*common, own.lists()), host, address, port) is wanted


def passes(egress: Egress, host: str, address: str, port: int) -> bool:
    try:
        egress.check(host, port)
        return egress.permitted(host, [ip_address(address)]) == [ip_address(address)]
    except Refused:
        return False


async def test_one_workspace_may_go_where_others_may_not_and_kept_connections_do_not_help(
    make_shard: ShardFactory,
) -> None:
    settings: dict[str, Any] = {"real_time": True, "egress_allow": "", "max_concurrency": 5}
    shard = make_shard(**settings)
    async with (
        Target().running() as target,
        client_of(shard) as client,
        worker_running(make_shard(**settings)),
    ):
        await ok(client.put("/api/workspaces/wide/egress", json={"allow": [LOOPBACK]}))
        for workspace in ("wide", "usual"):
            await store_set(shard, workspace, t=once(target))
        for _ in range(2):
            assert (await run_once(client, "wide"))["state"] == "succeeded"
            execution = await run_once(client, "usual")
            assert execution["error"]["kind"] == "blocked"
        assert target.connections == 1
        assert {request.headers["webhook-id"].split(":")[0] for request in target.received} == {"wide"}
        await ok(client.delete("/api/workspaces/wide/egress"))
        assert (await run_once(client, "wide"))["error"]["kind"] == "blocked"
        assert len(target.received) == 2


async def test_one_workspace_is_kept_from_where_others_may_go(make_shard: ShardFactory) -> None:
    shard = make_shard(real_time=True)
    async with (
        Target().running() as target,
        client_of(shard) as client,
        worker_running(make_shard(real_time=True)),
    ):
        for workspace in ("tight", "usual"):
            await store_set(shard, workspace, t=once(target))
            assert (await run_once(client, workspace))["state"] == "succeeded"
        for lists in ({"deny": ["127.0.0.1"]}, {"deny": ["*"]}, {"ports": [443]}):
            await ok(client.put("/api/workspaces/tight/egress", json=lists))
            assert (await run_once(client, "tight"))["error"]["kind"] == "blocked"
            assert (await run_once(client, "usual"))["state"] == "succeeded"
        await ok(client.put("/api/workspaces/tight/egress", json={}))
        assert (await run_once(client, "tight"))["state"] == "succeeded"


async def test_lists_are_checked_and_only_an_admin_of_all_workspaces_gives_them(
    make_shard: ShardFactory,
) -> None:
    shard = make_shard(auth="tokens", admin_key="an admin key that is only for tests")
    path = f"{ACME}/egress"
    async with client_of(shard) as client:
        client.headers["authorization"] = f"Bearer {shard.settings.admin_key}"
        body = {"allow": ["10.0.0.0/8", "10.0.0.1/8", "a,b", ""], "deny": ["*.ok.example", "http://x/"]}
        problem = await refused(client.put(path, json=body), 400, "invalid_request")
        assert [one["path"] for one in problem["errors"]] == ["allow[1]", "allow[2]", "allow[3]", "deny[1]"]
        await refused(client.put(path, json={"ports": [0]}), 400, "invalid_request")
        given = {"allow": ["10.0.0.0/8"], "deny": [".bad.example"], "ports": [443]}
        await ok(client.put(path, json=given))
        shown = await ok(client.get(path))
        assert {name: shown[name] for name in given} == given
        body = {"name": "x", "scope": "admin", "workspaces": ["acme"]}
        own = (await ok(client.post("/api/keys", json=body), 201))["key"]
        client.headers["authorization"] = f"Bearer {own}"
        for call in (client.put(path, json={}), client.delete(path)):
            await refused(call, 403, "forbidden")
        assert (await ok(client.get(path)))["allow"] == ["10.0.0.0/8"]
