"""What something was measured on."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from pathlib import Path

from app import __version__
from lab.processes import LabError, redis_binary

Machine = dict[str, str | int | None]


def describe() -> Machine:
    """Cores and versions; None for what is not there. Names no host and no folder."""
    try:
        redis = first_number([redis_binary(), "--version"])
    except LabError:
        redis = None
    return {
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cronspace": __version__,
        "python": platform.python_version(),
        "redis": redis,
    }


def usable_cores() -> int:
    """How many cores this process may use, as far as the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def first_number(command: list[str]) -> str | None:
    """The first number with dots that a program prints: its version."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else None


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()
