"""Processes whose wall clock is wrong, by libfaketime."""

from __future__ import annotations

from pathlib import Path


def library() -> Path | None:
    """libfaketime, where it is installed."""
    return next(iter(sorted(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"))), None)


def faked(**variables: str) -> dict[str, str]:
    """The environment of a process whose wall clock is wrong, and whose monotonic one is right."""
    return {"LD_PRELOAD": str(library()), "FAKETIME_DONT_FAKE_MONOTONIC": "1", **variables}
