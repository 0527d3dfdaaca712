"""Checks of what clients send: every fault of a body at once, each with its path.

``bodies`` parses whole bodies, ``fields`` checks each field by itself, ``rules`` what must fit together.
"""

from app.validation.bodies import parse_patch, parse_replace, parse_trigger, payload_faults
from app.validation.fields import check_workspace_id

__all__ = ["check_workspace_id", "parse_patch", "parse_replace", "parse_trigger", "payload_faults"]
