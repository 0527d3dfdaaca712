"""What wakes workers before their next poll, by pub/sub: whatever is lost here costs that wait."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from app.store.shard import Shard

_SILENCE_SECONDS = 10.0


async def listen(shard: Shard) -> AsyncGenerator[tuple[str, str], None]:
    """Notifications, for ever: what, and the execution that it is about, if any. The first one is
    ``listening``: from now on others are heard.

    Raises ``ConnectionError`` when nothing answers any more: a host that vanished says nothing.
    """
    async with shard.redis.pubsub() as subscription:
        await subscription.subscribe(shard.keys.wake)
        silent = False
        while True:
            message = await subscription.get_message(timeout=_SILENCE_SECONDS)
            if message is None and silent:
                raise ConnectionError("no answer where notifications come from")
            silent = message is None
            if message is None:
                await subscription.ping()
            elif message["type"] == "subscribe":
                yield "listening", ""
            elif message["type"] == "message":
                what, _, execution = message["data"].decode().partition(" ")
                yield what, execution


async def call_workers(shard: Shard) -> None:
    """Wake every worker: there is more to claim than those on duty have places for."""
    await shard.redis.publish(shard.keys.wake, "more")
