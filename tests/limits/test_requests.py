"""What a request may cost before anybody looks at it: bytes, time, and how many there may be."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.settings import Settings
from gateway.transports.limits import KEEP_ALIVE_S, MOST_PIPELINED, MOST_WAITING
from tests.attacks.mob import Mob
from tests.conftest import StartGateway
from tests.limits.counts import until_counts, until_nobody
from tests.limits.refusals import rejected
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.http_reply import HttpReply, fetch_async
from tests.support.sse import SseClient, parse_head, read_body
from tests.support.tcp import Ended, TcpStream

LIMIT = 2048
HEAD = b"GET /livez HTTP/1.1\r\nHost: x\r\n"
CHUNKED = b"POST /auth/ticket HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


def test_defaults() -> None:
    """The contract names them."""
    settings = Settings(auth="none")
    assert (settings.max_header_bytes, settings.request_timeout_s) == (16 * 1024, 10)


async def reply(tcp: TcpStream) -> HttpReply:
    status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
    return HttpReply(status, headers, await read_body(tcp, headers))


async def exchange(gateway: Gateway, request: bytes) -> HttpReply:
    """Send, in pieces as the network would, and read the answer that ends the connection."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        with contextlib.suppress(ConnectionError):  # it may be refused before all is sent
            await tcp.send(request)
        answer = await reply(tcp)
        if answer.headers.get("connection") == "close":
            assert await tcp.read_to_end() == b""
        return answer


TOO_LARGE = {
    "target": b"GET /events?subject=" + b"x" * LIMIT + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    "target that never ends": b"GET /" + b"x" * LIMIT,
    "header": HEAD + b"X-Large: " + b"x" * LIMIT + b"\r\n\r\n",
    "header that never ends": HEAD + b"X-Large: " + b"x" * LIMIT,
    "name that never ends": HEAD + b"x" * LIMIT,
    "many headers": HEAD + b"".join(b"X-%d: y\r\n" % n for n in range(LIMIT // 8)) + b"\r\n",
    "line breaks": b"\r\n" * LIMIT,
    "head of a handshake": HEAD + b"Upgrade: websocket\r\nConnection: upgrade\r\nX: " + b"x" * LIMIT + b"\r\n\r\n",
    "trailer": CHUNKED + b"0\r\nX-Large: " + b"x" * 40_000 + b"\r\n\r\n",
    "trailer that never ends": CHUNKED + b"0\r\nX-Large: " + b"x" * LIMIT,
    "many trailers": CHUNKED + b"0\r\n" + b"".join(b"X-%d: y\r\n" % n for n in range(LIMIT // 8)),
    "chunk extensions": CHUNKED + b"1;" + b"e" * LIMIT,
    "the smallest chunks": CHUNKED + b"1\r\nx\r\n" * (LIMIT // 5),
}


async def test_what_is_beside_a_body_is_bounded(start_gateway: StartGateway) -> None:
    """`MAX_HEADER_BYTES` holds for the request line, headers, trailers and what frames a body, whole or not: 431, the
    end, and a line that says who it was. Up to it requests are served."""
    gateway = await start_gateway(MAX_HEADER_BYTES=LIMIT)
    for what, request in TOO_LARGE.items():
        answer = await exchange(gateway, request)
        assert answer.status == 431, what
        assert "too large" in answer.problem()["detail"]
    assert rejected(gateway.metrics(), "headers_too_large") == len(TOO_LARGE)
    lines = [line for line in gateway.logs("request_rejected") if line["reason"] == "headers_too_large"]
    assert {line["remote"] for line in lines} == {"127.0.0.1"}
    just_so = HEAD + b"X-Large: " + b"x" * (LIMIT - len(HEAD) - 40) + b"\r\n\r\n"
    assert (await exchange(gateway, just_so)).status == 200
    await until_nobody(gateway)


async def test_a_second_request_has_the_same_limit(start_gateway: StartGateway) -> None:
    """On a kept connection each request is measured by itself, and one that comes with the end of another, too."""
    gateway = await start_gateway(MAX_HEADER_BYTES=LIMIT)
    small = HEAD + b"X: " + b"x" * 1000 + b"\r\n\r\n"
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        for _ in range(5):
            await tcp.send(small)
            assert (await reply(tcp)).status == 200
        await tcp.send(small + HEAD + b"X: " + b"x" * 40_000)
        assert (await reply(tcp)).status == 431
        assert await tcp.read_to_end() == b""


async def test_a_request_has_its_time(start_gateway: StartGateway) -> None:
    """`REQUEST_TIMEOUT_S` is for all of it, the body too, however it trickles: 408 and the end; who has said nothing
    is closed without a word. An answer that was given already is the only one."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=0.4)
    body = b"POST /auth/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{"
    for part in (b"GET /", HEAD, body):
        async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
            await tcp.send(part)
            answer = await reply(tcp)
            if part is not body:
                assert answer.status == 408
            assert await tcp.read_to_end() == b""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        assert await tcp.read_to_end() == b""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"POST /livez HTTP/1.1\r\nHost: x\r\nContent-Length: 50\r\n\r\n{")
        assert (await reply(tcp)).status == 405
        assert await tcp.read_to_end() == b""
    assert rejected(gateway.metrics(), "request_timeout") >= 2
    await until_nobody(gateway)


async def test_who_waits_for_a_next_request_is_counted_and_closed(gateway: Gateway) -> None:
    """A kept connection is one that waits, not one that nobody knows of; after `KEEP_ALIVE_S` it is closed."""
    before = gateway.metrics().total("natsgate_requests_waiting")
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(3 * KEEP_ALIVE_S):
        await tcp.send(HEAD + b"\r\n")
        assert (await reply(tcp)).status == 200
        await until_counts(gateway, waiting=before + 1)
        assert await tcp.read_to_end() == b""


async def test_few_requests_are_answered_at_once(start_gateway: StartGateway) -> None:
    """Behind the one that is answered `MOST_PIPELINED` may wait; with more of them the connection ends, and its
    requests are forgotten. One that does not read its answers ends no differently."""
    gateway = await start_gateway()
    some = HEAD + b"\r\n"
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(some * (MOST_PIPELINED + 1))
        for _ in range(MOST_PIPELINED + 1):
            assert (await reply(tcp)).status == 200
        await tcp.send(some * 2000)
        answers = []
        with contextlib.suppress(Ended):
            while True:
                answers.append((await reply(tcp)).status)
    assert answers[-1:] in ([429], [200], [])
    assert len(answers) <= MOST_PIPELINED + 2
    assert rejected(gateway.metrics(), "too_many_pipelined") == 1
    assert "Traceback" not in gateway.log_text
    await until_nobody(gateway)


async def test_too_many_that_wait_lose_their_oldest(start_gateway: StartGateway) -> None:
    """Half requests are held open up to `MOST_WAITING`; then those that have waited longest are given up, and whoever
    has a request is served."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=60)
    mob = Mob(gateway.host, gateway.port)
    try:
        await asyncio.to_thread(mob.open, MOST_WAITING + 200, HEAD)

        async def given_up() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return rejected(metrics, "too_many_waiting") >= 200 and metrics.total("natsgate_requests_waiting") > 4000

        await eventually(given_up, "the oldest are given up")
        assert mob.ended(slice(0, 150)) == 150
        assert mob.ended(slice(-3000, None)) == 0
        assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200
        async with SseClient(gateway.url, "repo.limits.>") as page:
            await page.ready()
    finally:
        mob.close()
    await until_nobody(gateway)


async def test_an_event_stream_listens_to_nobody_for_long(start_gateway: StartGateway) -> None:
    """What an SSE client sends behind its request is thrown away; one that does not end is cut."""
    gateway = await start_gateway()
    async with SseClient(gateway.url, "repo.limits.>", keep=False) as page:
        await page.ready()
        await page.tcp.send(b"x" * 1000)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(10):
                while True:
                    await page.tcp.send(b"x" * 65536)
    await until_nobody(gateway)
    metrics = gateway.metrics()
    assert metrics.total("natsgate_connections_closed_total", transport="sse", reason="policy") == 1


@pytest.mark.parametrize("request_bytes", [CHUNKED + b"2\r\n{}\r\n0\r\nX-Trailer: fine\r\n\r\n", HEAD + b"\r\n"])
async def test_what_is_within_the_limits_is_served(gateway: Gateway, request_bytes: bytes) -> None:
    """Chunks and a trailer are no offence."""
    answer = await exchange(gateway, request_bytes)
    assert answer.status in (200, 404), answer  # without tokens there are no tickets
    assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200
