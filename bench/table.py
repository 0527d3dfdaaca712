"""The figures as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from bench.result import Figure, Row

_HEAD = ("what", "unit", "ours", "peers", "ours / peer", "goal", "met", "once")


def table(rows: Mapping[str, Row]) -> str:
    """One line per figure, then the notes."""
    lines = [_HEAD, *(_cells(figure) for row in rows.values() for figure in row.figures)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEAD))]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    text.insert(1, "  ".join("-" * width for width in widths))
    notes = [f"{name}: {note}" for name, row in rows.items() for note in row.notes]
    return "\n".join([*text, *notes])


def _cells(figure: Figure) -> tuple[str, ...]:
    return (
        figure.name,
        figure.unit,
        _number(figure.ours),
        ", ".join(f"{name} {_number(value)}" for name, value in figure.peers.items()),
        ", ".join(f"{name} {ratio:.2f}" for name, ratio in figure.ratios().items()),
        figure.goal_text(),
        _verdict(figure.met()),
        _verdict(figure.once),
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _verdict(value: bool | None) -> str:
    return {True: "yes", False: "NO", None: ""}[value]
