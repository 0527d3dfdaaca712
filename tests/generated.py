"""What pages show of the code, made by the code: `make generated` writes it anew, and a test holds it.

A page has it between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from app.config import HELP, Settings, env_example
from bench import scaling

ROOT = Path(__file__).parents[1]


def settings_table() -> str:
    """Every setting with its default and what it means."""
    defaults = Settings()
    lines = ["| setting | default | |", "|---|---|---|"]
    for name, (env, help) in HELP.items():
        value = getattr(defaults, name)
        shown = int(value) if isinstance(value, bool) else value
        default = "" if shown == "" else f"`{shown}`"
        meaning = help.replace("|", "\\|")
        lines.append(f"| `{env}` | {default} | {meaning} |")
    return "\n".join(lines)


PARTS: dict[str, dict[str, Callable[[], str]]] = {
    "docs/operations.md": {
        "settings": settings_table,
        "scaling": lambda: scaling.table(scaling.run()),
    },
}


def texts() -> dict[Path, str]:
    """The files that are generated, or hold parts that are, as they should be."""
    found = {ROOT / ".env.example": env_example()}
    for name, parts in PARTS.items():
        text = (ROOT / name).read_text()
        for part, make in parts.items():
            begin, end = f"<!-- {part} -->\n", f"\n<!-- /{part} -->"
            made = begin + make() + end
            text, count = re.subn(
                re.escape(begin) + ".*?" + re.escape(end), lambda _, made=made: made, text, flags=re.S
            )
            assert count == 1, f"{name} has no place for {part}"
        found[ROOT / name] = text
    return found


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text)
