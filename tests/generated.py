"""What pages show of the code, made by the code: `make generated` writes it anew, and a test holds it.

A page has it between ``<!-- NAME -->`` and ``<!-- /NAME -->``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

from app.config import HELP, Settings, env_of
from bench import scaling

ROOT = Path(__file__).parents[1]


def settings() -> Iterator[tuple[str, str, str]]:
    """Every setting: its variable, its default as one writes it there, and what it means."""
    for name, help in HELP.items():
        value = getattr(Settings(), name)
        yield env_of(name), str(int(value) if isinstance(value, bool) else value), help


def env_example() -> str:
    """The text of ``.env.example``."""
    lines = [
        "# Every setting with its default: variables of the environment, as no file is read by itself.",
        "# For a shell: copy this, change what you need, and `set -a; . ./COPY; set +a`. Docker Compose",
        "# hands on those that docker-compose.yml names.",
        "",
    ]
    for env, default, help in settings():
        lines += [f"# {help}", f"{env}={default}", ""]
    return "\n".join(lines)


def settings_table() -> str:
    """The same as a table."""
    lines = ["| setting | default | |", "|---|---|---|"]
    for env, default, help in settings():
        meaning = help.replace("|", "\\|")
        lines.append(f"| `{env}` | {f'`{default}`' if default else ''} | {meaning} |")
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
