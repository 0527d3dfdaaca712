"""Redis emptied, or rolled back to what it was, under a running system."""

from __future__ import annotations

import time

from chaos.load import sleep_until
from chaos.outcome import Outcome, Scenario, seconds
from chaos.rig import Rig

_HELD_SECONDS = 5.0
_NOTICED_SECONDS = 3.0
_SNAPSHOTS = ("--save", "", "--appendonly", "no")  # what is saved is saved when told
