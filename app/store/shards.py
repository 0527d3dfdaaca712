"""All shards of a deployment: which of them has a workspace, and what every process has to agree on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence

from app.config import Settings, parse_numbers
from app.counts import counted
from app.errors import WrongDeployment
from app.keys import DEPLOYMENT, shard_number
from app.outage import Outage
from app.store.cluster import connect_to_owner, is_cluster
from app.store.connection import address_of, connect
from app.store.replicas import Replicas
from app.store.shard import Shard

FORMAT = 1  # of what is stored; a process refuses a later one
_BELIEVED_SECONDS = 5.0  # how long what was verified is taken to be so


class Shards:
    """The shards, in the order of their numbers. The first one also has what belongs to no workspace."""

    def __init__(self, shards: Sequence[Shard]) -> None:
        self._all = tuple(shards)
        self._verified = -_BELIEVED_SECONDS
        self._replicas = {id(shard.redis): Replicas(shard) for shard in reversed(self._all)}

    def __iter__(self) -> Iterator[Shard]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def __getitem__(self, number: int) -> Shard:
        return self._all[number]

    @property
    def first(self) -> Shard:
        """The shard that has what belongs to no workspace."""
        return self._all[0]

    @property
    def settings(self) -> Settings:
        """Those of every shard."""
        return self.first.settings

    @property
    def served(self) -> list[Shard]:
        """Those that a worker with these settings serves."""
        return [self._all[number] for number in parse_numbers(self.settings.worker_shards, len(self._all))]

    def of(self, workspace: str) -> Shard:
        """The shard that has a workspace."""
        return self._all[shard_number(workspace, len(self._all))]

    def replicas_of(self, shard: Shard) -> Replicas:
        """The replicas of the Redis that has a shard; shards that have the same one share them."""
        return self._replicas[id(shard.redis)]

    @property
    def replicas(self) -> list[Replicas]:
        """Those of every Redis."""
        return list(self._replicas.values())

    def split(self, workspaces: Iterable[str]) -> list[tuple[Shard, list[str]]]:
        """Workspaces by the shard that has them; shards without any are left out."""
        groups: dict[int, list[str]] = {}
        for workspace in workspaces:
            groups.setdefault(shard_number(workspace, len(self._all)), []).append(workspace)
        return [(self._all[number], names) for number, names in sorted(groups.items())]

    async def verify(self) -> None:
        """Hold number of shards and format against what is stored; the first process that comes sets them.

        Raises :class:`WrongDeployment`. Asks Redis every few seconds at most.
        """
        if time.monotonic() - self._verified < _BELIEVED_SECONDS:
            return
        shards, moving = await note_deployment(self.first, len(self._all))
        if moving:
            raise WrongDeployment(
                f"Workspaces are being moved from {shards} to {counted(moving, 'shard')}: wait until"
                f" `cronspace reshard` has ended, and start with CRONSPACE_SHARDS={moving}."
            )
        if shards != len(self._all):
            raise WrongDeployment(
                f"What is stored has {counted(shards, 'shard')}, and CRONSPACE_SHARDS is"
                f" {len(self._all)}: set it to {shards}, or move the workspaces with `cronspace reshard`."
            )
        self._verified = time.monotonic()

    async def aclose(self) -> None:
        """Close the connections."""
        for client in {id(shard.redis): shard.redis for shard in self._all}.values():
            await client.aclose()


async def note_deployment(first: Shard, number: int) -> tuple[int, int]:
    """The number of shards that is stored, where none is yet ``number``; and the one that workspaces are
    being moved to (0: none). Raises :class:`WrongDeployment` for a format that this version does not know.
    """
    shards, format_, moving = await first.run(
        "note_deployment", number, FORMAT, keys=(DEPLOYMENT, first.keys.workspaces)
    )
    if format_ > FORMAT:
        raise WrongDeployment(
            f"What is stored has the format {format_}, and this version knows {FORMAT}: use a later one."
        )
    return shards, moving


def open_shards(settings: Settings) -> Shards:
    """The shards of the settings, with one client for all, or on a cluster with one each.

    Raises :class:`ConfigError` for a ``REDIS_URL`` that can't be read.
    """

    numbers = range(settings.shards)
    if is_cluster(settings):
        return Shards(
            [
                Shard(
                    connect_to_owner(settings, number),
                    settings,
                    number,
                    outage=Outage(redis=address_of(settings.redis_url), shard=number),
                )
                for number in numbers
            ]
        )
    client, outage = connect(settings), Outage(redis=address_of(settings.redis_url))
    return Shards([Shard(client, settings, number, outage=outage) for number in numbers])
