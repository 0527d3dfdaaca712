"""`cronspace api` as a process: several side by side, and signals."""

from __future__ import annotations

import asyncio
import signal
import socket

import httpx
import pytest
from calls import answers
from conftest import StartProcess, eventually

from app.errors import ConfigError
from app.listener import listen
from lab.processes import free_port

pytestmark = pytest.mark.anyio

SET = {"triggers": [{"cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/", "method": "GET"}]}


async def test_two_apis_share_one_redis_and_stop_on_a_signal(start_process: StartProcess) -> None:
    """The second one tells of each call, as it does at DEBUG only."""
    ports, levels = [free_port(), free_port()], ["INFO", "DEBUG"]
    processes = [
        await start_process(
            "api",
            stdout=asyncio.subprocess.PIPE,
            PORT=str(port),
            CRONSPACE_AUTH="none",
            CRONSPACE_LOG_LEVEL=level,
        )
        for port, level in zip(ports, levels, strict=True)
    ]
    async with httpx.AsyncClient() as client:
        for port in ports:
            await eventually(lambda port=port: answers(client, f"http://127.0.0.1:{port}"))
        path = "/api/workspaces/acme/triggers"
        await client.post(f"http://127.0.0.1:{ports[0]}{path}", json=SET)
        await client.get(f"http://127.0.0.1:{ports[0]}{path}")
        listed = await client.get(f"http://127.0.0.1:{ports[1]}{path}")
        assert listed.json()["count"] == 1
    told = []
    for process, number in zip(processes, (signal.SIGTERM, signal.SIGINT), strict=True):
        process.send_signal(number)
        told.append((await asyncio.wait_for(process.communicate(), 10))[0].decode())
        assert process.returncode in (0, -number, 128 + number)
    assert [f"GET {path} " in one for one in told] == [False, True]
    for one, port in zip(told, ports, strict=True):
        assert f" listens on 127.0.0.1:{port}; shards: 1; Redis at " in one


def test_why_an_address_can_not_be_had_decides_what_is_advised() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=r"Choose another port with PORT\."):
            listen("127.0.0.1", port, "PORT")
    for host in ("no.such.name.invalid", "192.0.2.1"):
        with pytest.raises(ConfigError, match=r"is CRONSPACE_HOST an address of this machine\?"):
            listen(host, 0, "PORT")
