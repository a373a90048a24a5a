"""Listening: the sockets that clients connect to, and what is said when an address cannot be had."""

from __future__ import annotations

import socket

from gateway.core.errors import ConfigError
from gateway.settings import Settings
from gateway.transports.sockets import bind
from gateway.values import Address


def listen(settings: Settings) -> tuple[socket.socket, socket.socket | None]:
    """The listening sockets: for clients; and for /metrics, None where that is served on the same address.

    Raises:
        ConfigError: an address cannot be had.
    """
    sock = _listen(settings, "listen", settings.listen)
    same = settings.metrics_listen == settings.listen and settings.listen.port  # port 0 twice is two ports
    if settings.metrics_listen is None or same:
        return sock, None
    return sock, _listen(settings, "metrics_listen", settings.metrics_listen)


def _listen(settings: Settings, name: str, address: Address) -> socket.socket:
    try:
        return bind(address.host, address.port, write_timeout_s=settings.write_timeout_s)
    except OSError as error:
        raise ConfigError(
            f"{settings.name_of(name)}: cannot listen on {address}: {error.strerror or error}; "
            "another program may have that port: choose another one, or 0 for any"
        ) from None


def bound(sock: socket.socket) -> Address:
    """Where a socket listens."""
    host, port = sock.getsockname()[:2]
    return Address(host=host, port=port)
