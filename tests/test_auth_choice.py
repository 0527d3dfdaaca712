"""Without a choice of authentication the API does not start, and with a bad one neither."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest
from calls import answers
from conftest import eventually
from examples import ADMIN_KEY

from app.auth.rules import check
from app.config import Settings, load_settings
from app.errors import ConfigError
from lab.processes import free_port

pytestmark = pytest.mark.anyio

SECRET = "x" * 32
ISSUER = {"jwt_issuer": "https://issuer.example", "jwt_audience": "cronspace"}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "CRONSPACE_AUTH is not set: choose tokens"),
        ({"auth": "none", "host": "0.0.0.0"}, "CRONSPACE_AUTH=none goes with a loopback address"),
        ({"auth": "none", "host": "::"}, "loopback"),
        ({"auth": "none", "host": "10.0.0.7"}, "loopback"),
        ({"auth": "none", "host": "api.example.com"}, "loopback"),
        ({"auth": "tokens", "admin_key": "x" * 23}, "at least 24"),
        ({"auth": "tokens", "admin_key": "a key with spaces in it, and ü"}, "ASCII"),
        ({"auth": "jwt"}, "needs CRONSPACE_JWT_JWKS or CRONSPACE_JWT_SECRET"),
        ({"auth": "jwt", "jwt_secret": "x" * 31}, "at least 32 bytes"),
        ({"auth": "jwt", "jwt_jwks": "https://issuer.example/keys"}, "CRONSPACE_JWT_ISSUER and"),
        ({"auth": "jwt", "jwt_jwks": "http://issuer.example/keys", **ISSUER}, "https://"),
        ({"auth": "jwt", "jwt_jwks": "/no/such/file", **ISSUER}, "neither a file nor"),
        ({"auth": "tokens", "trusted_proxies": "everybody"}, "CRONSPACE_TRUSTED_PROXIES"),
    ],
)
def test_what_may_not_serve_is_one_clear_line(given: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told) as caught:
        check(Settings(**given))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "warning"),
    [
        ({"auth": "tokens", "admin_key": "x" * 24}, ""),
        ({"auth": "tokens", "host": "0.0.0.0"}, "CRONSPACE_ADMIN_KEY is not set"),
        ({"auth": "none"}, "AUTHENTICATION IS OFF"),
        ({"auth": "none", "host": "::1"}, "AUTHENTICATION IS OFF"),
        ({"auth": "none", "host": "localhost"}, "AUTHENTICATION IS OFF"),
        ({"auth": "none", "host": "0.0.0.0", "auth_none_anywhere": True}, "EVERYBODY who can reach 0.0.0.0"),
        ({"auth": "jwt", "jwt_secret": SECRET}, ""),
        ({"auth": "jwt", "jwt_jwks": "https://issuer.example/keys", **ISSUER}, ""),
        ({"auth": "jwt", "jwt_jwks": __file__, **ISSUER}, ""),
    ],
)
def test_what_may_serve_may_do_so_with_a_warning(given: dict[str, Any], warning: str) -> None:
    warnings = check(Settings(**given))
    assert warning in "".join(warnings)
    assert bool(warnings) == bool(warning)


@pytest.mark.parametrize("environment", [{"CRONSPACE_AUTH": "basic"}, {"CRONSPACE_DOCS": "yes"}])
def test_a_choice_that_there_is_not_is_refused(environment: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"use .* or "):
        load_settings(environment)


async def start(tmp_path: Path, **environment: str) -> asyncio.subprocess.Process:
    with (tmp_path / "said").open("wb") as output:
        return await asyncio.create_subprocess_exec(
            sys.executable, "-m", "app", "api", env={**os.environ, **environment}, stderr=output
        )


async def test_the_command_refuses_to_start_without_a_choice(tmp_path: Path) -> None:
    process = await start(tmp_path, PORT="0")
    assert await asyncio.wait_for(process.wait(), 60) == 1
    said = (tmp_path / "said").read_text()
    assert said.startswith("cronspace api: CRONSPACE_AUTH is not set")
    assert said.count("\n") == 1


async def test_the_command_believes_no_proxy_that_is_not_named(redis_url: str, tmp_path: Path) -> None:
    """As a process: the server below must not rewrite the peer by itself."""
    for proxies, address in (("", "127.0.0.1"), ("127.0.0.0/8", "203.0.113.5")):
        port = free_port()
        environment = {"REDIS_URL": redis_url, "PORT": str(port), "CRONSPACE_TRUSTED_PROXIES": proxies}
        auth = {"CRONSPACE_AUTH": "tokens", "CRONSPACE_ADMIN_KEY": ADMIN_KEY.replace(" ", "-")}
        process = await start(tmp_path, **environment, **auth)
        headers = {
            "authorization": f"Bearer {auth['CRONSPACE_ADMIN_KEY']}",
            "x-forwarded-for": "198.51.100.1, 203.0.113.5",
        }
        try:
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=headers) as client:
                await eventually(lambda port=port, client=client: answers(client, f"http://127.0.0.1:{port}"))
                assert (await client.put("/api/workspaces/acme", json={"description": proxies})).is_success
                audit = (await client.get("/api/workspaces/acme/audit")).json()
                assert audit["entries"][0]["who"]["address"] == address
        finally:
            process.terminate()
            await process.wait()
