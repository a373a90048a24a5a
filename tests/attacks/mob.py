"""A mob: many bare sockets of one address, opened and held in a thread beside the test's loop."""

from __future__ import annotations

import contextlib
import resource
import selectors
import socket
import struct
import time
from types import TracebackType
from typing import Self, cast

FIRST_PORT, PORTS = 10_000, 22_000
"""Ports of our own choice, below those that the kernel gives away: its search for a free one takes longer the more are
taken, for everybody on the machine."""

AT_ONCE = 1000
"""Connections that are being made at a time."""

RESET = struct.pack("ii", 1, 0)
"""SO_LINGER: closing is a reset."""


def raise_descriptor_limit() -> int:
    """Let this process open as many sockets as the machine allows; how many that is."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


class Mob:
    """Sockets that were opened, and are held until `close`, or to the end of `with`.

    Args:
        host, port: whom they connect to.
        source: the address that they come from.

    Attributes:
        failed: how many could not connect.
    """

    def __init__(self, host: str, port: int, *, source: str = "127.0.0.2") -> None:
        raise_descriptor_limit()
        self._address = (host, port)
        self._source = source
        self._ports = 0
        self.sockets: list[socket.socket] = []
        self.failed = 0

    def open(
        self, count: int, first: bytes = b"", *, receive_buffer_bytes: int | None = None, within_s: float = 60
    ) -> None:
        """Connect so many more, each of which sends something at once."""
        until = time.monotonic() + within_s
        begun = 0
        with selectors.DefaultSelector() as selector:
            while (begun < count or selector.get_map()) and time.monotonic() < until:
                while begun < count and len(selector.get_map()) < AT_ONCE:
                    begun += 1
                    selector.register(self._begin(receive_buffer_bytes), selectors.EVENT_WRITE)
                for key, _ in selector.select(0.1):
                    selector.unregister(key.fileobj)
                    self._begun(cast(socket.socket, key.fileobj), first)
            for key in selector.get_map().values():
                cast(socket.socket, key.fileobj).close()
                self.failed += 1

    def _begin(self, receive_buffer_bytes: int | None) -> socket.socket:
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        sock.setblocking(False)
        while True:
            self._ports += 1
            try:
                sock.bind((self._source, FIRST_PORT + self._ports % PORTS))
                break
            except OSError:
                assert self._ports < 10 * PORTS, "no port is free"
        sock.connect_ex(self._address)
        return sock

    def _begun(self, sock: socket.socket, first: bytes) -> None:
        try:
            if first:
                sock.send(first)
            elif error := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error)
        except OSError:
            sock.close()
            self.failed += 1
        else:
            self.sockets.append(sock)

    def send(self, data: bytes) -> int:
        """Each sends this, as far as its socket takes it; how many could."""
        sent = 0
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                sock.send(data)
                sent += 1
        return sent

    def send_whole(self, data: bytes, *, within_s: float = 30) -> int:
        """Each sends all of this, those that are not closed meanwhile; how many could. A crowd is faster than who reads
        it: what a full socket does not take waits."""
        until = time.monotonic() + within_s
        sent = 0
        with selectors.DefaultSelector() as selector:
            for sock in self.sockets:
                selector.register(sock, selectors.EVENT_WRITE, memoryview(data))
            while selector.get_map() and time.monotonic() < until:
                for key, _ in selector.select(0.1):
                    sock = cast(socket.socket, key.fileobj)
                    try:
                        left = key.data[sock.send(key.data) :]
                    except BlockingIOError:
                        continue
                    except OSError:
                        selector.unregister(sock)
                        continue
                    if left:
                        selector.modify(sock, selectors.EVENT_WRITE, left)
                    else:
                        selector.unregister(sock)
                        sent += 1
        return sent

    def read(self, limit: int) -> int:
        """Each reads so many bytes at most; how many got any."""
        got = 0
        for sock in self.sockets:
            with contextlib.suppress(OSError):
                got += bool(sock.recv(limit))
        return got

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

    def until_ended(self, *, timeout_s: float = 30) -> int:
        """Wait until all of them are closed by the other side; how many are."""
        until = time.monotonic() + timeout_s
        while (ended := self.ended()) < len(self.sockets) and time.monotonic() < until:
            time.sleep(0.2)  # between two looks at all of them
        return ended

    def close(self) -> None:
        """All at once."""
        for sock in self.sockets:
            sock.close()
        self.sockets.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
