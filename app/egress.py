"""Where requests may go: hosts, ports, and above all addresses. Pure; `workers/transport.py` enforces it.

Tenants choose the URLs, and a worker stands inside a network: without a guard a trigger could call the
cloud's metadata service, databases and admin ports that nobody outside can reach (server-side request
forgery). What counts is the address that is really connected to, whatever it was written as:
:meth:`Egress.permitted` is asked about every address that a name has, right before connecting, and about the
peer after.

There are the deployment's lists, and a workspace may have lists of its own, given by an admin. In this order,
the first that applies decides:

1. a port that is not among the allowed ones (the workspace's, or without any the deployment's) is refused;
2. a host, or a network with the address in it, on the workspace's or the deployment's deny list is refused;
3. a host, or a network with the address in it, on the workspace's allow list passes, and so does everything
   with ``*`` there; with ``*`` on the workspace's deny list everything else is refused;
4. the same with the deployment's lists;
5. an address that is not a public unicast one is refused.

So a workspace's lists make its policy wider and tighter, and what the deployment denies by name stays denied.
The ranges of 5 are IANA's registries of special-purpose addresses (RFC 6890 and its updates), and one public
address that a cloud serves to its own machines.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

from msgspec import Struct

from app.errors import CronspaceError
from app.urls import parse_target

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

EVERYTHING = "*"

# The first that holds an address names it.
_SPECIAL = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "an unspecified address"),
        ("10.0.0.0/8", "a private address"),
        ("100.64.0.0/10", "an address of carrier-grade NAT"),
        ("127.0.0.0/8", "a loopback address"),
        ("168.63.129.16/32", "an address of cloud metadata"),  # Azure's: public, but served to its machines
        ("169.254.0.0/16", "a link-local address, as of cloud metadata"),
        ("172.16.0.0/12", "a private address"),
        ("192.0.0.0/24", "a reserved address"),
        ("192.0.2.0/24", "an address of documentation"),
        ("192.88.99.0/24", "a 6to4 relay"),
        ("192.168.0.0/16", "a private address"),
        ("198.18.0.0/15", "an address of benchmarks"),
        ("198.51.100.0/24", "an address of documentation"),
        ("203.0.113.0/24", "an address of documentation"),
        ("224.0.0.0/4", "a multicast address"),
        ("255.255.255.255/32", "a broadcast address"),
        ("240.0.0.0/4", "a reserved address"),
        ("::1/128", "a loopback address"),
        ("::/128", "an unspecified address"),
        ("64:ff9b:1::/48", "a local NAT64 address"),
        ("2001::/32", "a Teredo address"),
        ("2001:2::/48", "an address of benchmarks"),
        ("2001:db8::/32", "an address of documentation"),
        ("2001::/23", "a reserved address"),
        ("2002::/16", "a 6to4 address"),
        ("3fff::/20", "an address of documentation"),
        ("fc00::/7", "a unique-local address"),
        ("fe80::/10", "a link-local address"),
        ("fec0::/10", "a site-local address"),
        ("ff00::/8", "a multicast address"),
    )
)
_PUBLIC_V6 = IPv6Network("2000::/3")  # all that is given out as global unicast
_NAT64 = IPv6Network("64:ff9b::/96")  # RFC 6052: DNS64 gives such addresses to IPv4-only hosts


class Refused(CronspaceError):
    """The policy does not let a request go there; the message says why."""


class Rules(Struct, frozen=True):
    """One list of hosts and networks. Hosts are lower-case and in ASCII, without a dot at the end."""

    everything: bool = False
    hosts: frozenset[str] = frozenset()
    domains: tuple[str, ...] = ()  # with a dot before: what ends so is in them
    networks: tuple[Network, ...] = ()

    def name(self, host: str) -> bool:
        """Whether the list has a host, by itself or as one of a domain."""
        return host in self.hosts or host.endswith(self.domains)

    def hold(self, address: Address) -> bool:
        """Whether the list has a network with that address in it."""
        return any(address in network for network in self.networks)


class Lists(Struct, frozen=True):
    """What a deployment, or a workspace, allows and denies."""

    allowed: Rules = Rules()
    denied: Rules = Rules()
    ports: frozenset[int] = frozenset()  # empty: all


class Egress(Struct, frozen=True, eq=False):
    """A policy: lists, of which the first ones that say something decide; what any denies by name is denied.

    Compared by identity: connections are kept for the policy that they were made under.
    """

    lists: tuple[Lists, ...] = ()

    def check(self, host: str, port: int) -> None:
        """Raise :class:`Refused` for what needs no look at the address."""
        ports = next((one.ports for one in self.lists if one.ports), None)
        if ports is not None and port not in ports:
            raise Refused(f"requests to port {port} are not allowed here")
        if any(one.denied.name(_normal(host)) for one in self.lists):
            raise Refused(f"requests to the host {host!r} are not allowed here")

    def permitted(self, host: str, addresses: Iterable[Address]) -> list[Address]:
        """Those of a host's addresses that may be connected to; raises :class:`Refused` when there are none.

        The message names no address that a name has: a tenant shall not read internal DNS from it.
        """
        name = _normal(host)
        passed: list[Address] = []
        reason = "no address"
        for address in addresses:
            refusal = self._refusal(name, address)
            if refusal is None:
                passed.append(address)
            else:
                reason = refusal
        if not passed:
            raise Refused(f"the host {host!r} is not allowed here: it has {reason}")
        return passed

    def _refusal(self, host: str, address: Address) -> str | None:
        inner = _inner(address)
        for one in self.lists:
            if one.denied.networks and (one.denied.hold(address) or one.denied.hold(inner)):
                return "an address on the deny list"
        for one in self.lists:
            allowed = one.allowed
            if allowed.everything or allowed.name(host):
                return None
            if allowed.networks and (allowed.hold(address) or allowed.hold(inner)):
                return None
            if one.denied.everything:
                return "an address that is not on the allow list"
        return special(inner)


def make_egress(allow: str, deny: str, ports: str, own: Lists | None = None) -> Egress:
    """The policy of three settings, behind a workspace's ``own`` lists; raises ``ValueError`` saying what is
    wrong."""
    common = parse_lists(allow, deny, ports)
    return Egress((common,) if own is None else (own, common))


def parse_lists(allow: str, deny: str, ports: str) -> Lists:
    """Read three comma-separated lists; raises ``ValueError`` saying what is wrong."""
    return Lists(parse_rules(allow), parse_rules(deny), parse_ports(ports))


def parse_rules(text: str) -> Rules:
    """Read a comma-separated list; raises ``ValueError`` saying what is wrong.

    ``10.0.0.0/8``, ``::1``, ``hooks.example.com``, ``.example.com`` or ``*.example.com`` (all below it, not
    itself), ``*`` (everything).
    """
    everything = False
    hosts, domains, networks = set(), [], []
    for entry in filter(None, map(str.strip, text.split(","))):
        if entry == EVERYTHING:
            everything = True
        elif (network := _network(entry)) is not None:
            networks.append(network)
        elif entry.startswith((".", "*.")):
            domains.append(f".{_host(entry.removeprefix('*').removeprefix('.'))}")
        else:
            hosts.add(_host(entry))
    return Rules(everything, frozenset(hosts), tuple(domains), tuple(networks))


def parse_ports(text: str) -> frozenset[int]:
    """Read a comma-separated list of ports; raises ``ValueError`` saying what is wrong."""
    ports = set()
    for entry in filter(None, map(str.strip, text.split(","))):
        if not (entry.isascii() and entry.isdigit() and 1 <= int(entry) <= 65535):
            raise ValueError(f"{entry!r} is no port: write numbers from 1 to 65535")
        ports.add(int(entry))
    return frozenset(ports)


@lru_cache(maxsize=4096)
def special(address: Address) -> str | None:
    """What makes an address no public unicast one; None for one that is."""
    for network, what in _SPECIAL:
        if address in network:
            return what
    if address.version == 6 and address not in _PUBLIC_V6:
        return "a reserved address"
    return None


def _inner(address: Address) -> Address:
    """The IPv4 address where an IPv6 one leads that is mapped, or goes through NAT64; else itself."""
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return address.ipv4_mapped
        if address in _NAT64:
            return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address


def _normal(host: str) -> str:
    return host.removesuffix(".").lower()


def _network(entry: str) -> Network | None:
    text = entry.removeprefix("[").removesuffix("]")
    try:
        return ip_network(text)
    except ValueError as error:
        if "/" in text or ":" in text:
            raise ValueError(f"{entry!r} is no network: {error}") from error
        return None


def _host(entry: str) -> str:
    try:
        (_, host, _), header, path = parse_target(f"http://{entry}/")
    except ValueError as error:
        raise ValueError(f"{entry!r} is neither a host nor a network: {error}") from error
    if header != host or path != "/" or _network(host) is not None:
        raise ValueError(f"{entry!r} is neither a host nor a network")
    return _normal(host)
