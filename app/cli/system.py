"""`cronspace system`: whether firing is held because Redis lost data or its clock jumped; and going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.cli.arguments import add_output, add_yes, confirm, parser, print_json
from app.client import Client


def run(argv: Sequence[str]) -> None:
    """Show it, or resume."""
    arguments = parser(
        "system", "Whether Redis's data and clock can be trusted, and going on after they could not."
    )
    arguments.add_argument("what", nargs="?", choices=("show", "resume"), default="show")
    add_output(arguments)
    add_yes(arguments)
    given = arguments.parse_args(argv)
    with Client() as client:
        answer = client.call("GET", "/api/system")
        if given.what == "resume" and answer["holds"]:
            _tell(answer)
            confirm("Go on firing, with the data and the time that Redis has now?", given.yes)
            answer = client.call("POST", "/api/system/resume")
    if given.output == "json":
        print_json(answer)
    else:
        _tell(answer)


def _tell(answer: dict[str, Any]) -> None:
    if answer["firing"]:
        print("Due slots are fired.")
    for shard in answer["unread"]:
        print(f"Shard {shard['shard']} can't be read: {shard['reason']}")
    for hold in answer["holds"]:
        print(f"Held since {hold['since']} ({hold['kind']}, shard {hold['shard']}): {hold['detail']}")
    for loss in answer["losses"]:
        since = loss["since"] or "the beginning"
        print(f"Lost ({loss['kind']}, shard {loss['shard']}): what was from {since} to {loss['until']}")
