"""A TCP proxy before a nats-server that loses live messages, as full buffers do, or holds everything."""

from __future__ import annotations

import asyncio
import contextlib

from tests.support.listener import Listener, cut_off


class NatsProxy(Listener):
    """Forwards connections to a nats-server of this machine, and reads the server's side of the protocol.

    Args:
        port: the nats-server's.
        prefix: the subjects that it may lose.

    Attributes:
        losing: how many of these messages are still to be lost; negative: all, until set to 0.
        lost: how many were.
        passed: how many were forwarded.
    """

    def __init__(self, port: int, *, prefix: str = "live.") -> None:
        super().__init__()
        self._upstream = port
        self._prefix = prefix.encode()
        self.losing = 0
        self.lost = 0
        self.passed = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    def hold(self) -> None:
        """Nothing passes in either direction until `go_on`; connections stay."""
        self._flowing.clear()

    def go_on(self) -> None:
        self._flowing.set()

    def redirect(self, port: int) -> None:
        """Connections from now on go to another nats-server."""
        self._upstream = port

    def cut(self) -> None:
        """Reset every connection; new ones are taken."""
        for writer in tuple(self._writers):
            writer.transport.abort()

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends, ways = [writer], list[asyncio.Task[None]]()
        self._writers.add(writer)
        try:
            upstream_reader, upstream_writer = await asyncio.open_connection("127.0.0.1", self._upstream, limit=2**20)
            ends.append(upstream_writer)
            self._writers.add(upstream_writer)
            ways += [
                asyncio.create_task(self._copy(reader, upstream_writer)),
                asyncio.create_task(self._filter(upstream_reader, writer)),
            ]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        except OSError:
            pass  # the nats-server is away
        finally:
            self._writers -= set(ends)
            for way in ways:
                way.cancel()
            await asyncio.gather(*map(cut_off, ends), *ways, return_exceptions=True)

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(2**16):
                await self._flowing.wait()
                writer.write(piece)
                await writer.drain()

    async def _filter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                line = await reader.readuntil(b"\r\n")
                words = line.split()
                body = b""
                if words and words[0] in (b"MSG", b"HMSG"):
                    body = await reader.readexactly(int(words[-1]) + 2)
                    if words[1].startswith(self._prefix):
                        if self.losing:
                            self.losing -= 1
                            self.lost += 1
                            continue
                        self.passed += 1
                await self._flowing.wait()
                writer.write(line + body)
                await writer.drain()
