"""Where a call comes from: the peer, or what a trusted proxy says of it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from app.errors import ConfigError

Network = IPv4Network | IPv6Network


def parse_networks(text: str) -> tuple[Network, ...]:
    """``10.0.0.0/8, 192.0.2.7, fd00::/8``; raises :class:`ConfigError`."""
    try:
        return tuple(ip_network(part.strip()) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise ConfigError(f"CRONSPACE_TRUSTED_PROXIES: {error}; write addresses and networks") from error


def client_address(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """The address that a call comes from.

    ``forwarded`` are the values of all ``X-Forwarded-For`` lines. Each proxy appends the peer that it saw, so
    they are read from the right, as long as the one who said it is trusted: what a client wrote itself stands
    left of the first hop that is not, and is never reached. Without a peer (a unix socket) it is empty.
    """
    address = _parse(peer)
    if address is None:
        return ""
    hops = [hop.strip() for line in forwarded for hop in line.split(",")]
    while hops and _is_in(address, trusted):
        before = _parse(hops.pop())
        if before is None:  # nothing that can be gone by; the proxy is the last that is known
            break
        address = before
    return str(address)


def _is_in(address: IPv4Address | IPv6Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)


def _parse(text: str) -> IPv4Address | IPv6Address | None:
    """An address with or without a port, IPv4-mapped ones as IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
