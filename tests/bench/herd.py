"""The herd of a storm: clients that all come back within a moment, each timed until it has what it missed."""

import asyncio
import re
import time
from typing import cast

import uvloop

from tests.bench.failure import Unmeasured
from tests.bench.transport import Transport

GIVE_UP_S = 60
_NUMBER = re.compile(rb"~(\d{8})")


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes, wanted: int) -> None:
        self._request = request
        self._wanted = wanted
        self._seen = 0
        self._rest = b""
        self._began = 0.0
        self.done: asyncio.Future[float] = asyncio.get_running_loop().create_future()

    def begin(self) -> None:
        self._began = time.perf_counter()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).write(self._request)

    def data_received(self, data: bytes) -> None:
        data = self._rest + data
        self._rest = data[-8:]
        for number in _NUMBER.findall(data):
            if int(number) == self._seen:
                continue  # it lies in what was kept of the piece before
            if int(number) != self._seen + 1:
                self._fail(f"event {int(number)} after {self._seen}")
            self._seen += 1
        if self._seen == self._wanted and not self.done.done():
            self.done.set_result(time.perf_counter() - self._began)

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection ended after event {self._seen}: {exc}")

    def _fail(self, why: str) -> None:
        if not self.done.done():
            self.done.set_exception(Unmeasured(why))


def stampede(port: int, transport: Transport, clients: int, wanted: int, *, within_s: float) -> list[float]:
    """Connect `clients` within a time; each gets events 1 to `wanted`, once and in order.

    Returns the seconds from each one's connect to its last event, ascending. Raises Unmeasured when one fails.
    """

    async def run() -> list[float]:
        loop = asyncio.get_running_loop()
        herd = [_Client(transport.request.encode(), wanted) for _ in range(clients)]
        began = loop.time()

        async def one(number: int) -> float:
            await asyncio.sleep(began + within_s * number / clients - loop.time())
            client = herd[number]
            client.begin()
            connection, _ = await loop.create_connection(lambda: client, "127.0.0.1", port)
            try:
                return await client.done
            finally:
                kept.append(connection)

        kept: list[asyncio.Transport] = []
        try:
            async with asyncio.timeout(GIVE_UP_S):
                return sorted(await asyncio.gather(*(one(number) for number in range(clients))))
        except TimeoutError:
            late = sum(not client.done.done() for client in herd)
            raise Unmeasured(f"{late} of {clients} clients are not caught up after {GIVE_UP_S} s") from None
        finally:
            for connection in kept:
                connection.abort()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
