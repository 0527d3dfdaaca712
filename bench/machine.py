"""What the figures were measured on, and beside what."""

from __future__ import annotations

import shutil
from importlib.metadata import version

from bench.sides import BullMQ
from lab import machine
from lab.machine import Machine, first_number


def describe(bullmq: BullMQ | None) -> Machine:
    """The machine with the target and the peers; None for what is not there."""
    nginx, node = shutil.which("nginx"), shutil.which("node")
    return {
        **machine.describe(),
        "target": f"nginx {first_number([nginx, '-v'])}" if nginx else "asyncio",
        "arq": version("arq"),
        "aiohttp": version("aiohttp"),
        "node": first_number([node, "--version"]) if node else None,
        "bullmq": bullmq.version if bullmq else None,
    }
