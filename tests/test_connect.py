"""The forms of REDIS_URL: user, password, database, TLS with a CA of one's own, unix sockets."""

from __future__ import annotations

from pathlib import Path

import pytest
from certificates import self_signed
from conftest import eventually
from helpers import numbered
from redis.exceptions import ConnectionError as RedisConnectionError
from redis_cluster import SLOTS, low_port

from app.config import Settings
from app.errors import ConfigError
from app.store import Shard, connect, everywhere, open_shards, triggers
from app.store.cluster import connect_to_owner, is_cluster
from app.store.connection import address_of
from lab.processes import free_port
from lab.redis_servers import RedisServer, redis_binaries

pytestmark = pytest.mark.anyio


async def uses(url: str, **settings: str | bool) -> int:
    """Replace a set through a URL; returns in which database it landed."""
    given = Settings(redis_url=url, **settings)
    shard = Shard(connect(given), given)
    try:
        await triggers.replace(shard, "acme", numbered(2))
        return int(shard.redis.connection_pool.connection_kwargs.get("db", 0))
    finally:
        await shard.redis.aclose()


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("redis://127.0.0.1:6379/0", "redis://127.0.0.1:6379/0"),
        ("rediss://user:hun%40ter@[::1]:6379?db=2", "rediss://[::1]:6379"),
        ("unix://:hunter@/run/redis.sock?db=0", "unix:///run/redis.sock"),
        (
            "redis+sentinel://:hunter@a:26379,b/mymaster/0?sentinel_password=hunter",
            "redis+sentinel://a:26379,b/mymaster/0",
        ),
        ("redis+sentinel://:hun[t\u2100r@a/mymaster", "redis+sentinel://a/mymaster"),
        ("redis+cluster://user:hunter@a:1,b:2", "redis+cluster://a:1,b:2"),
    ],
)
async def test_where_a_url_leads_is_shown_without_its_passwords(url: str, shown: str) -> None:
    assert address_of(url) == shown
    open_shards(Settings(redis_url=url))


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hun/ter@127.0.0.1:6379/0",
        "redis://user:hun?ter@127.0.0.1",
        "rediss://user:hun#ter@127.0.0.1",
        "redis://:hun\u2100ter@127.0.0.1/",
        "redis://:hun[ter@127.0.0.1/",
        "redis+sentinel://user:hun/ter@127.0.0.1/mymaster",
        "redis+sentinel://user:hun\u2100ter,hun@127.0.0.1:hun/mymaster",
        "redis+cluster://user:hun/ter@127.0.0.1",
        "redis+cluster://user:hun\u2100ter@127.0.0.1",
    ],
)
async def test_a_url_that_can_not_be_read_is_not_repeated(url: str) -> None:
    """A password that is not quoted makes a URL that is none, and it is no one else's to see."""
    settings = Settings(redis_url=url)
    with pytest.raises(ConfigError, match="REDIS_URL") as caught:
        connect_to_owner(settings, 0) if is_cluster(settings) else connect(settings)
    assert "hun" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("redis://h/0?timeout=3", "'timeout' is none of its parameters"),
        ("unix:///s?db=1&user=x", "'user' is none of its parameters"),
        ("redis://h/0?socket_timeout=soon", "'socket_timeout'"),
        ("rediss://h/0?ssl_cert_reqs=perhaps", "perhaps"),
    ],
)
async def test_a_parameter_that_is_none_is_one_clear_line(url: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        connect(Settings(redis_url=url))


async def test_a_parameter_of_the_pool_is_one_of_its_parameters() -> None:
    client = connect(Settings(redis_url="redis://h/0?max_connections=7"))
    assert client.connection_pool.max_connections == 7


async def test_user_password_and_database() -> None:
    port = free_port()
    binary = next(iter(redis_binaries().values()))
    user = ["--user", "scheduler", "on", ">secret%1", "~*", "&*", "+@all"]
    server = RedisServer(binary, *user, port=port)
    try:
        assert await uses(f"redis://scheduler:secret%251@127.0.0.1:{port}/3") == 3
        assert await uses(server.url(5)) == 5
    finally:
        server.close()


with_tls = pytest.mark.skipif(
    "system" not in redis_binaries(), reason="the embedded Redis is built without TLS"
)


@with_tls
async def test_tls_with_a_ca_file(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    port = free_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    server = RedisServer(
        redis_binaries()["system"], *tls, "--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"
    )
    try:
        assert await uses(f"rediss://localhost:{port}/1", redis_ca_file=str(certificate)) == 1
        with pytest.raises(RedisConnectionError, match="certificate"):
            await uses(f"rediss://localhost:{port}/1")
        address = f"rediss://127.0.0.1:{port}/2"  # not a name of the certificate
        with pytest.raises(RedisConnectionError, match="certificate"):
            await uses(address, redis_ca_file=str(certificate))
        assert await uses(address, redis_ca_file=str(certificate), redis_check_name=False) == 2
    finally:
        server.close()


@with_tls
async def test_tls_on_a_cluster(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    port = low_port()
    tls = ["--tls-port", str(port), "--tls-cert-file", str(certificate), "--tls-key-file", str(key)]
    tls += ["--tls-ca-cert-file", str(certificate), "--tls-auth-clients", "no"]
    cluster = ["--cluster-enabled", "yes", "--tls-cluster", "yes"]
    server = RedisServer(redis_binaries()["system"], *tls, *cluster)
    try:
        server.client.execute_command("CLUSTER", "ADDSLOTS", *range(SLOTS))
        await eventually(lambda: server.client.cluster("INFO")["cluster_state"] == "ok")

        async def stores(**settings: str | bool) -> int:
            shards = open_shards(
                Settings(redis_url=f"rediss+cluster://127.0.0.1:{port}", shards=2, **settings)
            )
            try:
                for name in ("one", "two"):
                    await triggers.replace(shards.of(name), name, numbered(2))
                return len((await everywhere.list_workspaces(shards))[0])
            finally:
                await shards.aclose()

        with pytest.raises(RedisConnectionError, match="certificate"):
            await stores(redis_check_name=False)
        with pytest.raises(RedisConnectionError, match="certificate"):  # 127.0.0.1 is not a name of it
            await stores(redis_ca_file=str(certificate))
        assert await stores(redis_ca_file=str(certificate), redis_check_name=False) == 2
    finally:
        server.close()
