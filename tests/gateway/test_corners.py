"""Corners of HTTP and WebSocket where a server built on other people's parsers can go silent, or say too much."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.http_reply import fetch_async
from tests.support.sse import SseClient, parse_head, read_body
from tests.support.tcp import Ended, TcpStream

HANDSHAKE = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    "Sec-WebSocket-Protocol: natsgate.v1\r\n"
)


async def handshake(gateway: Gateway, *headers: str) -> int:
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send((HANDSHAKE + "".join(f"{header}\r\n" for header in headers) + "\r\n").encode())
        return parse_head(await tcp.read_until(b"\r\n\r\n"))[0]


async def test_a_handshake_with_long_cookies_is_answered(gateway: Gateway) -> None:
    """Headers within MAX_HEADER_BYTES are taken in handshakes too, however long one line is and however many."""
    assert await handshake(gateway, "Cookie: " + "a=1; " * 1700) == 101
    assert await handshake(gateway, *(f"X-{n}: y" for n in range(200))) == 101


async def test_a_handshake_with_a_body_is_refused_not_ignored(gateway: Gateway) -> None:
    """What the parser of handshakes gives up on gets an answer, and no connection hangs."""
    assert await handshake(gateway, "Content-Length: 5") == 400


async def test_head_of_a_stream_is_refused(gateway: Gateway) -> None:
    """A HEAD has no body, so an endless one cannot be answered: 405, and the connection can be used again."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"HEAD /events?subject=repo.1.x HTTP/1.1\r\nHost: x\r\n\r\n")
        status, _ = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert status == 405
        await tcp.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        status, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
        assert (status, await read_body(tcp, headers)) == (200, b'{"live":true}')


async def test_what_is_pipelined_behind_a_stream_does_not_disturb_it(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A second request in the same segment is not answered into the stream."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        stream = f"GET /events?subject=repo.{own_id}.x HTTP/1.1\r\nHost: x\r\n\r\n"
        await tcp.send(f"{stream}GET /livez HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        got = await tcp.read_until(b'"connection"')
        await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":1}')
        got += await tcp.read_until(b'{"n":1}')
    assert got.count(b"HTTP/1.1 ") == 1


async def test_a_stray_line_break_does_not_hold_a_connection(start_gateway: StartGateway) -> None:
    """After an answered request a lone CRLF is no request: the connection ends in time all the same."""
    gateway = await start_gateway(REQUEST_TIMEOUT_S=0.5)
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(15):
        await tcp.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n")
        _, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
        await read_body(tcp, headers)
        await tcp.send(b"\r\n")
        try:
            while await tcp.receive():
                pass
        except (Ended, ConnectionError):
            pass


async def test_other_requests_go_on_beside_a_stream(gateway: Gateway, own_id: str) -> None:
    """A stream's connection is its own: others are answered meanwhile."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200


async def test_a_websocket_path_without_an_upgrade_says_so(gateway: Gateway) -> None:
    """A plain GET of /ws is told that it is for WebSocket, and what a proxy may have taken away."""
    reply = await fetch_async(gateway.host, gateway.port, "/ws")
    assert reply.status == 426
    assert reply.headers["upgrade"] == "websocket"
    assert "Upgrade" in reply.problem()["detail"]
