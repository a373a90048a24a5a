"""Listening: the sockets that clients connect to, and what is said when an address cannot be had."""

from __future__ import annotations

import socket

from gateway.core.errors import ConfigError
from gateway.transports.sockets import bind
from gateway.values import Address


def listen(name: str, address: Address, write_timeout_s: float) -> socket.socket:
    """A listening socket; see `bind`. `name`: the setting that the address is from, as its author named it.

    Raises:
        ConfigError: the address cannot be had.
    """
    try:
        return bind(address.host, address.port, write_timeout_s=write_timeout_s)
    except OSError as error:
        raise ConfigError(
            f"{name}: cannot listen on {address}: {error.strerror or error}; "
            "another program may have that port: choose another one, or 0 for any"
        ) from None


def bound(sock: socket.socket) -> Address:
    """Where a socket listens."""
    host, port = sock.getsockname()[:2]
    return Address(host=host, port=port)
