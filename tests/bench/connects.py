"""What it costs to come: connects with tokens of both kinds, the first time and again, beside those without any."""

import asyncio
import statistics
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import cast

import uvloop

from tests.bench.cpu import cpu_s
from tests.bench.event import FILTER
from tests.bench.failure import Unmeasured
from tests.bench.gateway_server import Gateway
from tests.bench.table import Goal, Table
from tests.bench.transport import SSE
from tests.bench.workbench import Workbench
from tests.support.tokens import SECRET, claims, public_pem, sign

AT_ONCE = 16
"""Connects in flight: enough to keep the gateway busy, too few to make a herd."""

GIVE_UP_S = 60
READY = SSE.ready_mark.encode()
PLAIN = SSE.request.encode()
NONE = "AUTH=none"
KEYS = {"HS256": {"JWT_SECRET": SECRET}, "ES256": {"JWT_PUBLIC_KEY": public_pem("ES256")}}
AGAIN_LIMIT = 1.3
"""A token that was seen before costs a hash and the bytes of its header, not a signature."""


@dataclass
class Way:
    """One row: a way to come to a gateway, and what it took in each round."""

    name: str
    gateway: Gateway
    port: int
    cpu_us: list[float] = field(default_factory=list)
    per_second: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)

    def measure(self, requests: Sequence[bytes]) -> float:
        """Connect once with each request; returns the µs of gateway CPU for one."""
        used_s, began = cpu_s(self.gateway.pid), time.perf_counter()
        _connect(self.port, requests)
        used_s, took_s = cpu_s(self.gateway.pid) - used_s, time.perf_counter() - began
        self.cpu_us.append(used_s / len(requests) * 1e6)
        self.per_second.append(len(requests) / took_s)
        return self.cpu_us[-1]

    def row(self) -> list[str]:
        cpu_us = statistics.median(self.cpu_us)
        ratio = f"{statistics.median(self.ratios):.2f}" if self.ratios else ""
        return [
            self.name,
            f"{cpu_us:,.0f}",
            ratio,
            f"{1e6 / cpu_us:,.0f}",
            f"{statistics.median(self.per_second):,.0f}",
        ]


def run(bench: Workbench) -> Table:
    clients, rounds = bench.amount.connects, bench.amount.connect_rounds
    with ExitStack() as stack:
        url = bench.nats_server(stack).url()
        none = Way(NONE, *bench.gateway(stack, url))
        _connect(none.port, [PLAIN] * clients)
        ways: dict[str, tuple[Way, Way]] = {}
        for algorithm, settings in KEYS.items():
            gateway, port = bench.gateway(stack, url, AUTH="jwt", **settings)
            ways[algorithm] = (Way(f"{algorithm}, first", gateway, port), Way(f"{algorithm}, again", gateway, port))
            _connect(port, _requests(algorithm, "warm", clients))
        for number in range(rounds):
            floor_us = none.measure([PLAIN] * clients)
            measured = []
            for algorithm, both in ways.items():
                requests = _requests(algorithm, f"round-{number}", clients)
                measured += [(way, way.measure(requests)) for way in both]
            floor_us = (floor_us + none.measure([PLAIN] * clients)) / 2
            for way, cpu_us in measured:
                way.ratios.append(cpu_us / floor_us)
    again = [both[1] for both in ways.values()]
    return Table(
        f"connects: {clients:,} SSE clients, {AT_ONCE} at a time, each until it is ready; then it goes",
        ["", "CPU µs/connect", f"x {NONE}", "per second of CPU", "per second by the clock"],
        [way.row() for way in (none, *(way for both in ways.values() for way in both))],
        [
            "first: each with a token that the gateway has not seen; again: the same tokens once more. Medians of "
            f"{rounds} rounds; each is held against the two of {NONE} around it. Verified: every client was ready.",
        ],
        [Goal(f"connects with {way.name}", statistics.median(way.ratios), AGAIN_LIMIT, f"x {NONE}") for way in again],
    )


def _requests(algorithm: str, series: str, clients: int) -> list[bytes]:
    """Requests with tokens that differ, of users that differ."""
    tokens = [
        sign(claims(f"{series}-{each}", subscribe=[FILTER, "user.{sub}.>"]), algorithm=algorithm)
        for each in range(clients)
    ]
    return [SSE.request.replace("\r\n\r\n", f"\r\nAuthorization: Bearer {token}\r\n\r\n").encode() for token in tokens]


class _Client(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self._request = request
        self._heard = b""
        self._transport: asyncio.Transport | None = None
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._heard += data
        if READY in self._heard and self._transport is not None:
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        if READY in self._heard:
            self.done.set_result(None)
        else:
            self.done.set_exception(Unmeasured(f"a client was not let in: {self._heard[:300]!r} {exc or ''}"))


def _connect(port: int, requests: Sequence[bytes]) -> None:
    """Come once with each request. Raises Unmeasured when one is not served."""

    async def run() -> None:
        loop = asyncio.get_running_loop()
        rest = iter(requests)

        async def one_after_the_other() -> None:
            for request in rest:
                _, client = await loop.create_connection(partial(_Client, request), "127.0.0.1", port)
                await client.done

        try:
            async with asyncio.timeout(GIVE_UP_S):
                await asyncio.gather(*(one_after_the_other() for _ in range(AT_ONCE)))
        except TimeoutError:
            raise Unmeasured(f"{len(requests)} clients did not come and go within {GIVE_UP_S} s") from None

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
