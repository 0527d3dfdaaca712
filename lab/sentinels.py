"""A primary, its replicas, and the sentinels that replace it when it is gone."""

from __future__ import annotations

import time
from collections.abc import Sequence

import redis as redis_client

from lab.lab import Lab, RedisServer
from lab.processes import LabError, free_port, redis_binary

_NAME = "main"
_READY_SECONDS = 20.0
_CONFIGURATION = """
port {port}
bind 127.0.0.1
dir {folder}
sentinel monitor {name} 127.0.0.1 {primary} 2
sentinel down-after-milliseconds {name} {down_ms}
sentinel failover-timeout {name} 5000
sentinel parallel-syncs {name} 2
"""


class Sentinels:
    """Two replicas and three sentinels, on loopback; a primary is gone for them after ``down_ms``."""

    def __init__(self, lab: Lab, options: Sequence[str], down_ms: int = 1000) -> None:
        self.primary = lab.redis(options, port=free_port())
        of = ("--replicaof", f"127.0.0.1 {self.primary.port}")
        self.replicas = [lab.redis([*options, *of], port=free_port()) for _ in range(2)]
        self._ports = [free_port() for _ in range(3)]
        for port in self._ports:
            folder = lab.path("sentinel")
            folder.mkdir()
            file = folder / "sentinel.conf"
            file.write_text(
                _CONFIGURATION.format(
                    port=port, folder=folder, name=_NAME, primary=self.primary.port, down_ms=down_ms
                )
            )
            lab.process("sentinel", [redis_binary(), str(file), "--sentinel"])
        self.url = f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self._ports)}/{_NAME}/0"
        self._wait_until_ready()

    def replica_in_charge(self) -> RedisServer:
        """The replica that became the primary."""
        for replica in self.replicas:
            if replica.process.alive() and replica.client.info("replication")["role"] == "master":
                return replica
        raise LabError("no replica is in charge")

    def _wait_until_ready(self) -> None:
        """Until both replicas follow, and each sentinel knows all of them."""
        deadline = time.monotonic() + _READY_SECONDS
        while not self._ready():
            if time.monotonic() > deadline:
                raise LabError("the sentinels did not find each other")
            time.sleep(0.1)

    def _ready(self) -> bool:
        if self.primary.client.info("replication")["connected_slaves"] < len(self.replicas):
            return False
        for port in self._ports:
            try:
                with redis_client.Redis(port=port) as sentinel:
                    state = sentinel.execute_command("SENTINEL", "MASTER", _NAME)
            except redis_client.ConnectionError:
                return False
            known = state if isinstance(state, dict) else dict(zip(state[::2], state[1::2], strict=True))
            known = {(k.decode() if isinstance(k, bytes) else k): v for k, v in known.items()}
            others = int(known["num-other-sentinels"])
            if (int(known["num-slaves"]), others) != (len(self.replicas), len(self._ports) - 1):
                return False
        return True
