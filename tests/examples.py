"""A request for every operation of the API's document."""

from __future__ import annotations

from typing import Any

from app.api.openapi import document_of
from app.config import Settings
from app.main import NOUNS

ADMIN_KEY = "an admin key that is only for tests"
GUARDED = Settings(auth="tokens", admin_key=ADMIN_KEY, rate_limit_key=1_000_000)
DOCUMENT = document_of(NOUNS, GUARDED)
OPERATIONS = {
    operation["operationId"]: (method.upper(), path, operation)
    for path, item in DOCUMENT["paths"].items()
    for method, operation in item.items()
}
ONE = {"id": "nightly-report", "cron": "* * * * *", "url": "http://127.0.0.1:9/x", "method": "POST"}
PLACES = {
    "workspace_id": "acme",
    "trigger_id": "nightly-report",
    "execution_id": "acme:none:1",
    "revision": "1",
    "key_id": "abcdefghijklmnop",
    "signing_secret_id": "0123456789abcdef",
    "secret_name": "api_token",
}

# A good body for each operation that takes one.
BODIES: dict[str, Any] = {
    "replace_triggers": {"triggers": []},
    "put_triggers": {"triggers": []},
    "create_trigger": ONE,
    "put_trigger": ONE,
    "patch_trigger": {"name": "x"},
    "pause_trigger": {},
    "run_trigger": {"payload": 1},
    "backfill_trigger": {"from": "2026-01-01T00:00:00Z", "to": "2026-01-01T01:00:00Z"},
    "change_triggers": {"action": "run", "ids": ["nightly-report"]},
    "put_workspace": {},
    "patch_workspace": {},
    "pause_workspace": {},
    "retry_dead_letters": {},
    "add_signing_secret": {},
    "put_secret": {"value": "hunter2 and more"},
    "put_egress": {"allow": ["10.0.0.0/8"]},
    "create_key": {"name": "x", "scope": "read", "workspaces": ["acme"]},
}


def path_of(name: str) -> tuple[str, str]:
    """The method and a filled-in URL with the required parameters of an operation."""
    method, path, operation = OPERATIONS[name]
    query = [
        f"{one['name']}={one['schema'].get('enum', [1])[0]}"
        for one in operation.get("parameters", ())
        if one["in"] == "query" and one["required"]
    ]
    return method, path.format(**PLACES) + "?" + "&".join(query)
