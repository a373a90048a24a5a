"""Addresses: where a client really is, behind the proxies that we trust to say so."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from functools import lru_cache

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

IPV6_SITE_BITS = 64
"""A site's own part of its IPv6 addresses: whoever has one has all of them, so limits count them as one."""

KEPT_KEYS = 4096
"""Addresses whose key is remembered: each connection asks for it several times."""

_BRACKETED = re.compile(r"\[([^\[\]]*)\](?::\d+)?", re.ASCII)
"""An IPv6 address as RFC 7239 writes it, with or without a port."""

MAX_HOPS = 32
"""The most entries of `X-Forwarded-For` that are looked at, from the right."""


def parse_network(text: str) -> Network:
    """An address or a network in CIDR notation: `10.0.0.0/8`, `192.0.2.7`, `2001:db8::/32`.

    Raises:
        ValueError: it is none.
    """
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        raise ValueError(f"{text!a} is no address or network ({error}); give 10.0.0.0/8, 192.0.2.7 or ::1") from None


def client_address(peer: str, forwarded: Sequence[str], trusted: Sequence[Network]) -> str:
    """The address of a client: the right-most hop that is not one of ours.

    Each proxy appends the address that it got the request from; what stands left of the first that we do not trust
    anybody may have written.

    Args:
        peer: who is connected to us; empty: not known (a Unix socket).
        forwarded: the values of `X-Forwarded-For`, in the order of the headers.
        trusted: our proxies.
    """
    hop = _parse(peer) if trusted else None
    if hop is None or not _within(hop, trusted):
        return peer
    hops = [part.strip() for value in forwarded for part in value.split(",")][-MAX_HOPS:]
    for text in reversed(hops):
        found = _parse(text)
        if found is None:
            break  # not an address: our own proxy did not write that
        hop = found
        if not _within(hop, trusted):
            break
    return str(hop)


@lru_cache(KEPT_KEYS)
def limit_key(address: str) -> str:
    """What an address is counted as: itself, or its site where it is IPv6. What is no address is itself."""
    found = _parse(address)
    if isinstance(found, ipaddress.IPv6Address):
        return str(ipaddress.ip_network((found, IPV6_SITE_BITS), strict=False))
    return address if found is None else str(found)


def _parse(text: str) -> Address | None:
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed is not None:
        text = bracketed[1]
    elif text.count(":") == 1:  # some proxies add the port
        text, _, port = text.partition(":")
        if not port.isdecimal():
            return None
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return mapped or found


def _within(address: Address, networks: Sequence[Network]) -> bool:
    return any(address in network for network in networks)
