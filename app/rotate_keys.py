"""`cronspace rotate-keys`: store everything encrypted with the first key, or with `--decrypt` plain."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from app.config import Settings, load_settings
from app.errors import ConfigError
from app.sealing import Sealer, parse_keys
from app.store import open_shards, rotation
from app.store.rotation import Rotated


def run(argv: Sequence[str]) -> None:
    """Rotate, and say what was done. Everything else may go on meanwhile."""
    if set(argv) - {"--decrypt"}:
        raise ConfigError("takes no arguments but --decrypt, which stores everything plain again")
    settings = load_settings()
    keys = parse_keys(settings.encryption_keys)
    if not keys:
        raise ConfigError(
            "CRONSPACE_ENCRYPTION_KEYS is not set: there is no key to encrypt with, nor to decrypt with"
        )
    try:
        done = asyncio.run(_rotate(settings, Sealer(keys, only_opens=bool(argv))))
    except (RedisError, OSError) as error:
        sys.exit(f"cronspace rotate-keys: Redis failed: {error}. What was done stays done; run it again")
    print("decrypted:" if argv else "encrypted with the first key:", _told(done.resealed))
    if done.unreadable:
        sys.exit(
            f"cronspace rotate-keys: left as they are, for want of their key: {_told(done.unreadable)}."
            " Add it to CRONSPACE_ENCRYPTION_KEYS and run it again"
        )
    if not done.complete:
        sys.exit(
            "cronspace rotate-keys: something is still written with other keys: give all processes the same"
            " CRONSPACE_ENCRYPTION_KEYS, and run it again"
        )


async def _rotate(settings: Settings, sealer: Sealer) -> Rotated:
    shards = open_shards(settings)
    try:
        await shards.verify()
        return await rotation.rotate(shards, sealer)
    finally:
        await shards.aclose()


def _told(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{kind} ({number})" for kind, number in numbers.items() if number) or "nothing was left"
