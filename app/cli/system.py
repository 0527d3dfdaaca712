"""`cronspace system`: whether firing is held because Redis lost data or its clock jumped; and going on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from app.cli.arguments import add_output, add_yes, confirm, parser, print_json
from app.client import Client
from app.counts import shards_by, shards_named

_MINUTE = len("2026-01-01T00:00")  # of a moment in an answer


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
    for reason, shards in shards_by({one["shard"]: one["reason"] for one in answer["unread"]}).items():
        print(f"{shards[0].upper()}{shards[1:]} can't be read: {reason}")
    if answer["holds"]:
        print(f"Nothing is fired since {min(hold['since'] for hold in answer['holds'])}:")
    for reason in answer["reasons"]:
        print(f"- {reason}")
    _tell_losses(answer)


def _tell_losses(answer: dict[str, Any]) -> None:
    """What was lost before; what firing is held for now is told as such."""
    held = {hold["shard"]: hold["since"] for hold in answer["holds"] if hold["kind"] == "data_loss"}
    # Each shard of a Redis notices a loss by itself, within moments.
    events: dict[tuple[str, str, bool], list[dict[str, Any]]] = {}
    for loss in answer["losses"]:
        if loss["noticed_at"] < held.get(loss["shard"], "later"):
            events.setdefault((loss["noticed_at"][:_MINUTE], loss["kind"], loss["held"]), []).append(loss)
    if events:
        print("Lost in the past, and accepted:")
    for (minute, kind, was_held), losses in sorted(events.items()):
        since = "the beginning" if kind == "emptied" else min(loss["since"] for loss in losses)
        until = max(loss["until"] for loss in losses)
        which = shards_named(loss["shard"] for loss in losses)
        then = "firing was held, and resumed" if was_held else "firing was not held"
        print(f"- {minute.replace('T', ' ')} {kind}, {which}: what was from {since} to {until}; {then}")
