"""The counts behind the limits never leak, whatever becomes of connections."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from random import Random

from tests.conftest import StartGateway
from tests.limits.counts import counts, until_nobody
from tests.limits.refusals import vanish
from tests.support.gateway import Gateway
from tests.support.raw_ws import CLOSE, RawWebSocket, encode_frame, encode_op
from tests.support.sse import SseClient
from tests.support.tcp import TcpStream
from tests.support.tokens import SECRET, bearer, token

FEED = "repo.limits.>"
VISITS = 400
AT_ONCE = 40


class Visitor:
    """Somebody who comes, and goes in one of many ways. `chance` decides which, whose token it is and where from."""

    def __init__(self, gateway: Gateway, chance: Random) -> None:
        self._gateway = gateway
        self._chance = chance
        self._user = f"user-{chance.randrange(4)}"
        self._headers = {
            **bearer(token(self._user, subscribe=[FEED])),
            "X-Forwarded-For": f"203.0.113.{chance.randrange(6)}",
        }

    async def visit(self) -> None:
        ways: list[Callable[[], Awaitable[None]]] = [
            self._stream,
            self._websocket,
            self._late,
            self._wrong_token,
            self._half_a_request,
            self._handshake_and_away,
            self._wrong_path,
        ]
        # Where a reset meets bytes under way, either side may see it first.
        with contextlib.suppress(ConnectionError, EOFError):
            await self._chance.choice(ways)()

    async def _stream(self) -> None:
        async with SseClient(self._gateway.url, FEED, headers=self._headers) as page:
            await page.next_event()  # ready, or closing
            if self._chance.random() < 0.5:
                await vanish(page)

    async def _websocket(self) -> None:
        async with RawWebSocket(self._gateway.url, headers=dict(self._headers)) as board:
            for n in range(self._chance.randrange(4)):
                await board.send(encode_op(op="subscribe", ref=n, subject=f"repo.limits.{n}"))
            match self._chance.randrange(4):
                case 0:
                    await vanish(board)
                case 1:
                    await board.send(encode_frame(CLOSE))
                    await board.end()
                case 2:
                    await board.send(b"\xff\xff\xff\xff")
                    await board.end()

    async def _late(self) -> None:
        async with RawWebSocket(self._gateway.url) as board:
            await board.next_op("hello")
            for n in range(self._chance.randrange(3)):
                await board.send(encode_op(op="auth", ref=n, token=token(self._user, subscribe=[FEED])))
            if self._chance.random() < 0.5:
                await vanish(board)

    async def _wrong_token(self) -> None:
        async with RawWebSocket(self._gateway.url, headers={"Authorization": "Bearer nonsense"}) as board:
            await board.end()

    async def _half_a_request(self) -> None:
        async with TcpStream(self._gateway.host, self._gateway.port) as tcp:
            await tcp.send(b"GET /events?subject=repo.limits.%3E HTTP/1.1\r\nHost: x\r\n")
            tcp.abort()

    async def _handshake_and_away(self) -> None:
        board = RawWebSocket(self._gateway.url, headers=dict(self._headers))
        await board.tcp.open()
        await board.tcp.send(b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n")
        await vanish(board)

    async def _wrong_path(self) -> None:
        async with SseClient(self._gateway.url, target="/events?subject=none.>", headers=self._headers) as page:
            assert page.status in (400, 200)  # 200: refused before anybody looks at the filter


async def test_after_hundreds_of_visits_nothing_is_counted(start_gateway: StartGateway) -> None:
    """Connections, refusals, resets and half requests, many at once, with limits that refuse some of each kind: then
    nobody is counted, every connection that was opened is closed, and the limits let everybody in again."""
    gateway = await start_gateway(
        AUTH="jwt",
        JWT_SECRET=SECRET,
        TRUSTED_PROXIES="127.0.0.1",
        MAX_CONNECTIONS=25,
        MAX_CONNECTIONS_PER_SUB=5,
        MAX_CONNECTIONS_PER_IP=8,
    )
    chance = Random(6)
    places = asyncio.Semaphore(AT_ONCE)

    async def one(visitor: Visitor) -> None:
        async with places:
            await visitor.visit()

    await asyncio.gather(*(one(Visitor(gateway, Random(chance.random()))) for _ in range(VISITS)))
    await until_nobody(gateway)
    metrics = await asyncio.to_thread(gateway.metrics)
    opened = metrics.total("natsgate_connections_opened_total")
    assert opened > VISITS / 10
    assert metrics.total("natsgate_connections_closed_total") == opened
    assert metrics.total("natsgate_requests_rejected_total", reason="limit_connections") > 0
    assert "Traceback" not in gateway.log_text
    user = bearer(token("user-0", subscribe=[FEED]))
    pages = [SseClient(gateway.url, FEED, headers=user) for _ in range(5)]
    for page in pages:
        await page.open()
        await page.ready()
        assert counts(gateway)["connections"] <= 5
    for page in pages:
        page.close()
