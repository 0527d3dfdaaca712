"""The policy by itself: which addresses are public, and what the lists say."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from app.config import load_settings
from app.egress import Egress, Refused, make_egress, special
from app.errors import ConfigError


def passes(egress: Egress, host: str, address: str, port: int = 443) -> bool:
    try:
        egress.check(host, port)
        return egress.permitted(host, [ip_address(address)]) == [ip_address(address)]
    except Refused:
        return False


@pytest.mark.parametrize(
    ("first", "last", "what"),
    [
        ("0.0.0.0", "0.255.255.255", "unspecified"),
        ("10.0.0.0", "10.255.255.255", "private"),
        ("100.64.0.0", "100.127.255.255", "carrier-grade NAT"),
        ("127.0.0.0", "127.255.255.255", "loopback"),
        ("168.63.129.16", "168.63.129.16", "metadata"),
        ("169.254.0.0", "169.254.255.255", "link-local"),
        ("172.16.0.0", "172.31.255.255", "private"),
        ("192.0.0.0", "192.0.0.255", "reserved"),
        ("192.0.2.0", "192.0.2.255", "documentation"),
        ("192.88.99.0", "192.88.99.255", "6to4"),
        ("192.168.0.0", "192.168.255.255", "private"),
        ("198.18.0.0", "198.19.255.255", "benchmarks"),
        ("198.51.100.0", "198.51.100.255", "documentation"),
        ("203.0.113.0", "203.0.113.255", "documentation"),
        ("224.0.0.0", "239.255.255.255", "multicast"),
        ("240.0.0.0", "255.255.255.254", "reserved"),
        ("255.255.255.255", "255.255.255.255", "broadcast"),
        ("::", "::", "unspecified"),
        ("::1", "::1", "loopback"),
        ("::2", "::ffff:ffff", "reserved"),  # IPv4-compatible
        ("::ffff:0:0:0", "::ffff:0:ffff:ffff", "reserved"),  # IPv4-translated
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "NAT64"),
        ("100::", "100::ffff:ffff:ffff:ffff", "reserved"),  # discarded
        ("2001::", "2001:0:ffff:ffff:ffff:ffff:ffff:ffff", "Teredo"),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", "benchmarks"),
        ("2001:10::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
        ("2002::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "6to4"),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "documentation"),
        ("4000::", "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "reserved"),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "unique-local"),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "link-local"),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "site-local"),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "multicast"),
    ],
)
def test_what_is_not_public_is_refused_from_end_to_end(first: str, last: str, what: str) -> None:
    for address in (first, last):
        assert what in str(special(ip_address(address)))
        assert not passes(Egress(), "h", address)
    if ip_address(first).version == 4:
        for form in ("::ffff:", "64:ff9b::"):
            for address in (first, last):
                assert not passes(Egress(), "h", form + address)


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "191.255.255.255",
        "192.0.1.0",
        "192.167.255.255",
        "192.169.0.0",
        "198.17.255.255",
        "198.20.0.0",
        "223.255.255.255",
        "2001:200::",
        "2600::",
        "2a00:1450::",
        "3ffe:ffff::",
        "64:ff9b::808:808",
        "::ffff:8.8.8.8",
    ],
)
def test_their_public_neighbours_pass(address: str) -> None:
    assert passes(Egress(), "h", address)


@pytest.mark.parametrize(
    ("allow", "deny", "ports", "host", "address", "port", "wanted"),
    [
        ("10.1.0.0/16", "", "", "h", "10.1.2.3", 80, True),
        ("10.1.0.0/16", "", "", "h", "10.2.0.1", 80, False),
        ("10.1.0.0/16", "", "", "h", "::ffff:10.1.2.3", 80, True),
        ("fd00::/8", "", "", "h", "fd00::1", 80, True),
        ("[::1]", "", "", "h", "::1", 80, True),
        ("*", "", "", "h", "127.0.0.1", 80, True),
        ("Hooks.Internal.", "", "", "hooks.internal", "10.0.0.1", 80, True),
        ("hooks.internal", "", "", "HOOKS.internal.", "10.0.0.1", 80, True),
        ("hooks.internal", "", "", "x.hooks.internal", "10.0.0.1", 80, False),
        ("hooks.internal", "", "", "xhooks.internal", "10.0.0.1", 80, False),
        ("*.internal", "", "", "x.y.internal", "10.0.0.1", 80, True),
        (".internal", "", "", "x.internal", "10.0.0.1", 80, True),
        (".internal", "", "", "internal", "10.0.0.1", 80, False),
        ("bücher.internal", "", "", "xn--bcher-kva.internal", "10.0.0.1", 80, True),
        ("", "evil.example", "", "Evil.Example.", "8.8.8.8", 80, False),
        ("", "evil.example", "", "good.example", "8.8.8.8", 80, True),
        ("", "8.8.8.0/24", "", "h", "8.8.8.8", 80, False),
        ("", "8.8.8.0/24", "", "h", "64:ff9b::808:808", 80, False),
        ("", "8.8.8.0/24", "", "h", "::ffff:8.8.8.8", 80, False),
        ("*", "10.0.0.5", "", "h", "10.0.0.5", 80, False),
        ("hooks.internal", "10.0.0.5", "", "hooks.internal", "10.0.0.5", 80, False),
        ("evil.example", "evil.example", "", "evil.example", "8.8.8.8", 80, False),
        ("good.example,9.0.0.0/8", "*", "", "good.example", "8.8.8.8", 80, True),
        ("good.example,9.0.0.0/8", "*", "", "h", "9.1.1.1", 80, True),
        ("good.example,9.0.0.0/8", "*", "", "h", "8.8.8.8", 80, False),
        ("", "", "80,443", "h", "8.8.8.8", 443, True),
        ("", "", "80,443", "h", "8.8.8.8", 22, False),
        ("*", "", "443", "h", "8.8.8.8", 80, False),
    ],
)
def test_lists_and_ports_decide_in_their_order(
    allow: str, deny: str, ports: str, host: str, address: str, port: int, wanted: bool
) -> None:
    assert passes(make_egress(allow, deny, ports), host, address, port) is wanted


def test_of_mixed_addresses_only_the_permitted_ones_remain() -> None:
    given = [ip_address(text) for text in ("10.0.0.1", "8.8.8.8", "::1", "2600::1")]
    assert Egress().permitted("h", given) == [given[1], given[3]]


def test_a_refusal_names_the_kind_of_address_and_not_the_address_of_a_name() -> None:
    with pytest.raises(Refused) as refused:
        Egress().permitted("db.internal", [ip_address("10.1.2.3")])
    assert str(refused.value) == "the host 'db.internal' is not allowed here: it has a private address"


@pytest.mark.parametrize(
    ("name", "value", "part"),
    [
        ("ALLOW", "10.0.0.1/8", "host bits"),
        ("ALLOW", "hooks.internal:8080", "'hooks.internal:8080' is no network"),
        ("ALLOW", "http://hooks.internal", "is no network"),
        ("ALLOW", "127.1", "neither a host nor a network"),
        ("DENY", "a b", "neither a host nor a network"),
        ("DENY", "*.", "neither a host nor a network"),
        ("PORTS", "80,https", "'https' is no port"),
        ("PORTS", "0", "'0' is no port"),
        ("PORTS", "65536", "'65536' is no port"),
    ],
)
def test_a_bad_list_stops_the_start_with_one_line(name: str, value: str, part: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(part)) as error:
        load_settings({f"CRONSPACE_EGRESS_{name}": value})
    assert str(error.value).startswith(f"CRONSPACE_EGRESS_{name}: ")
