"""How many of something there are, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 workspace``, ``2 workspaces``; ``plural`` where it takes more than an s."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def shards_named(numbers: Iterable[int]) -> str:
    """``shard 3``, or ``shards 0-4, 7``."""
    runs: list[list[int]] = []
    for number in sorted(set(numbers)):
        if runs and number == runs[-1][-1] + 1:
            runs[-1][1:] = [number]
        else:
            runs.append([number])
    several = len(runs) > 1 or len(runs[0]) > 1
    return f"shard{'s' * several} {', '.join('-'.join(map(str, run)) for run in runs)}"


def shards_by(reasons: Mapping[int, str]) -> dict[str, str]:
    """Each reason, once, with the shards that have it."""
    return {
        reason: shards_named(number for number, one in reasons.items() if one == reason)
        for reason in dict.fromkeys(reasons.values())
    }
