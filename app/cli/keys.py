"""`cronspace keys`: API keys, made, listed and deleted."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from app.auth.callers import SCOPES
from app.cli.arguments import add_output, add_yes, confirm, parser, print_json, print_table
from app.client import Client


def run(argv: Sequence[str]) -> None:
    """One of the three."""
    given = _arguments().parse_args(argv)
    with Client() as client:
        {"create": _create, "list": _list, "delete": _delete}[given.what](client, given)


def _arguments() -> argparse.ArgumentParser:
    keys = parser("keys", "API keys: who may call the API. It takes a key with the scope admin.")
    what = keys.add_subparsers(dest="what", required=True, metavar="create|list|delete")
    create = what.add_parser("create", help="make a key, and print it: nobody can look it up later")
    create.add_argument("name", help="for people: who has it")
    create.add_argument("--scope", required=True, choices=list(SCOPES), help="what it may do")
    create.add_argument(
        "--workspace", action="append", required=True, help="where it goes, again for each; * for all"
    )
    create.add_argument("--expires-at", metavar="TIME", help="RFC 3339; left out: never")
    add_output(create)
    listed = what.add_parser("list", help="the keys, without their secrets")
    add_output(listed)
    delete = what.add_parser("delete", help="refuse a key from now on")
    delete.add_argument("id", help="as `list` shows it")
    add_yes(delete)
    return keys


def _create(client: Client, given: argparse.Namespace) -> None:
    body = {"name": given.name, "scope": given.scope, "workspaces": given.workspace}
    made = client.call("POST", "/api/keys", {**body, "expires_at": given.expires_at})
    if given.output == "json":
        print_json(made)
        return
    print(made["key"])
    print(f"This is the only time that it is shown. Its id is {made['id']}.", file=sys.stderr)


def _list(client: Client, given: argparse.Namespace) -> None:
    answer = client.call("GET", "/api/keys")
    if given.output == "json":
        print_json(answer)
        return
    print_table(
        ("ID", "NAME", "SCOPE", "WORKSPACES", "CREATED", "EXPIRES", "LAST USED"),
        (
            (
                one["id"],
                one["name"],
                one["scope"],
                ",".join(one["workspaces"]),
                one["created_at"],
                one["expires_at"],
                one["last_used_at"],
            )
            for one in answer["keys"]
        ),
    )


def _delete(client: Client, given: argparse.Namespace) -> None:
    confirm(f"Refuse the key {given.id} from now on?", given.yes)
    client.call("DELETE", f"/api/keys/{given.id}")
    print(f"{given.id} is refused from now on.")
