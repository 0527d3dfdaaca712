"""Moving workspaces to another number of shards."""

from __future__ import annotations

import asyncio
import itertools
import re
from functools import partial
from typing import Any

import msgspec
import pytest
from conftest import LOOPBACK, Clock, StartProcess, eventually
from helpers import Target, accounts_balance, claim_all, define, failed, open_ids, succeeded
from proxies import Proxy
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.exceptions import WatchError
from redis_cluster import RedisCluster

from app.clock import day_of
from app.config import Settings
from app.errors import ConfigError, WrongDeployment
from app.keys import DEPLOYMENT, shard_number
from app.models import State
from app.outgoing import Outgoing, SigningSecret
from app.reshard import reshard, run
from app.store import (
    Shard,
    Shards,
    connect,
    executions,
    fleet,
    holds,
    open_shards,
    orders,
    outgoing,
    queue,
    resharding,
    ticking,
    triggers,
    witness,
    workers,
)
from app.witness import Verdict
from lab.redis_servers import RedisServer

pytestmark = pytest.mark.anyio

NAMES = [f"ws-{number}" for number in range(9)]
TAG = re.compile(rb"\{\d+\}")


def shards_of(url: str, clock: Clock, number: int) -> Shards:
    settings = Settings(redis_url=url, shards=number, max_concurrency=2, keep_succeeded=3)
    client = connect(settings)
    return Shards([Shard(client, settings, at, clock) for at in range(number)])


async def fill(shards: Shards, clock: Clock) -> None:
    """Something of everything: running, waiting, retrying, failed, finished, paused, removed."""
    for name in NAMES:
        shard = shards.of(name)
        entries = [(f"t{number}", define("* * * * *", overlap_policy="queue")) for number in range(3)]
        await triggers.replace(shard, name, [*entries, ("p", define()), ("gone", define())])
        await holds.pause_triggers(shard, name, ["p"], "why")
        secret = SigningSecret(name, b"s" * 24, clock.now)
        await outgoing.change(shard, name, lambda _, one=secret: Outgoing(signing=(one,)))
    for number in range(1, 4):
        clock.advance(60)
        for shard in shards:
            while (await ticking.fire_due(shard)).handled or await ticking.refill(shard):
                pass
            claimed = await claim_all(shard, number=number)
            ends = [
                failed(one, clock.now)
                if at % 3 == 0
                else failed(one, clock.now, "retry", 90_000)
                if at % 3 == 1
                else succeeded(one, clock.now)
                for at, one in enumerate(claimed[:-1])
            ]
            await queue.finish(shard, ends)
    for name in NAMES:
        kept = [(f"t{number}", define("* * * * *", overlap_policy="queue")) for number in range(3)]
        await triggers.replace(shards.of(name), name, [*kept, ("p", define())])
        await orders.make(shards.of(name), name, "run", [orders.Order("t0", clock.now)])


async def content(shards: Shards) -> dict[bytes, Any]:
    """All that is stored, without the shards: what several have of a sorted set is put together."""
    redis = shards.first.redis
    found: dict[bytes, Any] = {}
    for key in sorted(await redis.keys("*")):
        plain = TAG.sub(b"", key)
        if plain.endswith((b":deployment", b":shard")) or b":claim:" in plain:
            continue
        kind = await redis.type(key)
        value: Any
        if kind == b"zset":
            members = {
                TAG.sub(b"", member): score
                for member, score in await redis.zrange(key, 0, -1, withscores=True)
            }
            value = found.get(plain, {}) | members
        elif kind == b"string":
            value = await redis.get(key)
            if plain.startswith(b"arq:result:"):
                record = msgspec.msgpack.decode(value)
                assert record["q"] == TAG.search(key)[0].decode().join(("cs:", ":queue"))
                value = TAG.sub(b"", value)
        elif kind == b"hash":
            value = await redis.hgetall(key)
        elif kind == b"set":
            value = await redis.smembers(key)
        else:
            value = await redis.dump(key)
        found[plain] = value
    return found


async def test_everything_is_moved_and_nothing_is_left_behind(redis_url: str, clock: Clock) -> None:
    ones = shards_of(redis_url, clock, 1)
    await fill(ones, clock)
    before = await content(ones)
    for stored, number in ((1, 4), (4, 2), (2, 5), (5, 1)):
        shards = shards_of(redis_url, clock, max(stored, number))
        moved = await resharding.move(shards, number)
        assert moved.workspaces > 0
        assert await content(shards) == before
        assert await resharding.move(shards, number) == resharding.Moved()
        target = shards_of(redis_url, clock, number)
        for name in NAMES:
            (one,) = await triggers_of(target.of(name), name)
            assert one == "p"
        await shards.aclose()
        await target.aclose()
    await ones.aclose()


async def triggers_of(shard: Shard, name: str) -> list[str]:
    return [key.decode() for key in await shard.redis.hkeys(shard.keys.of(name, "pauses"))]


async def test_what_was_under_way_goes_on_in_its_new_shard(redis_url: str, clock: Clock) -> None:
    ones = shards_of(redis_url, clock, 1)
    await fill(ones, clock)
    threes = shards_of(redis_url, clock, 3)
    await resharding.move(threes, 3)
    for name in NAMES:
        await triggers.replace(threes.of(name), name, [])
    clock.advance(600)
    for number in range(1, 60):
        for shard in threes:
            await queue.renew(shard, {})
            await queue.finish(
                shard, [succeeded(one, clock.now) for one in await claim_all(shard, number=number)]
            )
        clock.advance(10)
    for name in NAMES:
        shard = threes.of(name)
        assert await open_ids(shard, name) == set()
        await accounts_balance(shard, name, day_of(clock.now), day_of(clock.now) - 1)
        page = await executions.list_newest(shard, name, state=State.FAILED)
        assert {one.workspace for one in page.executions} <= {name}
    await ones.aclose()
    await threes.aclose()


async def test_a_number_given_after_a_move_is_higher_than_any_before(redis_url: str, clock: Clock) -> None:
    ones = shards_of(redis_url, clock, 1)
    await fill(ones, clock)
    threes = shards_of(redis_url, clock, 3)
    await resharding.move(threes, 3)
    serials = {int(await shard.redis.hget(shard.keys.root, "serial")) for shard in threes}
    assert len(serials) == 1
    await ones.aclose()
    await threes.aclose()


async def test_running_processes_stop_for_a_move_and_go_on_with_the_new_number(
    start_process: StartProcess, redis_url: str
) -> None:
    settings = Settings(redis_url=redis_url, egress_allow=LOOPBACK, lease_seconds=1)
    shards = Shards([Shard(connect(settings), settings)])
    start = partial(start_process, "worker", stderr=asyncio.subprocess.PIPE, CRONSPACE_LEASE_SECONDS="1")
    async with Target().running() as target:
        for name in NAMES:
            await triggers.replace(
                shards.of(name), name, [("t", define("* * * * * *", url=f"{target.url}/{name}"))]
            )
        worker = await start(CRONSPACE_SHARDS="1")
        await eventually(lambda: len(target.received) > len(NAMES))
        await reshard(settings, 3, noticed_seconds=0)
        _, told = await worker.communicate()
        assert worker.returncode == 1
        assert b"CRONSPACE_SHARDS=3" in told.splitlines()[-1]
        before = len(target.received)
        again = await start(CRONSPACE_SHARDS="3")
        names = {f"/{name}" for name in NAMES}
        await eventually(lambda: {one.path for one in target.received[before:]} == names)
        again.terminate()
        await again.communicate()
        ids = [one.headers["webhook-id"] for one in target.received]
        assert len(ids) == len(set(ids))
    await shards.aclose()


async def test_another_move_is_refused_while_one_is_under_way(redis_url: str) -> None:
    shards = Shards([Shard(connect(settings := Settings(redis_url=redis_url)), settings)])
    await shards.verify()
    await resharding.begin(shards, 3)
    await resharding.begin(shards, 3)
    with pytest.raises(WrongDeployment, match="cronspace reshard 3"):
        await resharding.begin(shards, 4)
    again = Shards([Shard(connect(settings), settings)])
    with pytest.raises(WrongDeployment, match="from 1 to 3 shards"):
        await again.verify()
    await shards.aclose()
    await again.aclose()


async def test_a_move_waits_until_somebody_resumes_and_takes_along_what_was_lost(
    redis_url: str, clock: Clock
) -> None:
    ones = shards_of(redis_url, clock, 1)
    for name in NAMES:
        await triggers.replace(ones.of(name), name, [("t", define(delivery="at_most_once"))])
    clock.advance(60)
    await ticking.fire_due(ones.first)
    # Redis has forgotten what it did since: that these were sent, perhaps.
    seen, ones.first.witness = ones.first.witness, Shard(ones.first.redis, ones.settings, now=clock).witness
    seen.hear(Verdict("", False, epoch="1-a", beat=f"{clock.now + 60_000}-a"), clock.now + 60_000)
    clock.advance(65)
    ones.first.witness = seen
    threes = shards_of(redis_url, clock, 3)
    assert (await ticking.fire_due(ones.first)).handled == 0
    with pytest.raises(WrongDeployment, match="cronspace system resume"):
        await resharding.begin(threes, 3)
    await witness.resume(ones.first)
    await resharding.begin(threes, 3)
    for _ in range(2):
        await resharding.move(threes, 3)
    assert await claim_all(ones.first) == []
    for shard in threes:
        assert len(await witness.losses(shard)) == 1
        assert await claim_all(shard) == []
    for name in NAMES:
        (letter,) = (await executions.list_newest(threes.of(name), name)).executions
        assert letter.reason == "unknown_outcome"
    await ones.aclose()
    await threes.aclose()


async def test_heartbeats_of_workers_stay_where_they_are(redis_url: str, clock: Clock) -> None:
    ones, threes = shards_of(redis_url, clock, 1), shards_of(redis_url, clock, 3)
    facts = workers.Facts(name="w", version="1", started=0, capacity=10, running=0)
    for number in range(9):
        await workers.note(ones.first, f"process-{number}", facts)
    assert await resharding.move(threes, 3) == resharding.Moved()
    assert len(await workers.all_seen(threes.first)) == 9
    await ones.aclose()
    await threes.aclose()


async def test_what_a_shard_counted_stays_counted_when_it_goes(redis_url: str, clock: Clock) -> None:
    threes = shards_of(redis_url, clock, 3)
    await fill(threes, clock)
    facts = workers.Facts(name="w", version="1", started=0, capacity=10, running=0)
    for shard in threes:
        await workers.note(shard, "process", facts)
    before = (await fleet.read(threes)).totals
    assert before["due"] > 0
    assert len([shard for shard in threes if await shard.redis.exists(shard.keys.totals)]) == 3
    for _ in range(2):
        await resharding.move(threes, 2)
    twos = shards_of(redis_url, clock, 2)
    assert (await fleet.read(twos)).totals == before
    left = await threes.first.redis.keys("*{2}*")
    for_ever = {key.decode() for key in left if await threes.first.redis.pttl(key) < 0}
    assert for_ever <= {threes[2].keys.root, threes[2].keys.beats}
    await threes.aclose()
    await twos.aclose()


class Interrupted(Exception):
    """Somebody pressed Ctrl-C."""


async def test_a_move_that_is_interrupted_again_and_again_ends_as_one_that_is_not(
    redis_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    ones, fours = shards_of(redis_url, clock, 1), shards_of(redis_url, clock, 4)
    await fill(ones, clock)
    before, left, interrupted = await content(ones), 0, 0

    def bounded(call: Any) -> Any:
        async def made(*arguments: Any, **options: Any) -> Any:
            nonlocal left
            left -= 1
            reply = await call(*arguments, **options)
            if left < 0:
                raise Interrupted  # what it did is done, and nobody knows
            return reply

        return made

    for there, number in ((fours, 4), (fours, 1)):
        with monkeypatch.context() as patch:
            for kind, name in ((Redis, "execute_command"), (Pipeline, "execute")):
                patch.setattr(kind, name, bounded(getattr(kind, name)))
            for most in itertools.count(3, 5):
                left = most
                try:
                    await resharding.move(there, number)
                except Interrupted:
                    interrupted += 1
                else:
                    break
        assert await content(there) == before
    assert interrupted > 10
    await ones.aclose()
    await fours.aclose()


async def test_what_a_shard_counted_is_counted_once_though_the_move_was_interrupted(
    redis_url: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    twos = shards_of(redis_url, clock, 2)
    await fill(twos, clock)
    before = (await fleet.read(twos)).totals
    redis = twos.first.redis
    unlink = redis.unlink

    async def lost(*keys: str) -> int:
        if twos[1].keys.totals in keys:
            raise ConnectionError
        return int(await unlink(*keys))

    with monkeypatch.context() as patch:
        patch.setattr(redis, "unlink", lost)
        with pytest.raises(ConnectionError):
            await resharding.move(twos, 1)
    await resharding.move(twos, 1)
    one = shards_of(redis_url, clock, 1)
    assert (await fleet.read(one)).totals == before
    await twos.aclose()
    await one.aclose()


async def test_what_a_shard_counted_is_counted_once_though_redis_is_lost_before_it_says_so(
    own_redis: RedisServer, clock: Clock
) -> None:
    proxy = Proxy(own_redis.socket, losing=b"EXEC")
    async with proxy.running() as url:
        twos = shards_of(f"{url}/0", clock, 2)
        await fill(twos, clock)
        before = (await fleet.read(twos)).totals
        proxy.lose_next = 1
        with pytest.raises(WatchError):
            await resharding.move(twos, 1)
        assert proxy.lost == 1
        await resharding.move(twos, 1)
        one = shards_of(f"{url}/0", clock, 1)
        assert (await fleet.read(one)).totals == before
        await twos.aclose()
        await one.aclose()


async def test_places_at_hosts_and_lines_for_them_stay_where_they_lapse(redis_url: str, clock: Clock) -> None:
    ones, threes = shards_of(redis_url, clock, 1), shards_of(redis_url, clock, 3)
    keys = ones.first.keys
    place, line = keys.host("hooks.example.com"), keys.host_line("hooks.example.com")
    for name in NAMES:
        id_ = f"{name}:t:{clock.now}"
        await ones.first.redis.zadd(place, {f"worker|{id_}": clock.now + 1000})
        await ones.first.redis.zadd(line, {id_: clock.now})
    assert await resharding.move(threes, 3) == resharding.Moved()
    assert await ones.first.redis.zcard(place) == len(NAMES)
    assert await ones.first.redis.zcard(line) == len(NAMES)
    await ones.aclose()
    await threes.aclose()


async def test_nobody_is_stopped_for_a_move_to_the_number_that_there_is(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    shards = open_shards(settings := Settings(redis_url=redis_url, shards=3))
    await shards.verify()
    await reshard(settings, 3)
    assert "in 3 shards already" in capsys.readouterr().err
    again = open_shards(settings)
    await again.verify()
    await again.aclose()
    await shards.aclose()


async def test_a_later_format_is_not_moved(redis_url: str) -> None:
    shards = open_shards(settings := Settings(redis_url=redis_url))
    await shards.first.redis.hset(DEPLOYMENT, mapping={"shards": 1, "format": 99})
    with pytest.raises(WrongDeployment, match="format 99"):
        await reshard(settings, 3)
    assert not await shards.first.redis.hexists(DEPLOYMENT, "moving")
    await shards.aclose()


async def test_what_runs_out_goes_on_running_out_where_it_was_moved(redis_url: str) -> None:
    shards = open_shards(Settings(redis_url=redis_url, shards=2))
    name = next(name for name in NAMES if shard_number(name, 2) == 1)
    source, target = shards
    await source.redis.set(source.keys.of(name, "idempotency:1"), b"1", px=60_000)
    await source.redis.set(source.keys.of(name, "recent"), b"2")
    await resharding.move(shards, 2)
    assert 50_000 < await target.redis.pttl(target.keys.of(name, "idempotency:1")) <= 60_000
    assert await target.redis.pttl(target.keys.of(name, "recent")) == -1
    await shards.aclose()


@pytest.mark.parametrize("argv", [[], ["0"], ["-1"], ["x"], ["2", "3"], ["1025"]])
def test_a_number_that_can_not_be_is_refused(argv: list[str]) -> None:
    with pytest.raises(ConfigError, match="cronspace reshard 8"):
        run(argv)


@pytest.mark.xdist_group("cluster")
async def test_workspaces_move_between_the_nodes_of_a_cluster() -> None:
    with RedisCluster() as cluster:
        settings = Settings(redis_url=cluster.url, shards=2, lease_seconds=1)
        two = open_shards(settings)
        await two.verify()
        for name in NAMES:
            await triggers.replace(two.of(name), name, [("t", define())])
        await two.aclose()
        await reshard(settings, 5, noticed_seconds=0)
        five = open_shards(Settings(redis_url=cluster.url, shards=5))
        await five.verify()
        for name in NAMES:
            assert await five.of(name).redis.hkeys(five.of(name).keys.of(name, "definitions")) == [b"t"]
        await five.aclose()
