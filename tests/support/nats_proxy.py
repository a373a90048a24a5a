"""A TCP proxy before a nats-server that loses live messages, as full buffers do, or holds everything."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Self

from tests.support.ports import free_port


class NatsProxy:
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
        self._upstream = port
        self._prefix = prefix.encode()
        self.port = free_port()
        self.losing = 0
        self.lost = 0
        self.passed = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

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

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
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
        except (OSError, asyncio.CancelledError):
            pass  # the nats-server is away, or the test ends
        finally:
            for each in ends:
                each.transport.abort()
            self._writers -= set(ends)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            self._tasks.discard(task)

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

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        self._flowing.set()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.sleep(0)  # an aborted transport closes its socket in the loop's next turn
