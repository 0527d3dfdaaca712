"""A client of the node of a Redis Cluster that owns a shard.

Every key of a shard has the same hash tag, so one node has them all, and a plain client of that node does:
pipelines, subscriptions and scripts as ever. What remains is to find the node, and to find it again after
the shard has moved or its node has failed: a connection asks where the slot is when it is made, and is given
up when its node says that it is not the owner any more. The client's retries then make it anew, at the owner.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote, urlsplit

from redis.asyncio import Connection, Redis, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ConnectionError, RedisError, ResponseError

from app.config import CLUSTER_SCHEMES, Settings
from app.errors import ConfigError
from app.keys import Keys
from app.store.connection import NO_HOSTS, Pool, ToPrimary, client_options, tls_options

Address = tuple[str, int]

_PORT = 6379
_ASK_SECONDS = 2.0  # for one node to tell the slots
# What a node says that does not own the slot, or can't serve it now. To a plain client of redis-py these are
# errors like any other. Redis 6 wraps what a command within a script met.
_ELSEWHERE = re.compile(r"(\A|-)(MOVED|ASK|CLUSTERDOWN|TRYAGAIN) ")


def is_cluster(settings: Settings) -> bool:
    """Whether ``REDIS_URL`` names the nodes of a cluster."""
    return settings.redis_url.startswith(CLUSTER_SCHEMES)


def connect_to_owner(settings: Settings, number: int) -> Redis:
    """A client for a shard of a cluster; raises :class:`ConfigError` for a URL that can't be read."""
    seeds, options = read_url(settings.redis_url)
    options |= tls_options(settings)
    root = Keys(number).root
    pool = OwnerPool(seeds, key_slot(root.encode()), tls=settings.redis_url.startswith("rediss"), **options)
    return Redis.from_pool(pool)


def read_url(url: str) -> tuple[list[Address], dict[str, Any]]:
    """The nodes that a URL names, and user and password; raises :class:`ConfigError`."""
    try:
        parts = urlsplit(url)
    except ValueError:  # which may repeat the password
        raise ConfigError(f"REDIS_URL can't be read: {NO_HOSTS}") from None
    user, _, nodes = parts.netloc.rpartition("@")
    name, _, password = user.partition(":")
    seeds = []
    for node in filter(None, nodes.split(",")):
        host, _, port = node.rpartition(":") if not node.endswith("]") else (node, "", "")
        if not host:
            host, port = node, ""
        if port and not port.isdecimal():
            raise ConfigError(f"REDIS_URL can't be read: {NO_HOSTS}")
        seeds.append((host.strip("[]"), int(port or _PORT)))
    if not seeds:
        raise ConfigError("REDIS_URL: name some nodes, such as redis+cluster://10.0.0.1:6379,10.0.0.2:6379")
    if parts.path.strip("/") not in ("", "0"):
        raise ConfigError("REDIS_URL: a cluster has the database 0 only")
    return seeds, {"username": unquote(name) or None, "password": unquote(password) or None}


class OwnerPool(Pool):
    """Connections to the node that owns a slot."""

    def __init__(self, seeds: Sequence[Address], slot: int, *, tls: bool, **options: Any) -> None:
        super().__init__(_TlsToOwner if tls else _ToOwner, **client_options(), **options)
        self.connection_kwargs["pool"] = self
        self._asking = {**options, "connection_class": SSLConnection if tls else Connection}
        self._slot = slot
        self._seeds = list(seeds)
        self._nodes: list[Address] = []  # as a node told them last
        self.owner: Address | None = None

    async def find_owner(self) -> Address:
        """Ask the nodes where the slot is; raises ``ConnectionError`` when none can tell."""
        problems = []
        for address in dict.fromkeys([*self._nodes, *self._seeds]):
            try:
                async with asyncio.timeout(_ASK_SECONDS):
                    owner = await self._ask(address)
            except (RedisError, OSError) as error:  # TimeoutError is an OSError
                problems.append(f"{address[0]}:{address[1]} {error or type(error).__name__}")
                continue
            if owner is not None:
                if owner != self.owner:
                    self.owner = owner
                    await self.disconnect(inuse_connections=False)
                return owner
            problems.append(f"{address[0]}:{address[1]} knows no owner of slot {self._slot}")
        raise ConnectionError(f"no node of the cluster tells where the shard is: {'; '.join(problems)}")

    async def _ask(self, address: Address) -> Address | None:
        options = dict(self._asking)
        connection: Connection = options.pop("connection_class")(
            host=address[0], port=address[1], socket_connect_timeout=_ASK_SECONDS, **options
        )
        try:
            await connection.connect()  # type: ignore[no-untyped-call]  # redis-py has no types for it
            await connection.send_command("CLUSTER", "SLOTS")
            ranges = await connection.read_response()
        finally:
            await connection.disconnect()
        owner, nodes = None, []
        for first, last, *members in ranges:
            found = [(_text(member[0]) or address[0], int(member[1])) for member in members]
            nodes += found
            if first <= self._slot <= last:
                owner = found[0]
        self._nodes = list(dict.fromkeys(nodes))
        return owner


class _ToOwner(ToPrimary, Connection):
    """A connection to the owner, which looks for it when it is made."""

    def __init__(self, *, pool: OwnerPool, **options: Any) -> None:
        super().__init__(**options)
        self._pool = pool

    async def _connect(self) -> None:
        self.host, self.port = await self._pool.find_owner()
        await super()._connect()  # type: ignore[no-untyped-call]  # nor for this

    async def read_response(self, *args: Any, **options: Any) -> Any:
        """As ever; but a node that is not the owner is left, and the command goes to another."""
        try:
            return await super().read_response(*args, **options)
        except ResponseError as error:
            if not _ELSEWHERE.search(str(error)):
                raise
            await self.disconnect(nowait=True)
            raise ConnectionError(f"the shard is not at {self.host}:{self.port}: {error}") from error


class _TlsToOwner(_ToOwner, SSLConnection):
    """The same with TLS."""


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value or "")
