"""How much of stored values an answer shows: it depends on who asks, and on what they ask for."""

from __future__ import annotations

from typing import Annotated

from msgspec import Struct

from app.api.fields import about
from app.api.operations import Call
from app.declared.masking import View


class Reveal(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is shown."""

    reveal: Annotated[
        bool,
        about("Show what is masked; needs the scope `write`, without which more of it is."),
    ] = False


def view_of(call: Call, query: Reveal | None = None) -> View:
    """What the caller is shown; raises :class:`app.errors.Forbidden` where they may not ask for that."""
    if query is not None and query.reveal:
        call.caller.need("write")
        return View.ALL
    return View.USUAL if call.caller.has("write") else View.STRUCTURE
