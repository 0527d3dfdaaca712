"""`cronspace api` as a process: several side by side, and signals."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys

import httpx
import pytest
from conftest import eventually

pytestmark = pytest.mark.anyio

SET = {"triggers": [{"cron": "0 0 1 1 *", "url": "http://127.0.0.1:9/", "method": "GET"}]}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def answers(client: httpx.AsyncClient, url: str) -> bool:
    try:
        return (await client.get(f"{url}/health")).status_code == 200
    except httpx.TransportError:
        return False


async def test_two_apis_share_one_redis_and_stop_on_a_signal(redis_url: str) -> None:
    """The second one tells of each call, as it does at DEBUG only."""
    ports, levels = [free_port(), free_port()], ["INFO", "DEBUG"]
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "app",
            "api",
            env={
                **os.environ,
                "REDIS_URL": redis_url,
                "PORT": str(port),
                "CRONSPACE_AUTH": "none",
                "CRONSPACE_LOG_LEVEL": level,
            },
            stdout=asyncio.subprocess.PIPE,
        )
        for port, level in zip(ports, levels, strict=True)
    ]
    try:
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
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
