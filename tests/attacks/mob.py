"""A mob: many bare sockets of one process, in a thread beside the test's loop."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import struct
import time
from typing import cast

FIRST_PORT, PORTS = 10_000, 22_000
RESET = struct.pack("ii", 1, 0)
AT_ONCE = 1000


def raise_descriptor_limit() -> int:
    """Let this process open as many sockets as the machine allows; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Mob:
    """Sockets that were opened, and are held."""

    def __init__(self, host: str, port: int, *, source: str = "127.0.0.2") -> None:
        raise_descriptor_limit()
        self._address = (host, port)
        self._source = source
        self._port = FIRST_PORT
        self.sockets: list[socket.socket] = []
        self.failed = 0

    def _begin(self, rcvbuf: int) -> socket.socket:
        # Ports of our own choice, below those that the kernel gives away: its search for a free one takes longer the
        # more there are, for everybody on the machine.
        self._port = FIRST_PORT + (self._port + 1 - FIRST_PORT) % PORTS
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if rcvbuf:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
        sock.setblocking(False)
        sock.bind((self._source, self._port))
        sock.connect_ex(self._address)
        return sock

    def open(self, count: int, first: bytes = b"", *, rcvbuf: int = 0, within_s: float = 60) -> None:
        """Connect so many more, each of which sends something at once."""
        selector = selectors.DefaultSelector()
        begun = 0
        until = time.monotonic() + within_s
        while (begun < count or selector.get_map()) and time.monotonic() < until:
            while begun < count and len(selector.get_map()) < AT_ONCE:
                begun += 1
                try:
                    sock = self._begin(rcvbuf)
                except OSError:
                    self.failed += 1
                    continue
                selector.register(sock, selectors.EVENT_WRITE)
            for key, _ in selector.select(0.1):
                sock = cast(socket.socket, key.fileobj)
                selector.unregister(sock)
                try:
                    if first:
                        sock.send(first)
                except OSError:
                    self.failed += 1
                    sock.close()
                    continue
                self.sockets.append(sock)
        for key in list(selector.get_map().values()):
            cast(socket.socket, key.fileobj).close()
            self.failed += 1
        selector.close()

    def send(self, data: bytes) -> int:
        """Each sends this, as far as its socket takes it; how many could."""
        sent = 0
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.send(data)
                sent += 1
        return sent

    def ended(self, which: slice = slice(None)) -> int:
        """How many (of some of them) the other side has closed. What it sent is read away."""
        count = 0
        for sock in self.sockets[which]:
            try:
                while data := sock.recv(65536):
                    pass
                count += data == b""
            except BlockingIOError:
                continue
            except OSError:
                count += 1
        return count

    def close(self, *, reset: bool = False) -> None:
        for sock in self.sockets:
            if reset:
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.close()
        self.sockets.clear()
