"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

from app import __version__
from bench.sides import BullMQ
from lab.processes import LabError, redis_binary


def describe(bullmq: BullMQ | None) -> dict[str, str | int | None]:
    """Cores and versions; None for what is not there. Names no host and no folder."""
    try:
        redis = _first_number([redis_binary(), "--version"])
    except LabError:
        redis = None
    nginx, node = shutil.which("nginx"), shutil.which("node")
    return {
        "cores": os.cpu_count(),
        "usable_cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "processor": _processor(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "cronspace": __version__,
        "python": platform.python_version(),
        "redis": redis,
        "target": f"nginx {_first_number([nginx, '-v'])}" if nginx else "asyncio",
        "arq": version("arq"),
        "aiohttp": version("aiohttp"),
        "node": _first_number([node, "--version"]) if node else None,
        "bullmq": bullmq.version if bullmq else None,
    }


def _processor() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor()


def _first_number(command: list[str]) -> str | None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=20)
    found = re.search(r"\d+(\.\d+)+", done.stdout + done.stderr)
    return found[0] if found else None
