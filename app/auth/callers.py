"""A caller of the API: who it is, what it may do, and where."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from app.errors import Forbidden

Scope = Literal["read", "operate", "write", "admin"]
CallerKind = Literal["anonymous", "admin_key", "key", "jwt"]

# Each includes those before it.
SCOPES: dict[Scope, str] = {
    "read": "look at everything of the workspaces but the audit and secrets",
    "operate": "run, pause, resume, retry, cancel, backfill; delete dead letters",
    "write": "change triggers, settings and secrets",
    "admin": "API keys, the audit, erasing workspaces, where requests may go",
}
_RANKS = {scope: rank for rank, scope in enumerate(SCOPES)}

EVERYWHERE = "*"  # in the place of a list of workspaces


class Caller(Struct, frozen=True, kw_only=True):
    """Who calls."""

    kind: CallerKind
    id: str  # of the key; the token's subject
    name: str = ""  # for people
    scope: Scope | None  # None: a token that has none of ours
    workspaces: frozenset[str] | None  # None: all

    def sees(self, workspace: str) -> bool:
        """Whether a workspace is one of the caller's."""
        return self.workspaces is None or workspace in self.workspaces

    def has(self, scope: Scope) -> bool:
        """Whether the caller's scope includes another one."""
        return self.scope is not None and _RANKS[self.scope] >= _RANKS[scope]

    def need(self, scope: Scope) -> None:
        """Raise :class:`Forbidden` unless the caller's scope suffices."""
        if not self.has(scope):
            own = f"has the scope {self.scope!r}" if self.scope else "has no scope"
            raise Forbidden(f"This needs the scope {scope!r}; what you authenticated with {own}.", scope)

    def need_everywhere(self, scope: Scope) -> None:
        """The same for what belongs to no single workspace."""
        self.need(scope)
        if self.workspaces is not None:
            raise Forbidden(f"This needs the scope {scope!r} for all workspaces.", scope)


ANYBODY = Caller(kind="anonymous", id="", scope="admin", workspaces=None)  # where authentication is off
ADMIN = Caller(kind="admin_key", id="", name="CRONSPACE_ADMIN_KEY", scope="admin", workspaces=None)
