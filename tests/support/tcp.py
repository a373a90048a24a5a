"""A bare TCP connection: it reads only when asked to, and remembers what it read."""

from __future__ import annotations

import asyncio
import socket
import struct

from tests.support.lifetime import Opened


class Ended(ConnectionError):
    """The peer ended the connection where more was expected."""


class TcpStream(Opened):
    """One socket without any reader in the background: who does not call, stalls.

    Args:
        receive_buffer_bytes: SO_RCVBUF, set before connecting; None leaves the kernel's choice.
        keep: whether `raw` collects every byte read.

    Cancellation: a cancelled read loses nothing.
    """

    def __init__(self, host: str, port: int, *, receive_buffer_bytes: int | None = None, keep: bool = True) -> None:
        self._address = (host, port)
        self._socket = socket.socket()
        self._socket.setblocking(False)
        if receive_buffer_bytes is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer_bytes)
        self._keep = keep
        self._buffer = bytearray()
        self.raw = bytearray()
        self.reads = 0
        self.was_reset = False

    async def open(self) -> None:
        await asyncio.get_running_loop().sock_connect(self._socket, self._address)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, data: bytes) -> None:
        await asyncio.get_running_loop().sock_sendall(self._socket, data)

    async def receive(self, limit: int = 256 * 1024) -> bytes:
        """What is buffered, else the next piece from the socket; empty at the end (`was_reset` tells how)."""
        if self._buffer:
            piece = bytes(self._buffer)
            self._buffer.clear()
            return piece
        return await self._read_socket(limit)

    async def _read_socket(self, limit: int = 256 * 1024) -> bytes:
        while True:
            try:
                piece = self._socket.recv(limit)
            except BlockingIOError:
                await self._readable()
                continue
            except ConnectionResetError:
                self.was_reset = True
                return b""
            self.reads += 1
            if self._keep:
                self.raw += piece
            return piece

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready: asyncio.Future[None] = loop.create_future()

        def on_readable() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._socket, on_readable)
        try:
            await ready
        finally:
            loop.remove_reader(self._socket)

    async def read_until(self, separator: bytes) -> bytes:
        """Up to and with `separator`."""
        while (end := self._buffer.find(separator)) < 0:
            await self._more()
        return self._take(end + len(separator))

    async def read_exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            await self._more()
        return self._take(size)

    async def read_to_end(self) -> bytes:
        pieces = []
        while piece := await self.receive():
            pieces.append(piece)
        return b"".join(pieces)

    async def _more(self) -> None:
        piece = await self._read_socket()
        if not piece:
            raise Ended("reset by the peer" if self.was_reset else "end of stream")
        self._buffer += piece

    def _take(self, size: int) -> bytes:
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def close(self) -> None:
        self._socket.close()

    def abort(self) -> None:
        """Close with a TCP reset, as a client that vanished behind a broken proxy."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.close()
