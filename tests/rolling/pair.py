"""Two replicas behind nginx."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

from tests.support.fleet import Fleet, histogram
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.nginx import Nginx
from tests.support.ports import free_port

DRAIN = {"DRAIN_DELAY_S": 1, "DRAIN_S": 4}
ENDS_WITHIN_S = 1 + 4 + 1.5
"""Delay, drain, and the last words of those that take none."""


class Span(NamedTuple):
    """From a SIGTERM to the exit (the loop's time)."""

    begin: float
    end: float


class Pair:
    """Two equal replicas on ports of their own behind one nginx, from `async with` to its end.

    Args:
        directory: for all logs.
        settings: of both replicas.
        running: how many of them are started.
    """

    def __init__(self, directory: Path, nats: NatsServer, settings: dict[str, object], *, running: int = 2) -> None:
        ports = [free_port(), free_port()]
        self.replicas = [
            Gateway(
                directory / f"replica-{number}",
                nats.url,
                {**settings, "LISTEN": f"127.0.0.1:{port}", "REPLICA": f"replica-{number}"},
            )
            for number, port in enumerate(ports)
        ]
        self._nginx = Nginx(directory / "nginx", ports)
        self._running = running

    @property
    def url(self) -> str:
        return self._nginx.url

    async def start(self, number: int) -> None:
        """Start a replica; it is ready then."""
        await asyncio.to_thread(self.replicas[number].start)
        await asyncio.to_thread(self.replicas[number].wait_ready)

    async def end(self, number: int) -> Span:
        """SIGTERM, and wait for the exit, which has to be in time and 0."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        self.replicas[number].terminate()
        assert await asyncio.to_thread(self.replicas[number].wait, timeout_s=ENDS_WITHIN_S + 10) == 0
        return Span(begin, loop.time())

    async def __aenter__(self) -> Self:
        for number in range(self._running):
            await self.start(number)
        await asyncio.to_thread(self._nginx.start)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._nginx.stop)
        for replica in self.replicas:
            await asyncio.to_thread(replica.stop)


def assert_spread(fleet: Fleet, span: Span, what: str) -> None:
    """The ends are spread over the time after the delay: each quarter of it has a good part of them."""
    delay, drain = DRAIN["DRAIN_DELAY_S"], DRAIN["DRAIN_S"]
    within = [each for each in fleet.endings if span.begin <= each.at <= span.end]
    served = [each for each in within if each.served]
    print(f"{what}: {len(served)} connections ended ({len(within) - len(served)} were refused), s since SIGTERM")
    print(histogram(served, span.begin, 0.5))
    assert {each.reason for each in within} == {"draining"}
    assert min(each.at for each in served) - span.begin >= delay
    quarters = [0] * 4
    for each in served:
        quarters[min(3, int((each.at - span.begin - delay) / drain * 4))] += 1
    assert min(quarters) >= len(served) // 10, quarters
