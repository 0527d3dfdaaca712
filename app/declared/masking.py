"""Credentials are not shown: a mask stands for them, and sent back it stands for what is stored."""

from __future__ import annotations

import re
from collections.abc import Mapping

MASK = "********"

# Header names whose values are credentials by all likelihood.
_SECRET_NAME = re.compile(r"auth|cookie|token|secret|password|signature|credential|api-?key|-key$", re.I)


def mask_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers as answers show them."""
    return {name: MASK if _SECRET_NAME.search(name) else value for name, value in headers.items()}


def unmask_headers(
    headers: Mapping[str, str], stored: Mapping[str, str] | None
) -> tuple[dict[str, str], list[str]]:
    """The headers with stored values in the place of masks, and the names whose mask stands for nothing."""
    known = stored or {}
    found = {name: known.get(name, value) if value == MASK else value for name, value in headers.items()}
    return found, [name for name, value in headers.items() if value == MASK and name not in known]
