"""The Markdown pages, as tests read them.

A fenced block says by its language what it is held to:

* ``bash`` with a ``curl``: run, in the order of the page, in one shell, so that variables last. Every call
  answers 2xx, or in a block with a comment such as ``# 412: …`` that
* ``output``: exactly what the block before it printed
* ``jsonc``: an answer, shortened: every member that it names was in what the block before it printed
* ``json``: a trigger, or a set, that is accepted
* ``python``: can be compiled; those of the guarantees are run
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.M | re.S)
_MEMBER = re.compile(r'"([A-Za-z_]+)":')
_STATUS = re.compile(r"^# ([1-5]\d\d)\b", re.M)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    text: str
    line: int  # of its beginning

    @property
    def runs(self) -> bool:
        """Whether it is a script with calls."""
        return self.language == "bash" and "curl " in self.text

    @property
    def status(self) -> str | None:
        """What its calls answer; None for any 2xx."""
        found = _STATUS.search(self.text)
        return found[1] if found else None

    @property
    def members(self) -> set[str]:
        """The names of the members of the objects in it."""
        return set(_MEMBER.findall(self.text))


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    text = page.read_text()
    return [
        Block(match[1], match[2], text.count("\n", 0, match.start()) + 1) for match in _FENCE.finditer(text)
    ]


def prose_of(page: Path) -> str:
    """A page without its fenced blocks."""
    return _FENCE.sub("", page.read_text())


def anchors_of(page: Path) -> set[str]:
    """What a link into a page can name, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", prose_of(page), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def tables_of(page: Path) -> list[list[str]]:
    """The rows of a page's tables, as their cells, without the lines below the headings."""
    rows = [line for line in prose_of(page).splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows]
    return [row for row in cells if not all(re.fullmatch(r":?-+:?", cell) for cell in row)]
