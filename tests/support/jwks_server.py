"""An issuer's HTTP server that publishes a key set, or behaves as badly as a test wants."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tests.support.ports import free_port

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]


class JwksServer:
    """One issuer on a port of its own, which it keeps when it is stopped and started again.

    Attributes:
        answer: writes the whole answer to a request; then the connection is closed.
        requests: how many requests came.
        hanging: connections that `hang` holds on to.
    """

    def __init__(self, keys: Sequence[Mapping[str, Any]] = (), *, tls: ssl.SSLContext | None = None) -> None:
        self.port = free_port()
        self.requests = 0
        self.hanging: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._tls = tls
        self._server: asyncio.Server | None = None
        self.answer: Answer = whole(b"")
        self.publish(*keys)

    @property
    def url(self) -> str:
        return f"http{'s' if self._tls else ''}://127.0.0.1:{self.port}/jwks.json"

    def publish(self, *keys: Mapping[str, Any]) -> None:
        """Serve this key set from now on."""
        self.answer = whole(json.dumps({"keys": list(keys)}).encode())

    async def hang(self, writer: asyncio.StreamWriter) -> None:
        """An answer that never comes, until `let_go`."""
        self.hanging.append(writer)
        await writer.wait_closed()

    def let_go(self) -> None:
        """Cut the connections that hang."""
        for writer in self.hanging:
            writer.transport.abort()
        self.hanging.clear()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self._tls)

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.let_go()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self.answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            return  # whoever asked has had enough
        except asyncio.CancelledError:
            writer.transport.abort()  # it ends, in the middle of an answer
        finally:
            writer.close()
            self._tasks.discard(task)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


def whole(body: bytes, *, status: str = "200 OK", headers: str = "") -> Answer:
    """An ordinary answer."""
    head = f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n{headers}\r\n"

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(head.encode() + body)

    return answer


def raw(data: bytes) -> Answer:
    """These very bytes, then the end of the connection."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return answer


def endless(first: bytes, again: bytes, *, pause_s: float = 0) -> Answer:
    """An answer that begins and never ends; with a pause, drop by drop."""

    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(first)
        while True:
            writer.write(again)
            await writer.drain()
            await asyncio.sleep(pause_s)

    return answer
