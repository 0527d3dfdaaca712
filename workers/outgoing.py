"""What requests go out with beside what their triggers say, as a worker has it at hand.

It is kept by its version, which each claim tells, so that only what changed is read.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from msgspec import Struct

from app.config import Settings
from app.egress import Egress, make_egress
from app.errors import SealError
from app.models import FailureKind
from app.outgoing import Masker, OwnEgress, SigningSecret, unpack_outgoing
from app.store import Shard
from app.store import outgoing as store
from app.store.queue import Claimed

log = logging.getLogger(__name__)

_MOST_BYTES = 32 * 1024 * 1024  # of stored values in memory
_ENTRY_BYTES = 1024  # what one takes beside its value, about


class Ready(Struct, frozen=True, eq=False):
    """What the requests of a workspace go out with."""

    egress: Egress
    signing: tuple[SigningSecret, ...] = ()
    secrets: Mapping[str, str] = {}
    mask: Callable[[str], str] = str
    most_seconds: float = 3600.0  # an attempt may take, whatever its trigger says
    fault: str = ""  # why nothing can be sent
    fault_kind: FailureKind = FailureKind.INTERNAL

    def signing_at(self, now: int) -> list[bytes]:
        """The secrets that sign at a moment, ms since the epoch."""
        return [one.secret for one in self.signing if one.valid(now)]


class _Kept(Struct, frozen=True):
    version: int
    size: int
    ready: Ready


class OutgoingCache:
    """Of each workspace the last version loaded, as far as memory is meant for it."""

    def __init__(self, shard: Shard, most_bytes: int = _MOST_BYTES) -> None:
        self._shard, self._most = shard, most_bytes
        # Of workspaces that have nothing.
        self.usual = Ready(_policy(shard.settings, None), most_seconds=shard.settings.max_timeout_seconds)
        self._known: dict[str, _Kept] = {}  # the one that was loaded longest ago first
        self._size = 0
        self._policies: dict[OwnEgress, Egress] = {}

    async def load(self, executions: Iterable[Claimed]) -> dict[str, Ready]:
        """What the executions' workspaces send with, of those that have something: what is missing is read in
        one go. Raises what Redis raises.
        """
        wanted = {one.workspace: one.outgoing for one in executions if one.outgoing}
        missing = [name for name, version in wanted.items() if not self._has(name, version)]
        if missing:
            await self._read(missing, wanted)
        return {name: self._known[name].ready for name in wanted if name in self._known}

    async def _read(self, missing: Sequence[str], wanted: Container[str]) -> None:
        """Read some, and make room for them."""
        loaded = await store.load(self._shard, missing)
        for workspace in missing:
            self._forget(workspace)
        for workspace, (version, packed) in loaded.items():
            size = _ENTRY_BYTES + (len(packed) if isinstance(packed, bytes) else 0)
            self._known[workspace] = _Kept(version, size, self._prepare(workspace, packed))
            self._size += size
        for workspace in list(self._known):
            if self._size <= self._most:
                break
            if workspace not in wanted:
                self._forget(workspace)

    def _has(self, workspace: str, version: int) -> bool:
        known = self._known.get(workspace)
        if known is None or known.version != version:
            return False
        return known.ready.fault_kind is not FailureKind.KEY  # or it may be stored with a key of ours by now

    def _forget(self, workspace: str) -> None:
        known = self._known.pop(workspace, None)
        if known is not None:
            self._size -= known.size

    def _prepare(self, workspace: str, packed: bytes | SealError | None) -> Ready:
        try:
            if packed is None:
                raise LookupError("Redis has lost them: put its secrets and egress lists again")
            if isinstance(packed, SealError):  # the attempts will tell
                return self._faulty(packed, FailureKind.KEY)
            stored = unpack_outgoing(packed)
            values = {name: one.value for name, one in stored.secrets.items()}
            return Ready(
                self._policy_of(stored.egress),
                stored.signing,
                values,
                Masker(values.values()) if values else str,
                self.usual.most_seconds,
            )
        except Exception as error:  # one workspace's: the others go on
            log.error(
                "what its requests go out with can't be read: %s", error, extra={"workspace": workspace}
            )
            return self._faulty(error, FailureKind.INTERNAL)

    def _faulty(self, error: Exception, kind: FailureKind) -> Ready:
        fault = f"the workspace's secrets can't be read: {error}"
        return Ready(self.usual.egress, fault=fault, fault_kind=kind)

    def _policy_of(self, own: OwnEgress | None) -> Egress:
        """The same object for the same lists: connections are kept by it."""
        if own is None:
            return self.usual.egress
        if own not in self._policies:
            if len(self._policies) >= 1000:
                self._policies.clear()
            self._policies[own] = _policy(self._shard.settings, own)
        return self._policies[own]


def _policy(settings: Settings, own: OwnEgress | None) -> Egress:
    return make_egress(
        settings.egress_allow,
        settings.egress_deny,
        settings.egress_ports,
        None if own is None else own.lists(),
    )
