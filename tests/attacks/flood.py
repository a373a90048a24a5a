"""Floods: sockets that send without end as fast as they can, and come again when they are cut."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple, cast

from tests.attacks.mob import RESET


class Weapon(NamedTuple):
    """What one socket sends.

    Attributes:
        first: once.
        again: then, without end.
        reads: whether it reads what it gets.
    """

    first: bytes
    again: bytes
    reads: bool = True


class Flooded(NamedTuple):
    """What a flood came to: bytes that the other side took, and how often it ended a connection."""

    sent_bytes: int
    ended: int


def flood(address: tuple[str, int], weapons: Sequence[Weapon], *, sockets: int, seconds: float) -> Flooded:
    """Keep so many sockets sending, each with one of the weapons in turn, for a time."""
    sent = ended = 0
    turn = cycle(weapons)
    left: dict[socket.socket, tuple[Weapon, bytes]] = {}
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:

        def begin() -> None:
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(address)
            weapon = next(turn)
            left[sock] = (weapon, weapon.first or weapon.again)
            selector.register(sock, selectors.EVENT_WRITE | (selectors.EVENT_READ if weapon.reads else 0))

        for _ in range(sockets):
            begin()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for key, ready in selector.select(0.1):
                sock = cast(socket.socket, key.fileobj)
                weapon, rest = left[sock]
                try:
                    if ready & selectors.EVENT_READ and not sock.recv(65536):
                        raise ConnectionResetError
                    if ready & selectors.EVENT_WRITE:
                        size = sock.send(rest)
                        sent += size
                        left[sock] = (weapon, rest[size:] or weapon.again)
                except BlockingIOError:
                    continue
                except OSError:
                    ended += 1
                    selector.unregister(sock)
                    del left[sock]
                    sock.close()
                    begin()
    return Flooded(sent, ended)


def connect_and_reset(address: tuple[str, int], requests: Sequence[bytes], *, seconds: float) -> int:
    """Connect, send one of the requests in turn, and reset, for a time; how often."""
    count = 0
    until = time.monotonic() + seconds
    for request in cycle(requests):
        if time.monotonic() >= until:
            break
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.settimeout(5)
            sock.connect(address)
            sock.send(request)
        count += 1
    return count
