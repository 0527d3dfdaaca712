"""What the arguments of client commands have in common, and how answers are printed."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote

_WHERE = "The API is at CRONSPACE_URL (http://127.0.0.1:3000), and CRONSPACE_KEY is the key to call it with."


def parser(command: str, summary: str) -> argparse.ArgumentParser:
    """A parser of a command's arguments."""
    return argparse.ArgumentParser(
        f"cronspace {command}", description=summary, epilog=_WHERE, allow_abbrev=False
    )


def add_output(parser: argparse.ArgumentParser) -> None:
    """`-o json` gives the API's answer instead of a table."""
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="how to print it")


def add_yes(parser: argparse.ArgumentParser) -> None:
    """`--yes` does without asking."""
    parser.add_argument("--yes", action="store_true", help="do not ask")


def confirm(question: str, yes: bool) -> None:
    """Go on only when somebody says so; ends the process with 1 otherwise."""
    if yes:
        return
    if not sys.stdin.isatty():
        sys.exit(f"{question} Say --yes: there is nobody to ask.")
    if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
        sys.exit("Nothing was done.")


def print_json(answer: Any) -> None:
    """An answer as it is."""
    print(json.dumps(answer, indent=2, ensure_ascii=False))


def print_table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Rows in columns."""
    lines = [tuple(head), *(tuple("-" if cell is None else str(cell) for cell in row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    for line in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def workspace_path(workspace: str) -> str:
    """Where the API has a workspace."""
    return f"/api/workspaces/{quote(workspace, safe='')}"
