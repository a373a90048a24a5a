"""Requests that are sent before the one in front of them has its answer."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway, routes
from tests.support.service import Service
from tests.support.sse import parse_head, read_body
from tests.support.tcp import TcpStream

LIVEZ = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"
HANDSHAKE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)


async def status(tcp: TcpStream) -> int:
    """Read one answer."""
    found, headers = parse_head(await tcp.read_until(b"\r\n\r\n"))
    await read_body(tcp, headers)
    return found


async def until_nobody(gateway: Gateway) -> None:
    """Wait until no connection, and no feed of one, is counted."""

    async def nobody() -> bool:
        seen = await asyncio.to_thread(gateway.metrics)
        counted = ("natsgate_connections", "natsgate_admitted", "natsgate_feeds")
        return not any(seen.total(name) for name in counted)

    await eventually(nobody, "nobody is counted")


async def test_a_handshake_behind_a_stream_leaves_nobody_behind(start_gateway: StartGateway) -> None:
    """A WebSocket handshake right behind a request for a stream is refused; no connection outlives its client."""
    gateway = await start_gateway()
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(b"GET /events?subject=repo.1.%3E HTTP/1.1\r\nHost: x\r\n\r\n" + HANDSHAKE)
        assert await status(tcp) == 429
        assert await tcp.read_to_end() == b""
    await until_nobody(gateway)
    seen = await asyncio.to_thread(gateway.metrics)
    assert seen.total("natsgate_requests_rejected_total", reason="too_many_pipelined") == 1


async def test_a_handshake_behind_an_answer_is_served(gateway: Gateway) -> None:
    """A connection that has had its answer may become a WebSocket."""
    async with TcpStream(gateway.host, gateway.port) as tcp, asyncio.timeout(10):
        await tcp.send(LIVEZ)
        assert await status(tcp) == 200
        await tcp.send(HANDSHAKE)
        assert (await tcp.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")


async def test_the_last_of_several_is_not_taken_for_idle(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A connection whose last request is being answered waits for nothing: it is none of those that are given up."""
    name = f"slow-{own_id}"
    route = (f'name = "{name}"', 'path = "/slow"', 'transports = ["sse"]', f'subjects = ["repo.{own_id}.>"]')
    gateway = await start_gateway(config=routes((*route, 'authorize = "service"')))
    async with Service(nc, name, {"allow": True}) as service, TcpStream(gateway.host, gateway.port) as tcp:
        service.opens.clear()
        await tcp.send(LIVEZ + b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        await service.until_asked(1)
        seen = await asyncio.to_thread(gateway.metrics)
        assert seen.total("natsgate_requests_waiting") == 0
        service.opens.set()
        async with asyncio.timeout(10):
            assert await status(tcp) == 200
            assert (await tcp.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
