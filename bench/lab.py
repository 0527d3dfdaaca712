"""What a measurement runs on: the lab with the benchmark's targets."""

from __future__ import annotations

import lab.lab
from bench.target import Target


class Lab(lab.lab.Lab):
    """A lab whose targets answer as fast as they can."""

    def target(self, delay: float = 0.0) -> Target:
        """Start a target that answers after ``delay`` seconds."""
        target = Target(self.path("target"), delay)
        self.at_end(target.close)
        return target
