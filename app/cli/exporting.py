"""`cronspace export`: a workspace's settings and trigger set, as a file for `cronspace import`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from app.cli.arguments import parser, workspace_path
from app.client import Client
from app.declared.masking import MASK

FORMAT = 1  # of the file


def run(argv: Sequence[str]) -> None:
    """Write a workspace to standard output."""
    arguments = parser("export", "A workspace's settings and trigger set, as JSON on standard output.")
    arguments.add_argument("--workspace", required=True)
    arguments.add_argument(
        "--reveal", action="store_true", help="with credentials as they are, for the scope write; else masked"
    )
    given = arguments.parse_args(argv)
    with Client() as client:
        exported = _exported(client, given.workspace, given.reveal)
    print(json.dumps(exported, indent=2, ensure_ascii=False))
    if MASK in json.dumps(exported["triggers"]):
        print(
            "Credentials are masked: they can be put back into triggers that are still there, and nowhere"
            " else. --reveal shows them.",
            file=sys.stderr,
        )


def _exported(client: Client, workspace: str, reveal: bool) -> dict[str, Any]:
    path = workspace_path(workspace)
    shown = client.call("GET", path)["workspace"]
    triggers: list[Any] = []
    if shown["revision"]:
        query = {"reveal": "true"} if reveal else {}
        triggers = client.call("GET", f"{path}/revisions/{shown['revision']}", **query)["triggers"]
    return {
        "format": FORMAT,
        "workspace_id": workspace,
        "settings": shown["settings"],
        "triggers": triggers,
    }
