"""Stands in for a replica to see what a proxy sends it, and answers with the beginning of a stream."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

BEGINNING = b"data: first\n\n"
"""The only chunk of its answer, behind which nothing comes and nothing ends. No header asks not to buffer it."""


class Recorder:
    """An HTTP/1.1 server.

    Attributes:
        requests: the heads of what came, as text.
    """

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.port = 0
        self._server: asyncio.Server | None = None
        self._writers: list[asyncio.StreamWriter] = []

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return  # a connection that asks nothing
        if " /readyz " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            writer.close()
            return
        self.requests.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(BEGINNING), BEGINNING))

    def headers(self, name: str) -> list[str]:
        """The values of a header in the only request."""
        (head,) = self.requests
        lines = [line.partition(":") for line in head.split("\r\n")[1:]]
        return [value.strip() for field, _, value in lines if field.lower() == name.lower()]

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()
