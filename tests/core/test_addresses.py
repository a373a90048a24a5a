"""Addresses: who is counted for a connection that came through proxies, against a slow oracle."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.addresses import MAX_HOPS, Network, client_address, limit_key, parse_network

OURS: tuple[Network, ...] = (ip_network("10.0.0.0/8"), ip_network("192.0.2.7"), ip_network("2001:db8:1::/48"))
PROXIES = ["10.0.0.1", "10.255.1.2", "192.0.2.7", "2001:db8:1::5"]
CLIENTS = ["203.0.113.9", "198.51.100.4", "127.0.0.1", "192.0.2.8", "2001:db8:2::5", "fe80::1"]
NONSENSE = [
    "unknown",
    "_hidden",
    "",
    " ",
    "1.2.3",
    "1.2.3.4.5",
    "1.2.3.400",
    "::g",
    "localhost",
    "1.2.3.4;5",
    "[",
    "]",
    "%",
]

addresses = st.sampled_from([*PROXIES, *CLIENTS])
hops = st.lists(st.one_of(addresses, addresses, st.sampled_from(NONSENSE)), max_size=6)


def written(address: str, draw: int) -> str:
    """An address as proxies write it: bare, padded, with a port, in brackets, as IPv4 within IPv6, with a zone."""
    found = ip_address(address) if address[:1].isalnum() and address not in NONSENSE else None
    match draw % 4, found:
        case 1, IPv4Address():
            return f"{address}:{40000 + draw}"
        case 1, IPv6Address():
            return f"[{address}]:443"
        case 2, IPv4Address():
            return f"::ffff:{address}"
        case 2, IPv6Address():
            return f"[{address}]"
        case 3, IPv6Address():
            return f"{address}%eth0"
    return f" {address}  "


def oracle(peer: str, path: list[str]) -> str:
    """By the letter: go left from the one who is connected, as long as whoever said so is ours."""
    seen = peer
    for hop in reversed(path):
        trusted = any(ip_address(seen) in network for network in OURS)
        if not trusted or hop in NONSENSE:
            return seen
        seen = hop
    return seen


@given(peer=addresses, path=hops, draws=st.lists(st.integers(0, 3), min_size=6, max_size=6), cut=st.integers(0, 6))
def test_the_client_is_the_right_most_hop_that_is_not_ours(
    peer: str, path: list[str], draws: list[int], cut: int
) -> None:
    """However the hops are written, and in however many headers they come."""
    spelled = [written(hop, draw) for hop, draw in zip(path, draws, strict=False)]
    headers = [",".join(part) for part in (spelled[:cut], spelled[cut:]) if part]
    assert client_address(peer, headers, OURS) == oracle(peer, path)


@given(path=hops)
def test_who_trusts_nobody_believes_nobody(path: list[str]) -> None:
    """Without `TRUSTED_PROXIES`, and from a peer that is none of them, the header says nothing."""
    assert client_address("203.0.113.9", [", ".join(path)], OURS) == "203.0.113.9"
    assert client_address("10.0.0.1", [", ".join(path)], ()) == "10.0.0.1"


@given(junk=st.lists(st.text(max_size=40), max_size=5), peer=addresses)
def test_any_text_is_read_without_a_fault(junk: list[str], peer: str) -> None:
    """What stands in the header is anybody's; the answer is an address."""
    ip_address(client_address(peer, junk, OURS))


def test_an_endless_header_is_read_from_its_right_end() -> None:
    """At most `MAX_HOPS` entries are looked at; that many proxies of ours in a row nobody has."""
    ours = ",".join(["10.0.0.1"] * (MAX_HOPS + 5))
    assert client_address("10.0.0.9", [f"203.0.113.9,{ours}"], OURS) == "10.0.0.1"
    assert client_address("10.0.0.9", [f"203.0.113.9,{ours}", "198.51.100.4"], OURS) == "198.51.100.4"


def test_a_peer_that_is_no_address_is_itself() -> None:
    """A Unix socket has none."""
    assert client_address("", ["203.0.113.9"], OURS) == ""


@given(value=st.integers(0, 2**128 - 1), other=st.integers(0, 2**64 - 1))
def test_a_site_of_ipv6_counts_as_one(value: int, other: int) -> None:
    """Two addresses of IPv6 have one key exactly when their first 64 bits are equal."""
    one, two = IPv6Address(value), IPv6Address(value >> 64 << 64 | other)
    if one.ipv4_mapped is None and two.ipv4_mapped is None:
        assert limit_key(str(one)) == limit_key(str(two)) == str(ip_network((value >> 64 << 64, 64)))
        elsewhere = IPv6Address(value ^ 1 << 64)
        assert elsewhere.ipv4_mapped is not None or limit_key(str(elsewhere)) != limit_key(str(one))


@given(one=st.ip_addresses(v=4), two=st.ip_addresses(v=4))
def test_an_address_of_ipv4_counts_as_itself(one: IPv4Address, two: IPv4Address) -> None:
    """Also where a socket for both versions shows it as one of IPv6."""
    assert (limit_key(str(one)) == limit_key(str(two))) == (one == two)
    assert limit_key(f"::ffff:{one}") == limit_key(str(one)) == str(one)


@pytest.mark.parametrize("text", ["", "unix"])
def test_what_is_no_address_counts_as_itself(text: str) -> None:
    """A peer without an address is one of its own."""
    assert limit_key(text) == text


@pytest.mark.parametrize("text", ["10.0.0.1/8", "10.0.0.0/33", "proxy", "", "10.0.0.0-10.0.0.9", "::1/129"])
def test_what_is_no_network_says_what_would_be(text: str) -> None:
    """A wrong entry of `TRUSTED_PROXIES` names itself and the forms that are taken."""
    with pytest.raises(ValueError, match=r"give 10\.0\.0\.0/8, 192\.0\.2\.7 or ::1"):
        parse_network(text)
