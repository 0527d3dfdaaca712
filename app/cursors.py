"""Cursors of lists: where a page ends, as text that callers hand back as they got it."""

from __future__ import annotations

import base64
import binascii

from app.errors import Fault, InvalidRequest

Place = tuple[int, str]  # what a list is ordered by: a number, then an id


def write_cursor(place: Place) -> str:
    """The text of a place."""
    return base64.urlsafe_b64encode(f"{place[0]}:{place[1]}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> Place:
    """The place of a text; raises :class:`InvalidRequest` when it is none."""
    try:
        number, id_ = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode().split(":", 1)
        return int(number), id_
    except (binascii.Error, UnicodeError, ValueError) as error:
        raise no_place() from error


def no_place() -> InvalidRequest:
    """The error about a cursor that says no place of its list."""
    return InvalidRequest("The cursor is not valid.", [Fault("cursor", "not a cursor of this list")])
