"""Ways around the guard. What counts is who was really connected to: listening sockets, and every connect().

Each attempt is made as a worker makes it, from a stored definition on. Names are answered by a real name
server.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from certificates import self_signed
from helpers import OK, Target, define
from names import NameServer, serving_names

from app.egress import Egress, make_egress
from app.errors import ConfigError
from app.models import pack_definition
from app.store.queue import Claimed, Ended
from app.urls import parse_target
from workers import delivery, resolver
from workers.outgoing import Ready
from workers.resolver import Resolver
from workers.transport import Transport, tls_context

pytestmark = pytest.mark.anyio

GUARDED, OPEN = Egress(), make_egress("*", "", "")

# Names and what they resolve to.
ZONE: dict[str, tuple[str, ...]] = {
    "localhost": ("127.0.0.1",),  # with a dot at its end it is asked for like any name
    "loopback.test": ("127.0.0.1",),
    "loopback6.test": ("::1",),
    "private.test": ("10.0.0.1",),
    "metadata.test": ("169.254.169.254",),
    "mapped.test": ("::ffff:127.0.0.1",),
    "nat64.test": ("64:ff9b::7f00:1",),
    "two.test": ("10.0.0.1", "fd00::1"),
    "unspecified.test": ("0.0.0.0", "::"),
    "xn--bcher-kva.test": ("127.0.0.1",),
    "public.test": ("8.8.8.8",),
    "public6.test": ("2600::1",),
    "dual.test": ("8.8.8.8", "2600::1"),
    "xn--strae-oqa.test": ("1.1.1.1",),
}

# {port} is one that listens on 127.0.0.1 and ::1. These would get there: without the guard they do.
LEADING_HOME = [
    "http://127.0.0.1:{port}/",
    "http://2130706433:{port}/",
    "http://0x7f000001:{port}/",
    "http://0X7F000001:{port}/",
    "http://017700000001:{port}/",
    "http://0177.0.0.1:{port}/",
    "http://00000177.0.0.1:{port}/",
    "http://0x7f.0.0.1:{port}/",
    "http://0x7f.0x0.0x0.0x1:{port}/",
    "http://0x7f.1:{port}/",
    "http://127.1:{port}/",
    "http://127.0.1:{port}/",
    "http://127.0x0.00.1:{port}/",
    "http://127.0.0.0x1:{port}/",
    "http://127.0.0.1.:{port}/",
    "http://127.1.:{port}/",
    "http://0x7f000001.:{port}/",
    "http://127。0。0。1:{port}/",
    "http://127\uff0e0\uff0e0\uff0e1:{port}/",
    "http://127｡0｡0｡1:{port}/",
    "HTTP://127.0.0.1:{port}",
    "http://127.0.0.1:0{port}/",
    "http://127.0.0.1:{port}?@example.com/",
    "http://127.0.0.1:{port}#@example.com/",
    "http://127.0.0.1:{port}/@example.com/..",
    "http://[::1]:{port}/",
    "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[0000:0000:0000:0000:0000:0000:0000:0001]:{port}/",
    "http://[::0001]:{port}/",
    "http://[::0.0.0.1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/",
    "http://[::FFFF:7F00:1]:{port}/",
    "http://[0:0:0:0:0:ffff:127.0.0.1]:{port}/",
    "http://0.0.0.0:{port}/",
    "http://0:{port}/",
    "http://0x0:{port}/",
    "http://00.0.0:{port}/",
    "http://[::]:{port}/",
    "http://[::ffff:0.0.0.0]:{port}/",
    "http://localhost:{port}/",
    "http://LOCALHOST:{port}/",
    "http://localhost.:{port}/",
    "http://any.localhost:{port}/",
    "http://loopback.test:{port}/",
    "http://LoopBack.Test.:{port}/",
    "http://loopback6.test:{port}/",
    "http://mapped.test:{port}/",
    "http://bücher.test:{port}/",
    "http://BÜCHER.test:{port}/",
    "http://unspecified.test:{port}/",
]

# These would leave for somewhere that a test can't listen at.
LEADING_INSIDE = [
    "http://10.0.0.1/",
    "http://0xa000001/",
    "http://012.0.0.1/",
    "http://172.16.0.1/",
    "http://192.168.0.1/",
    "http://192.168.1/",
    "http://100.64.0.1/",
    "http://169.254.169.254/latest/meta-data/",
    "http://2852039166/",
    "http://0xA9.0xFE.0xA9.0xFE/",
    "http://0251.0376.0251.0376/",
    "http://169.254.43518/",
    "http://[::ffff:169.254.169.254]/",
    "http://[::ffff:a9fe:a9fe]/",
    "http://168.63.129.16/",
    "http://192.0.0.192/",
    "http://100.100.100.200/",
    "http://198.18.0.1/",
    "http://192.0.2.1/",
    "http://224.0.0.1/",
    "http://255.255.255.255/",
    "http://4294967295/",
    "http://240.0.0.1/",
    "http://192.88.99.1/",
    "http://[::127.0.0.1]/",
    "http://[::7f00:1]/",
    "http://[::ffff:0:127.0.0.1]/",
    "http://[64:ff9b::127.0.0.1]/",
    "http://[64:ff9b::a9fe:a9fe]/",
    "http://[64:ff9b:1::7f00:1]/",
    "http://[2002:7f00:1::]/",
    "http://[2002:a9fe:a9fe::1]/",
    "http://[2001::80ff:fffe]/",
    "http://[2001:0:4136:e378:8000:63bf:80ff:fffe]/",
    "http://[fd00:ec2::254]/",
    "http://[fe80::1]/",
    "http://[fec0::1]/",
    "http://[ff02::1]/",
    "http://[2001:db8::1]/",
    "http://[100::1]/",
    "http://private.test/",
    "http://metadata.test/",
    "http://nat64.test/",
    "http://two.test/",
    "https://private.test/",
]

# These are no URLs for us: they are refused when they are stored, and were they stored, nothing would leave.
NO_URLS = [
    "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/",
    "http://[::1%25lo]:{port}/",
    "http://[::1%lo]:{port}/",
    "http://\uff11\uff12\uff17.0.0.1:{port}/",
    "http://①②⑦.⓪.⓪.①:{port}/",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/",
    "http://example.com@127.0.0.1:{port}/",
    "http://example.com:80@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}@127.0.0.1/",
    "http://127.0.0.1:{port}\\@example.com/",
    "http://example.com\\@127.0.0.1:{port}/",
    "http://127.0.0.1%00.example.com:{port}/",
    "http://127.0.0.1%2f.example.com:{port}/",
    "http://%31%32%37.0.0.1:{port}/",
    "http://127.0.0.1\t:{port}/",
    "http://127.0.0.1:{port}:80/",
    "http://256.0.0.1:{port}/",
    "http://127.0.0.1.5:{port}/",
    "http://127.0.0.0.1:{port}/",
    "http://08.0.0.1:{port}/",
    "http://0x7f.0.0.0x100:{port}/",
    "http://4294967296:{port}/",
    "http://127.0.0.1..:{port}/",
    "http://[127.0.0.1]:{port}/",
    "http://[::ffff:0x7f.0.0.1]:{port}/",
    "http:127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/",
    "//127.0.0.1:{port}/",
    "ftp://127.0.0.1:{port}/",
    "file:///etc/passwd",
    "gopher://127.0.0.1:{port}/_x",
    "http://{{trigger}}:{port}/",
    "http://127.0.0.{{attempt}}:{port}/",
    "http://127.0.0.1{{workspace}}:{port}/",
]

PUBLIC = [
    ("http://8.8.8.8/", ("8.8.8.8",)),
    ("https://1.1.1.1/dns-query", ("1.1.1.1",)),
    ("http://134744072/", ("8.8.8.8",)),
    ("http://8.8.2056/", ("8.8.8.8",)),
    ("http://8.8.8.8.:8080/", ("8.8.8.8",)),
    ("http://[2600::1]/", ("2600::1",)),
    ("https://[2a00:1450:4001:82a::200e]:8443/", ("2a00:1450:4001:82a::200e",)),
    ("http://[64:ff9b::8.8.8.8]/", ("64:ff9b::808:808",)),
    ("http://[::ffff:8.8.8.8]/", ("::ffff:8.8.8.8",)),
    ("http://172.15.0.1/", ("172.15.0.1",)),
    ("http://172.32.0.1/", ("172.32.0.1",)),
    ("http://100.128.0.1/", ("100.128.0.1",)),
    ("http://192.169.0.1/", ("192.169.0.1",)),
    ("http://169.253.1.1/", ("169.253.1.1",)),
    ("http://public.test/", ("8.8.8.8",)),
    ("https://PUBLIC.test./a?b=c", ("8.8.8.8",)),
    ("https://public6.test:444/", ("2600::1",)),
    ("https://dual.test/", ("8.8.8.8", "2600::1")),
    ("https://straße.test/", ("1.1.1.1",)),
    ("https://public.test/{{trigger}}?at={{scheduled_at}}", ("8.8.8.8",)),
    ("http://public.test/http://127.0.0.1/@localhost", ("8.8.8.8",)),
]

_listeners: list[list[str]] = []
_barriers: list[str] = []


def _note_connect(event: str, given: tuple[Any, ...]) -> None:
    if event == "socket.connect" and isinstance(given[1], tuple):
        for connects in _listeners:
            connects.append(str(given[1][0]))
        if _barriers:
            raise OSError(_barriers[0])


sys.addaudithook(_note_connect)  # for good: hooks can't be taken away


@pytest.fixture
def connects() -> Iterator[list[str]]:
    """Every address that a TCP connection was asked for, from this process."""
    made: list[str] = []
    _listeners.append(made)
    yield made
    _listeners.remove(made)


@pytest.fixture
def barred(connects: list[str]) -> Iterator[list[str]]:
    """The same, and each of them fails right there: nothing leaves this machine."""
    _barriers.append("barred by the test")
    yield connects
    _barriers.clear()


class Trap:
    """Listens on several addresses at one port, and counts who connects to which."""

    def __init__(self) -> None:
        self.port = 0
        self.peers: list[str] = []  # addresses that were connected to
        self.answer = OK
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.peers.append(writer.get_extra_info("sockname")[0])
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(self.answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        writer.close()


@asynccontextmanager
async def trapping(*addresses: str) -> AsyncIterator[Trap]:
    """A trap on these addresses, until the block ends."""
    trap = Trap()
    async with AsyncExitStack() as stack:
        for address in addresses:
            server = await asyncio.start_server(trap.serve, address, trap.port)
            stack.callback(server.close)
            trap.port = server.sockets[0].getsockname()[1]
        yield trap
        for writer in trap.writers:
            writer.transport.abort()
        await asyncio.sleep(0)  # the loop closes aborted transports in its next round


@pytest.fixture
async def names() -> AsyncIterator[NameServer]:
    async with serving_names(lambda name: ZONE.get(name, ())) as server:
        yield server


@pytest.fixture
async def transport(names: NameServer) -> AsyncIterator[Transport]:
    transport = Transport(100, 1000, 10, resolver=Resolver((names.address,)))
    yield transport
    await transport.aclose()


async def send(transport: Transport, policy: Egress | Ready, url: str, **fields: Any) -> Ended:
    packed = pack_definition(define(url=url, method="GET", timeout_seconds=5, **fields))
    ready = policy if isinstance(policy, Ready) else Ready(policy)
    one = Claimed("acme:t:1790000040000", "acme", "t", 1_790_000_040_000, [], packed, 0, "t")
    return await delivery.attempt(transport, one, 1_790_000_041_000, "w", ready)


def kind_of(ended: Ended) -> str:
    assert ended.attempt is not None
    return ended.attempt.kind


@pytest.mark.parametrize("url", LEADING_HOME)
async def test_a_url_that_leads_home_is_refused(transport: Transport, connects: list[str], url: str) -> None:
    async with trapping("127.0.0.1", "::1") as trap:
        url = url.format(port=trap.port)
        ended = await send(transport, GUARDED, url)
        assert (ended.what, kind_of(ended)) == ("failed", "blocked")
        assert connects == trap.peers == []
        # Were there no guard, it would get there.
        assert (await send(transport, OPEN, url)).what == "succeeded"
        assert len(trap.peers) == 1


@pytest.mark.parametrize("url", LEADING_INSIDE)
async def test_a_url_that_leads_inside_is_refused(
    transport: Transport, connects: list[str], url: str
) -> None:
    ended = await send(transport, GUARDED, url)
    assert (ended.what, kind_of(ended)) == ("failed", "blocked")
    assert connects == []


@pytest.mark.parametrize("url", NO_URLS)
async def test_what_is_no_url_is_sent_nowhere(transport: Transport, connects: list[str], url: str) -> None:
    async with trapping("127.0.0.1", "::1") as trap:
        url = url.replace("{port}", str(trap.port))
        ended = await send(transport, OPEN, url)
        assert (ended.what, kind_of(ended)) == ("failed", "internal")
        assert connects == trap.peers == []


@pytest.mark.parametrize(("url", "addresses"), PUBLIC)
async def test_a_public_url_passes(
    transport: Transport, barred: list[str], url: str, addresses: Sequence[str]
) -> None:
    ended = await send(transport, GUARDED, url)
    assert ended.attempt is not None
    assert (ended.attempt.kind, "barred by the test" in ended.attempt.message) == ("connect", True)
    assert set(map(ip_address, barred)) == set(map(ip_address, addresses))


async def test_of_mixed_answers_only_the_permitted_address_is_connected_to(
    names: NameServer, transport: Transport, connects: list[str]
) -> None:
    names.zone = lambda _: ("127.0.0.1", "127.0.0.2", "::1")
    only_2 = make_egress("127.0.0.2", "", "")
    async with trapping("127.0.0.1", "127.0.0.2", "::1") as trap:
        assert (await send(transport, only_2, f"http://mixed.test:{trap.port}/")).what == "succeeded"
        assert trap.peers == connects == ["127.0.0.2"]
    del connects[:]
    async with trapping("127.0.0.1", "::1") as trap:  # nobody at the permitted one
        other = Transport(100, 1000, 10, resolver=Resolver((names.address,)))
        ended = await send(other, only_2, f"http://mixed.test:{trap.port}/")
        assert kind_of(ended) == "connect"
        assert trap.peers == []
        assert set(connects) == {"127.0.0.2"}
        await other.aclose()


async def test_a_name_server_that_flips_its_answers_gains_nothing(
    names: NameServer, transport: Transport, connects: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_FRESH_SECONDS", 0.0)
    answers = iter(["127.0.0.2", "127.0.0.1"] * 10)
    names.zone = lambda _: (next(answers),)
    only_2 = make_egress("127.0.0.2", "", "")
    async with trapping("127.0.0.1", "127.0.0.2") as trap:
        trap.answer = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        url = f"http://rebinding.test:{trap.port}/"
        seen = [kind_of(await send(transport, only_2, url)) for _ in range(10)]
        assert seen == ["", "blocked"] * 5
        assert names.asked == ["rebinding.test"] * 10  # once for an attempt: nobody looks again
        assert trap.peers == connects == ["127.0.0.2"] * 5
        # A connection that is kept stays with the peer that was checked.
        trap.answer = OK
        assert [kind_of(await send(transport, only_2, url)) for _ in range(3)] == ["", "", ""]
        assert trap.peers == connects == ["127.0.0.2"] * 6


async def test_the_peer_decides_should_it_be_another_than_the_address_that_was_checked(
    transport: Transport,
) -> None:
    async with Target().running() as target:  # whoever connects to 0.0.0.0 gets to 127.0.0.1
        url = target.url.replace("127.0.0.1", "0.0.0.0")
        assert kind_of(await send(transport, make_egress("0.0.0.0", "", ""), url)) == "blocked"
        assert target.received == []


async def test_a_kept_connection_serves_the_policy_that_it_was_made_under(
    transport: Transport, connects: list[str]
) -> None:
    async with trapping("127.0.0.1") as trap:
        url = f"http://loopback.test:{trap.port}/"
        assert (await send(transport, OPEN, url)).what == "succeeded"
        assert kind_of(await send(transport, GUARDED, url)) == "blocked"
        assert kind_of(await send(transport, make_egress("*", "loopback.test", ""), url)) == "blocked"
        assert kind_of(await send(transport, make_egress("*", "", "1"), url)) == "blocked"
        assert trap.peers == connects == ["127.0.0.1"]


@pytest.mark.parametrize(
    ("lists", "asked", "kind"),
    [
        (("loopback.test", "", ""), "other.test", "blocked"),
        (("loopback.test", "*", ""), "other.test:{port}", "blocked"),
        (("loopback.test", "", ""), "{{{{secret.other}}}}", "blocked"),
        (("*", "other.test", ""), "OTHER.test.", "blocked"),
        (("*", ".test.example", ""), "a.test.example:", "blocked"),
        (("loopback.test", "", ""), "LOOPBACK.test.:{port}", ""),
        (("loopback.test,other.test", "*", ""), "other.test", ""),
        (("127.0.0.0/8", "", ""), "other.test", ""),  # no name decides
        (("*", "", ""), "other.test", ""),
    ],
)
async def test_a_host_header_asks_for_no_other_host_than_the_lists_let_through(
    transport: Transport, connects: list[str], lists: tuple[str, str, str], asked: str, kind: str
) -> None:
    async with trapping("127.0.0.1") as trap:
        url = f"http://loopback.test:{trap.port}/"
        ready = Ready(make_egress(*lists), secrets={"other": "other.test"})
        assert (await send(transport, ready, url)).what == "succeeded"  # a kept connection does not help
        ended = await send(transport, ready, url, headers={"HOST": asked.format(port=trap.port)})
        assert kind_of(ended) == kind
        again = kind == "" and "LOOPBACK" not in asked
        assert len(trap.peers) == len(connects) == 1 + again


async def test_a_refused_name_or_port_is_not_looked_up(names: NameServer, transport: Transport) -> None:
    strict = make_egress("", ".evil.test", "443")
    assert kind_of(await send(transport, strict, "https://a.evil.test/")) == "blocked"
    assert kind_of(await send(transport, strict, "https://public.test:444/")) == "blocked"
    assert names.asked == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_not_followed(transport: Transport, connects: list[str], status: int) -> None:
    async with trapping("127.0.0.1") as trap, trapping("127.0.0.1") as elsewhere:
        trap.answer = (
            f"HTTP/1.1 {status} X\r\nlocation: http://127.0.0.1:{elsewhere.port}/\r\n"
            f"refresh: 0; url=http://127.0.0.1:{elsewhere.port}/\r\ncontent-length: 0\r\n\r\n"
        ).encode()
        ended = await send(transport, OPEN, f"http://127.0.0.1:{trap.port}/")
        assert (ended.what, kind_of(ended)) == ("failed", "status")
        assert (trap.peers, elsewhere.peers, len(connects)) == (["127.0.0.1"], [], 1)


async def test_proxies_of_the_environment_are_ignored(
    transport: Transport, connects: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async with trapping("127.0.0.1") as proxy, Target().running() as target:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv(name.upper(), f"http://127.0.0.1:{proxy.port}")
        assert (await send(transport, OPEN, target.url)).what == "succeeded"
        assert kind_of(await send(transport, GUARDED, "http://10.0.0.1/")) == "blocked"
        assert (proxy.peers, len(target.received), len(connects)) == ([], 1, 1)


async def test_a_blocked_request_is_not_retried_and_says_why(transport: Transport) -> None:
    ended = await send(transport, GUARDED, "http://loopback.test/", max_retries=9)
    assert ended.what == "failed"
    assert ended.attempt is not None
    assert ended.attempt.message == "the host 'loopback.test' is not allowed here: it has a loopback address"


async def test_a_ca_file_is_trusted_instead_of_the_systems(names: NameServer, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path, "DNS:loopback.test,IP:127.0.0.1")
    trap = Trap()
    server = await asyncio.start_server(trap.serve, "127.0.0.1", 0, ssl=certificate.context())
    port = server.sockets[0].getsockname()[1]
    for tls, hosts, wanted in (
        (None, ("loopback.test",), "tls"),
        (tls_context(str(certificate.file)), ("loopback.test", "127.0.0.1"), ""),
        (tls_context(str(certificate.file)), ("localhost",), "tls"),  # not a name of the certificate
    ):
        transport = Transport(100, 1000, 10, tls=tls, resolver=Resolver((names.address,)))
        for host in hosts:
            assert kind_of(await send(transport, OPEN, f"https://{host}:{port}/")) == wanted
        await transport.aclose()
    server.close()


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_a_ca_file_that_can_not_be_used_is_one_clear_line(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "ca.pem"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=r"CRONSPACE_EGRESS_CA_FILE: can't use .*ca\.pem"):
        tls_context(str(file))


def test_the_table_is_long_enough_and_its_bad_urls_are_refused_when_stored() -> None:
    assert len({*LEADING_HOME, *LEADING_INSIDE, *NO_URLS}) >= 60
    assert len(PUBLIC) >= 20
    for url in NO_URLS:
        if "{{" not in url:
            with pytest.raises(ValueError, match=r"\w"):
                parse_target(url.format(port=80))
