"""The witness's memory outside Redis: a small file, for a loss amid which every process restarted."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
from contextlib import suppress
from pathlib import Path

import msgspec

from app.store import witness
from app.store.connection import without_login
from app.store.shard import Shard
from app.witness import Remembered

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0

_remembered = msgspec.json.Decoder(Remembered)


class Memory:
    """What one process saw of a shard: it looks every second, and keeps that for the next process."""

    def __init__(self, shard: Shard) -> None:
        self._shard = shard
        self._path = _path_of(shard)
        self._own = f".{secrets.token_hex(4)}"  # no process id: in containers that share a folder all have 1
        self._saved: Remembered | None = None
        self._is_failing = False
        self._jumped = False  # the clock had, in the round before

    def recall(self) -> None:
        """Go by what an earlier process saw of this Redis. To be called before the first call to it."""
        if self._path is None:
            return
        with suppress(FileNotFoundError):
            try:
                self._shard.witness.recall(_remembered.decode(self._path.read_bytes()))
            except (OSError, msgspec.MsgspecError) as error:
                if isinstance(error, FileNotFoundError):
                    raise
                log.warning("%s can't be read (%s): what was seen before is forgotten", self._path, error)

    async def once(self) -> float:
        """A round: look, and write down what was seen; returns the seconds until the next."""
        now = await witness.watch(self._shard)
        if self._jumped and now is not None:
            await witness.rebase(self._shard)
        self._jumped = self._shard.witness.why == "clock_jump"
        if self._path is not None:
            await asyncio.to_thread(self.save)
        return _LOOK_SECONDS

    def save(self) -> None:
        """Write down what was seen, in one step."""
        seen = self._shard.witness.remembered
        if self._path is None or seen is None or seen == self._saved:
            return
        beside = self._path.with_suffix(self._own)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(msgspec.json.encode(seen))
            beside.replace(self._path)
        except OSError as error:
            if not self._is_failing:
                log.warning("what was seen of Redis can't be kept in %s (%s)", self._path, error)
            self._is_failing = True
        else:
            self._saved, self._is_failing = seen, False


def _path_of(shard: Shard) -> Path | None:
    """The file of a shard: another server or database has another one. None: nothing is kept."""
    folder = shard.settings.state_dir
    if not folder:
        return None
    where = f"{without_login(shard.settings.redis_url).partition('://')[2]} {shard.keys.tag}"
    return Path(folder) / f"witness-{hashlib.sha256(where.encode()).hexdigest()[:16]}.json"
