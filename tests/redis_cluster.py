"""A real Redis Cluster on loopback: primaries, each with a replica."""

from __future__ import annotations

import time
from contextlib import ExitStack
from types import TracebackType

import redis

from lab.processes import free_port, redis_binary
from lab.redis_servers import RedisServer

SLOTS = 16384
_UP_SECONDS = 30.0


class RedisCluster:
    """Nodes that have formed a cluster; a node's bus listens 10,000 ports above it, so ports are low ones."""

    def __init__(self, primaries: int = 3, node_timeout_ms: int = 1000) -> None:
        self._open = ExitStack()
        options = ("--cluster-enabled", "yes", "--cluster-node-timeout", str(node_timeout_ms))
        self.nodes: list[RedisServer] = []
        try:
            for _ in range(2 * primaries):
                server = RedisServer(redis_binary(), *options, port=low_port())
                self._open.callback(server.close)
                self.nodes.append(server)
            self._form(primaries)
        except BaseException:
            self._open.close()
            raise

    def __enter__(self) -> RedisCluster:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self._open.close()

    @property
    def url(self) -> str:
        """Its ``REDIS_URL``, by its first and its last node."""
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[-1].port}"

    def owner_of(self, key: str) -> RedisServer:
        """The node that serves a key now."""
        for node in self.nodes:
            if node.process.alive():
                with _client(node) as client:
                    slot = client.execute_command("CLUSTER", "KEYSLOT", key)
                    for first, last, (_, port, *_), *_ in client.execute_command("CLUSTER", "SLOTS"):
                        if first <= slot <= last:
                            return next(one for one in self.nodes if one.port == port)
        raise LookupError(key)

    def hand_over(self, key: str) -> RedisServer:
        """Have the replica of a key's node take its place, while both live on; returns the new owner."""
        owner = self.owner_of(key)
        half = len(self.nodes) // 2
        replica = self.nodes[(self.nodes.index(owner) + half) % len(self.nodes)]
        with _client(replica) as client, _client(owner) as former:
            client.execute_command("CLUSTER", "FAILOVER")
            _wait(lambda: self.owner_of(key) is replica and former.info("replication")["role"] == "slave")
        return replica

    def _form(self, primaries: int) -> None:
        clients = [_client(node) for node in self.nodes]
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
        bounds = [SLOTS * number // primaries for number in range(primaries + 1)]
        for number, client in enumerate(clients[:primaries]):
            client.execute_command("CLUSTER", "ADDSLOTS", *range(bounds[number], bounds[number + 1]))
        for node in self.nodes[1:]:
            clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", node.port)
        _wait(lambda: all(len(_known(client)) == len(clients) for client in clients))
        for number, client in enumerate(clients[primaries:]):
            client.execute_command("CLUSTER", "REPLICATE", ids[number])
        _wait(
            lambda: all(
                client.execute_command("CLUSTER", "INFO").startswith(b"cluster_state:ok")
                for client in clients
            )
        )
        _wait(
            lambda: all(
                client.info("replication").get("master_link_status") == "up" for client in clients[primaries:]
            )
        )
        for client in clients:
            client.close()


def _client(node: RedisServer) -> redis.Redis:
    client = redis.Redis(port=node.port)
    for command in ("CLUSTER INFO", "CLUSTER SLOTS", "CLUSTER NODES"):
        client.response_callbacks.pop(command, None)
    return client


def _known(client: redis.Redis) -> list[bytes]:
    return [
        line for line in client.execute_command("CLUSTER", "NODES").splitlines() if b"handshake" not in line
    ]


def low_port() -> int:
    """A free port for a node: its bus listens 10,000 above it."""
    while (port := free_port()) > 55_000:
        pass
    return port


def _wait(condition) -> None:
    deadline = time.monotonic() + _UP_SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError("the cluster was not formed")
        time.sleep(0.02)
