"""`cronspace import`: a workspace's settings and trigger set from a file that `cronspace export` wrote."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from app.cli.arguments import add_yes, confirm, parser, workspace_path
from app.cli.exporting import FORMAT
from app.client import Client
from app.counts import counted
from app.errors import ClientError


def run(argv: Sequence[str]) -> None:
    """Put a workspace in the place of what is there."""
    arguments = parser("import", "Put an exported workspace in the place of what is there.")
    arguments.add_argument("--workspace", help="another one than the exported")
    arguments.add_argument("file", help="as `cronspace export` wrote it; - is standard input")
    add_yes(arguments)
    given = arguments.parse_args(argv)
    exported = _read(given.file)
    workspace = given.workspace or exported["workspace_id"]
    triggers = exported["triggers"]
    confirm(
        f"Replace all triggers and settings of {workspace!r} by {counted(len(triggers), 'trigger')}?",
        given.yes,
    )
    with Client() as client:
        path = workspace_path(workspace)
        plan = client.call("PUT", f"{path}/triggers", {"triggers": triggers}, dry_run="true")
        client.call("PUT", path, exported["settings"])  # the set's defaults come from there
        done = client.call("PUT", f"{path}/triggers", {"triggers": triggers}, confirm="true")
    changes = ", ".join(f"{number} {what}" for what, number in done["changes"].items())
    print(f"{workspace}: revision {done.get('revision', plan.get('revision'))}, {changes}")


def _read(name: str) -> dict[str, Any]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text()
        exported = json.loads(text)
        if exported["format"] != FORMAT:
            raise ClientError(f"{name} has the format {exported['format']}, and this version knows {FORMAT}")
        return {part: exported[part] for part in ("workspace_id", "settings", "triggers")}
    except OSError as error:
        raise ClientError(f"{name} can't be read: {error.strerror}") from error
    except ValueError as error:
        raise ClientError(f"{name} is not what `cronspace export` writes: no JSON ({error})") from error
    except (LookupError, TypeError) as error:
        raise ClientError(f"{name} is not what `cronspace export` writes") from error
