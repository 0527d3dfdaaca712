"""A trigger's state, an array that the scripts keep: what stands where says ``lua/_keys.lua``."""

from __future__ import annotations

from typing import Annotated, Any, cast

import msgspec
from msgspec import Meta

BORN, VERSION, POSITION, AFTER, RULES, NOTES, HELD = range(7)
NOTHING: list[Any] = [0, 0, 0, 0, False, False]

_state = msgspec.msgpack.Decoder(Annotated[list[Any], Meta(min_length=HELD)])


def read_state(packed: bytes | None) -> list[Any] | None:
    """A state; None where none can be read: that is an error of its trigger, and holds up no other."""
    try:
        return None if packed is None else cast(list[Any], _state.decode(packed))
    except msgspec.MsgspecError:
        return None


def position_of(packed: bytes | None) -> int:
    """A trigger's place in its set, as its state has it."""
    return int((read_state(packed) or NOTHING)[POSITION])
