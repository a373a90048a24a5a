"""Lets clients that speak plain TCP speak TLS to a proxy, from an address of the test's choice."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from pathlib import Path

from tests.deploy.proxy import HOST
from tests.support.listener import Listener, cut_off


class TlsRelay(Listener):
    """Each connection that it takes becomes one to the proxy; bytes pass both ways as they come, ends too.

    Args:
        port: the proxy's.
        authority: the certificate to trust; the host name is checked as well.
        address: the loopback address that the proxy sees as its client's.
    """

    def __init__(self, port: int, authority: Path, *, address: str = "127.0.0.1") -> None:
        super().__init__()
        self._target = port
        self._address = address
        self._context = ssl.create_default_context(cafile=authority)
        self._context.set_alpn_protocols(["http/1.1"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
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
            # Not close(): that would wait for the proxy's close_notify, where a browser is simply gone.
            await cut_off(proxy_writer)


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Pass on until either end is gone."""
    with contextlib.suppress(OSError):
        while piece := await source.read(65536):
            sink.write(piece)
            await sink.drain()
