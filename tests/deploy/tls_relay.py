"""Lets clients that speak plain TCP speak TLS to a proxy, from an address of the test's choice."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.deploy.proxy import HOST


class TlsRelay:
    """Each connection that it takes becomes one to the proxy; bytes pass both ways as they come, ends too.

    Args:
        port: the proxy's.
        authority: the certificate to trust; the host name is checked as well.
        address: the loopback address that the proxy sees as its client's.
    """

    def __init__(self, port: int, authority: Path, *, address: str = "127.0.0.1") -> None:
        self._target = port
        self._address = address
        self._context = ssl.create_default_context(cafile=authority)
        self._context.set_alpn_protocols(["http/1.1"])
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            proxy_reader, proxy_writer = await asyncio.open_connection(
                "127.0.0.1",
                self._target,
                ssl=self._context,
                server_hostname=HOST,
                local_addr=(self._address, 0),
            )
        except OSError:
            writer.transport.abort()
            return
        pumps = [
            asyncio.create_task(_pump(reader, proxy_writer)),
            asyncio.create_task(_pump(proxy_reader, writer)),
        ]
        try:
            # Whoever ends first ends both: TLS knows no half-closed connection.
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for pump in pumps:
                pump.cancel()
            writer.close()
            # Not close(): that would wait for the proxy's close_notify, where a browser is simply gone.
            proxy_writer.transport.abort()

    def _start(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._accepted(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._start, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in tuple(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on until either end is gone."""
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
