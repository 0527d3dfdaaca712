"""Where a call comes from, with and without proxies."""

from __future__ import annotations

import pytest

from app.auth.addresses import client_address, parse_networks
from app.errors import ConfigError

TRUSTED = parse_networks("10.0.0.0/8, 192.0.2.7,fd00::/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "address"),
    [
        ("203.0.113.5", [], "203.0.113.5"),
        (
            "203.0.113.5",
            ["198.51.100.1"],
            "203.0.113.5",
        ),  # not a proxy of ours
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("10.0.0.1", ["198.51.100.1, 203.0.113.5"], "203.0.113.5"),  # the client wrote the first itself
        ("10.0.0.1", ["198.51.100.1", "203.0.113.5"], "203.0.113.5"),  # in two lines: the same
        ("10.0.0.1", ["203.0.113.5, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5, 192.0.2.7, 10.0.0.2"], "203.0.113.5"),
        ("10.0.0.1", ["203.0.113.5, 192.0.2.8, 10.0.0.2"], "192.0.2.8"),
        ("10.0.0.1", ["10.9.9.9, 10.0.0.2"], "10.9.9.9"),  # all are ours: the first
        ("10.0.0.1", ["203.0.113.5, unknown"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5, "], "10.0.0.1"),
        ("10.0.0.1", ["'; DROP TABLE"], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.5:4711"], "203.0.113.5"),
        ("10.0.0.1", ["[2001:db8::5]:4711"], "2001:db8::5"),
        ("10.0.0.1", ["[2001:db8::5]"], "2001:db8::5"),
        ("10.0.0.1", ["2001:db8::5"], "2001:db8::5"),
        ("fd00::1", ["2001:db8::5, ::ffff:10.0.0.2"], "2001:db8::5"),
        ("::ffff:10.0.0.1", ["203.0.113.5"], "203.0.113.5"),
        ("::ffff:203.0.113.5", ["198.51.100.1"], "203.0.113.5"),
        ("", ["203.0.113.5"], ""),
    ],
)
def test_a_call_comes_from_the_rightmost_hop_that_is_not_trusted(
    peer: str, forwarded: list[str], address: str
) -> None:
    assert client_address(peer, forwarded, TRUSTED) == address


def test_nobody_is_trusted_unless_the_settings_say_so() -> None:
    assert client_address("127.0.0.1", ["203.0.113.5"], parse_networks("")) == "127.0.0.1"


@pytest.mark.parametrize("text", ["proxy.example.com", "10.0.0.0/33", "10.0.0.1/8", "*"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="CRONSPACE_TRUSTED_PROXIES"):
        parse_networks(text)
