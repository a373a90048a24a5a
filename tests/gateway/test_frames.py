"""WebSocket frames by RFC 6455: pieces, controls, and what only a hostile client sends."""

from __future__ import annotations

import json
import struct

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.producer import publish
from tests.support.raw_ws import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    RawWebSocket,
    encode_frame,
    encode_op,
    encode_text,
)
from tests.support.ws_moves import BREACHES

HELLO = b'{"op":"ping","ref":"f"}'


async def test_fragmented_messages_are_put_together(gateway: Gateway) -> None:
    """A message in three fragments, with a ping between, counts as one."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_frame(TEXT, HELLO[:5], fin=False))
        await ws.send(encode_frame(PING, b"between"))
        await ws.send(encode_frame(CONTINUATION, b"", fin=False))
        await ws.send(encode_frame(CONTINUATION, HELLO[5:]))
        frames = [await ws.next_frame() for _ in range(3)]
        (pong,) = [frame for frame in frames if frame.opcode == PONG]
        assert pong.payload == b"between"
        assert frames[0].json()["op"] == "hello"
        (answer,) = [frame for frame in frames[1:] if frame.opcode == TEXT]
        assert answer.json() == {"op": "pong", "ref": "f"}


async def test_a_character_may_be_cut_by_fragments(gateway: Gateway) -> None:
    """A multi-byte character split between two fragments is whole again."""
    payload = json.dumps({"op": "ping", "ref": "任务"}, ensure_ascii=False).encode()
    cut = payload.index("任".encode()) + 1
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_frame(TEXT, payload[:cut], fin=False), encode_frame(CONTINUATION, payload[cut:]))
        assert await ws.next_op("pong") == {"op": "pong", "ref": "任务"}


async def test_frames_may_arrive_byte_by_byte(gateway: Gateway) -> None:
    """A frame that trickles in is understood like any other."""
    async with RawWebSocket(gateway.url) as ws:
        for byte in encode_frame(TEXT, HELLO):
            await ws.send(bytes([byte]))
        assert await ws.next_op("pong") == {"op": "pong", "ref": "f"}


async def test_protocol_pings_are_answered_with_their_payload(gateway: Gateway) -> None:
    """A ping of the client comes back as a pong; an unasked pong is ignored."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_frame(PONG, b"unasked"), encode_frame(PING, b"x" * 125))
        frame = await ws.next_frame()
        assert (frame.opcode, frame.payload) == (PONG, b"x" * 125)


@pytest.mark.parametrize(("frames", "code"), BREACHES.values(), ids=BREACHES.keys())
async def test_breaches_of_the_protocol_are_told_and_end_it(gateway: Gateway, frames: bytes, code: int) -> None:
    """What RFC 6455 forbids is named in an `error`, announced by `closing`, and ends the connection with its code."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(frames)
        error = (await ws.next_text()).json()
        closing = (await ws.next_text()).json()
        close = await ws.next_frame()
        assert (error["op"], error["ref"]) == ("error", None)
        assert "RFC 6455" in error["message"]
        assert (closing["op"], closing["reason"], closing["reconnect"]) == ("closing", error["code"], False)
        assert (close.close_code, close.payload[2:].decode()) == (code, closing["reason"])
        await ws.end()


async def test_a_close_may_come_within_a_message(gateway: Gateway) -> None:
    """Control frames may stand between fragments (RFC 6455, 5.4), and a close frame is one: it is answered."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_frame(TEXT, b"{", fin=False), encode_frame(CLOSE, struct.pack("!H", 1001)))
        frame = await ws.next_frame()
        assert (frame.opcode, frame.close_code) == (CLOSE, 1001)
        await ws.end()


async def test_answers_come_in_the_order_of_the_questions(gateway: Gateway) -> None:
    """A ping is answered before the op behind it, and after the op before it, though all came in one piece."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(
            encode_op(op="ping", ref=1), encode_frame(PING, b"2"), encode_op(op="ping", ref=3), encode_frame(PING, b"4")
        )
        frames = [await ws.next_frame() for _ in range(4)]
        assert [frame.opcode for frame in frames] == [TEXT, PONG, TEXT, PONG]
        assert [frames[0].json()["ref"], frames[2].json()["ref"]] == [1, 3]
        assert [frames[1].payload, frames[3].payload] == [b"2", b"4"]


async def test_the_last_word_reaches_a_client_that_goes_on_sending(gateway: Gateway) -> None:
    """A client in the midst of a message that is too large still reads why, instead of a reset."""
    async with RawWebSocket(gateway.url, receive_buffer_bytes=4096) as ws:
        await ws.next_op("hello")
        await ws.send(b"\x82\xff" + struct.pack("!Q", 4 * 2**20) + b"mask")
        await ws.send(bytes(4 * 2**20))
        assert (await ws.next_op("error"))["code"] == "too_large"
        assert (await ws.close_frame()).close_code == 1009
        await ws.end()
        assert not ws.tcp.was_reset


async def test_messages_up_to_the_limit_pass_and_larger_ones_close_with_1009(
    start_gateway: StartGateway,
) -> None:
    """Exactly `WS_MAX_MESSAGE_BYTES` is taken; one byte more is 1009, in one frame or in fragments."""
    gateway = await start_gateway(WS_MAX_MESSAGE_BYTES=4096)
    fitting = HELLO + b" " * (4096 - len(HELLO))
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_frame(TEXT, fitting))
        await ws.next_op("pong")
        await ws.send(encode_frame(TEXT, fitting[:2000], fin=False), encode_frame(CONTINUATION, fitting[2000:]))
        await ws.next_op("pong")
        await ws.send(encode_frame(TEXT, fitting + b" "))
        assert (await ws.answer_close()).close_code == 1009
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_frame(TEXT, fitting, fin=False), encode_frame(CONTINUATION, b"  "))
        assert (await ws.answer_close()).close_code == 1009
    async with RawWebSocket(gateway.url) as ws:
        announced = b"\x81" + bytes([0x80 | 127]) + struct.pack("!Q", 2**62)
        await ws.send(announced + b"\0\0\0\0")
        assert (await ws.answer_close()).close_code == 1009


async def test_a_large_binary_message_is_1009_too(start_gateway: StartGateway) -> None:
    """The limit holds for binary messages as well."""
    gateway = await start_gateway(WS_MAX_MESSAGE_BYTES=4096)
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_frame(BINARY, b"x" * 5000))
        assert (await ws.close_frame()).close_code == 1009


@pytest.mark.parametrize(
    "payload", [b"", struct.pack("!H", 1000), struct.pack("!H", 1001) + b"bye", struct.pack("!H", 4321)]
)
async def test_a_close_is_echoed_and_the_connection_ends(gateway: Gateway, payload: bytes) -> None:
    """The client's close is answered by a close of the same code; then TCP ends."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_frame(CLOSE, payload))
        assert (await ws.close_frame()).payload[:2] == payload[:2]
        await ws.end()
        assert not ws.tcp.was_reset


async def test_frames_after_a_close_are_ignored(gateway: Gateway) -> None:
    """What a client sends behind its own close has no effect."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_frame(CLOSE, struct.pack("!H", 1000)), encode_op(op="ping", ref="late"))
        frame = await ws.next_frame()
        assert (frame.opcode, frame.close_code) == (CLOSE, 1000)
        await ws.end()


async def test_pings_are_sent_and_pongs_keep_the_connection(start_gateway: StartGateway) -> None:
    """Every `WS_PING_S` a ping comes; while it is answered nothing is closed."""
    gateway = await start_gateway(WS_PING_S=0.2, WS_PONG_TIMEOUT_S=0.6)
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        for _ in range(6):
            frame = await ws.next_frame()
            assert frame.opcode == PING
            await ws.send(encode_frame(PONG, frame.payload))
        await ws.ping_op()


async def test_a_client_without_pongs_is_closed(start_gateway: StartGateway) -> None:
    """No pong within `WS_PONG_TIMEOUT_S`: closed with 3008, `heartbeat_timeout`."""
    gateway = await start_gateway(WS_PING_S=0.2, WS_PONG_TIMEOUT_S=0.4)
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        assert (await ws.next_frame()).opcode == PING
        assert (await ws.answer_close()).close_code == 3008
    closed = gateway.metrics().by("natsgate_connections_closed_total", "reason")
    assert closed.get("heartbeat_timeout") == 1


async def test_pings_go_out_between_events_too(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Pings and events share the connection without disturbing each other."""
    gateway = await start_gateway(WS_PING_S=0.2, WS_PONG_TIMEOUT_S=5)
    async with RawWebSocket(gateway.url) as ws:
        await ws.subscribe(f"repo.{own_id}.>")
        pings, events = 0, 0
        while pings < 3:
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": events}))
            frame = await ws.next_frame()
            while frame.opcode == PING:
                pings += 1
                await ws.send(encode_frame(PONG, frame.payload))
                frame = await ws.next_frame()
            assert frame.json()["event"] == {"n": events}
            events += 1


async def test_garbage_after_the_handshake_ends_only_this_connection(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Random bytes close their own connection with 1002; a neighbour notices nothing."""
    async with RawWebSocket(gateway.url) as neighbour:
        await neighbour.subscribe(f"repo.{own_id}.>")
        async with RawWebSocket(gateway.url) as ws:
            await ws.send(b"\x16\x03\x01\x02\x00" + b"\xff" * 500)
            assert (await ws.answer_close()).close_code == 1002
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await neighbour.next_op("event"))["event"] == {"n": 1}


async def test_the_server_never_masks_or_fragments_large_events(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Events of each frame length form (7, 16 and 64 bits) arrive as one whole frame."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.subscribe(f"repo.{own_id}.>")
        for size in (0, 200, 60_000, 70_000, 200_000):
            text = json.dumps({"a": "y" * size})
            await publish(nc, f"repo.{own_id}.x", text)
            frame = await ws.next_text()
            assert frame.fin
            assert frame.json()["event"] == json.loads(text)


async def test_large_texts_are_read_within_the_default_limit(gateway: Gateway) -> None:
    """A message of 64 KiB is within the default limit."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_text('{"op":"ping","ref":"big"}'.ljust(64 * 1024)))
        assert await ws.next_op("pong") == {"op": "pong", "ref": "big"}
