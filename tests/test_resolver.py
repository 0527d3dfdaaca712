"""Names, asked of a real name server on loopback."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Sequence

import pytest
from conftest import eventually
from names import NameServer, serving_names

from app.models import FailureKind
from workers import resolver
from workers.failures import SendError
from workers.resolver import Resolver

pytestmark = pytest.mark.anyio


def zone(name: str) -> Sequence[str] | None:
    """Names that begin with hang get no answer, those with no are not there."""
    if name.startswith("hang"):
        return None
    return () if name.startswith("no") else ("192.0.2.1", "2001:db8::1")


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with serving_names(zone) as server:
        yield server


@pytest.fixture
async def asking(names: NameServer) -> AsyncIterator[Resolver]:
    asking = Resolver((names.address,))
    yield asking
    await asking.aclose()


async def test_a_name_has_addresses_of_both_families(asking: Resolver) -> None:
    found = await asking.look_up("both.test")
    assert {str(address) for address in found} == {"192.0.2.1", "2001:db8::1"}


async def test_a_name_is_asked_for_once_for_all_who_wait(asking: Resolver, names: NameServer) -> None:
    answers = await asyncio.gather(*(asking.look_up("both.test") for _ in range(20)))
    assert all(answer == answers[0] for answer in answers)
    await asking.look_up("both.test")
    failures = await asyncio.gather(*(asking.look_up("no.test") for _ in range(20)), return_exceptions=True)
    assert {str(error) for error in failures} == {"the host 'no.test' has no address: Domain name not found"}
    assert {error.kind for error in failures if isinstance(error, SendError)} == {FailureKind.DNS}
    assert names.asked == ["both.test", "no.test"]


async def test_an_answer_is_believed_for_a_while_only(
    asking: Resolver, names: NameServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_FRESH_SECONDS", 0.0)
    for _ in range(3):
        await asking.look_up("both.test")
    assert names.asked == ["both.test"] * 3


async def test_a_thousand_names_that_hang_hold_up_no_other(names: NameServer) -> None:
    asking = Resolver((names.address,))
    threads = threading.active_count()
    hanging = []
    for number in range(1000):
        hanging.append(asyncio.ensure_future(asking.look_up(f"hang{number}.test")))
        if number % 50 == 49:  # more at once than the server's socket holds would be lost
            await eventually(lambda number=number: len(set(names.asked)) == number + 1)
    begun = time.monotonic()
    for number in range(20):
        assert await asking.look_up(f"good{number}.test")
    assert time.monotonic() - begun < 2
    assert threading.active_count() == threads
    assert not any(one.done() for one in hanging)
    await asking.aclose()
    ended = await asyncio.gather(*hanging, return_exceptions=True)
    assert all(isinstance(one, SendError) for one in ended)


async def test_the_hosts_file_and_localhost_are_known(asking: Resolver, names: NameServer) -> None:
    assert "127.0.0.1" in {str(address) for address in await asking.look_up("localhost")}
    assert names.asked == []


@pytest.mark.parametrize("name", ["a..b", "x" * 64 + ".test", ".."])
async def test_an_odd_name_is_a_failure_like_any(asking: Resolver, name: str) -> None:
    with pytest.raises(SendError) as failure:
        await asking.look_up(name)
    assert failure.value.kind == FailureKind.DNS
