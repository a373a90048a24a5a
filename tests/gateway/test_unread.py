"""Clients that send and never read, or send faster than anything can be done with it: what they cost is bounded."""

from __future__ import annotations

import asyncio

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.frozen import frozen
from tests.support.nats_server import NatsServer
from tests.support.raw_ws import CONTINUATION, PING, PONG, TEXT, RawWebSocket, encode_frame, encode_text

PINGS = b"".join(encode_frame(PING, b"x" * 125) for _ in range(1000))
MiB = 2**20


async def test_pings_without_end_do_not_fill_the_memory(start_gateway: StartGateway) -> None:
    """A client that pings and reads no pong is not read any further: it blocks, memory stays, others are served; after
    `WRITE_TIMEOUT_S` it is closed as `slow`."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=2, INBOUND_RATE=0)
    async with RawWebSocket(gateway.url) as neighbour:
        await neighbour.next_op("hello")
        resident = gateway.rss_bytes()
        async with RawWebSocket(gateway.url, receive_buffer_bytes=4096, keep=False) as ws:
            sent = 0

            async def flood() -> None:
                nonlocal sent
                while True:
                    await ws.send(PINGS)
                    sent += len(PINGS)

            flooding = asyncio.create_task(flood())
            seen = -1

            async def blocked() -> bool:
                nonlocal seen
                before, seen = seen, sent
                return seen == before

            await eventually(blocked, "nothing more is taken", every_s=0.5)
            assert gateway.rss_bytes() - resident < 4 * MiB
            await neighbour.ping_op()

            async def closed() -> float:
                metrics = await asyncio.to_thread(gateway.metrics)
                return metrics.total("natsgate_connections_closed_total", reason="slow")

            assert await eventually(closed, "it is closed as slow", timeout_s=20) == 1
            await asyncio.wait([flooding], timeout=10)
            assert isinstance(flooding.exception(), ConnectionError)


async def test_a_message_without_end_does_not_fill_the_memory(start_gateway: StartGateway) -> None:
    """Empty fragments by the hundred thousand, and then the message: memory stays, and the message is understood."""
    gateway = await start_gateway(INBOUND_RATE=0)
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        resident = gateway.rss_bytes()
        await ws.send(encode_frame(TEXT, b"", fin=False))
        empty = encode_frame(CONTINUATION, b"", fin=False) * 10_000
        for _ in range(30):
            await ws.send(empty)
        await ws.send(encode_frame(CONTINUATION, b'{"op":"ping","ref":"end"}'))
        assert await ws.next_op("pong", timeout_s=30) == {"op": "pong", "ref": "end"}
        assert gateway.rss_bytes() - resident < 2 * MiB


BOARD = """[[route]]
name = "board"
path = "/board/{id}"
transports = ["ws"]
framing = "raw"
subjects = ["project.{id}.>"]
publish = "inbox.project.{id}.{type}"
"""


async def test_a_client_whose_messages_wait_for_nats_is_not_missed(
    start_gateway: StartGateway, own_nats: NatsServer
) -> None:
    """While messages of a raw client wait to be stored it is not read, so its pongs are not either: it stays."""
    gateway = await start_gateway(config=BOARD, nats_url=own_nats.url, WS_PING_S=0.2, WS_PONG_TIMEOUT_S=0.6)
    async with RawWebSocket(gateway.url, "/board/7?control=true", subprotocol=None) as ws:
        await ws.next_text()
        with frozen(own_nats.pid):
            await ws.send(*(encode_text('{"type":"move"}') for _ in range(100)))
            kinds = [(await ws.next_frame()).opcode]
            await ws.send(encode_frame(PONG))
            refused = 0
            while refused < 32:
                frame = await ws.next_frame(timeout_s=20)
                if frame.opcode == PING:
                    await ws.send(encode_frame(PONG, frame.payload))
                elif b"not_stored" in frame.payload:
                    refused += 1
                kinds.append(frame.opcode)
        assert set(kinds) == {PING, TEXT}
