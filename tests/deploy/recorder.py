"""Stands in for a replica to see what a proxy sends it, and answers with the beginning of a stream."""

from __future__ import annotations

import asyncio

from tests.support.listener import Listener

BEGINNING = b"data: first\n\n"
"""The only chunk of its answer, behind which nothing comes and nothing ends. No header asks not to buffer it."""


class Recorder(Listener):
    """An HTTP/1.1 server.

    Attributes:
        requests: the heads of what came, as text.
    """

    def __init__(self) -> None:
        super().__init__()
        self.requests: list[str] = []

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
        except asyncio.IncompleteReadError:
            return  # a connection that asks nothing
        if " /readyz " in head:
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            return
        self.requests.append(head)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        writer.write(b"%x\r\n%s\r\n" % (len(BEGINNING), BEGINNING))
        await reader.read()  # until the proxy has had enough

    def headers(self, name: str) -> list[str]:
        """The values of a header in the only request."""
        (head,) = self.requests
        lines = [line.partition(":") for line in head.split("\r\n")[1:]]
        return [value.strip() for field, _, value in lines if field.lower() == name.lower()]
