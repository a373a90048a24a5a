"""What one WebSocket client may ask for, how fast, and how long it may take to say who it is."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AsyncExitStack

import pytest

from gateway.settings import Settings
from gateway.transports.limits import EARLY_BYTES
from gateway.transports.ws_frames import FRAMES_A_MESSAGE, INBOUND_WINDOW_S, MOST_UNREAD_BYTES
from gateway.transports.ws_raw import MAX_UNSTORED
from gateway.transports.ws_v1 import MAX_FEEDS_BYTES
from tests.conftest import StartGateway
from tests.limits.counts import until_counts, until_nobody
from tests.limits.refusals import told_and_closed
from tests.support.eventually import eventually
from tests.support.frozen import frozen
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.raw_ws import (
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
from tests.support.tcp import Ended
from tests.support.tokens import SECRET, token

MIB = 2**20
RATE = 3
BURST = int(RATE * INBOUND_WINDOW_S)
PING_OP = encode_op(op="ping", ref=1)


def test_defaults() -> None:
    """The contract names them."""
    settings = Settings(auth="none")
    assert (settings.inbound_rate, settings.max_filters, settings.max_subscriptions) == (20, 32, 128)
    assert (settings.ws_max_message_bytes, settings.ws_max_errors, settings.auth_timeout_s) == (64 * 1024, 10, 10)
    assert settings.write_timeout_s == 20


async def until_rate_limited(gateway: Gateway, count: int) -> None:
    async def closed() -> bool:
        metrics = await asyncio.to_thread(gateway.metrics)
        return metrics.total("natsgate_connections_closed_total", transport="ws", reason="rate_limited") == count

    await eventually(closed, f"{count} were closed as rate_limited")


BEGUN = encode_frame(TEXT, b"x", fin=False)
MUCH = FRAMES_A_MESSAGE * BURST
TOO_FAST = {
    "messages": PING_OP * (BURST + 5),
    "what is no message of ours": encode_text("nonsense") * (BURST + 5),
    "pings": encode_frame(PING) * (BURST + 5),
    "pongs that nobody asked for": encode_frame(PONG) * (MUCH + 5),
    "fragments": BEGUN + encode_frame(CONTINUATION, b"x", fin=False) * (MUCH + 5),
    "empty fragments": BEGUN + encode_frame(CONTINUATION, b"", fin=False) * (MUCH + 5),
}


@pytest.fixture
async def limited(start_gateway: StartGateway) -> Gateway:
    """A gateway with a low `INBOUND_RATE`, and no limit of errors."""
    return await start_gateway(INBOUND_RATE=RATE, WS_MAX_ERRORS=0)


async def test_who_sends_too_fast_is_told_to_come_again(limited: Gateway) -> None:
    """One message or ping more than `INBOUND_RATE` on average over ten seconds, or so many pongs and fragments as are
    as much work, and the connection is closed with 1013, `rate_limited`."""
    for done, sent in enumerate(TOO_FAST.values(), start=1):
        async with RawWebSocket(limited.url) as board:
            await board.send(sent)
            await told_and_closed(board, "rate_limited")
        await until_rate_limited(limited, done)
    await until_nobody(limited)


async def test_a_burst_is_taken(limited: Gateway) -> None:
    """A page that comes back asks for all of its feeds at once: ten seconds' worth. Then it goes on at the rate."""
    async with RawWebSocket(limited.url) as board:
        await board.send(PING_OP * (BURST - 1))
        for _ in range(BURST - 1):
            await board.next_op("pong")
        for _ in range(5):
            await asyncio.sleep(1 / RATE)  # the rate itself
            await board.ping_op()


async def test_who_floods_on_is_not_listened_to(limited: Gateway) -> None:
    """After the close frame what still comes is thrown away unread, and the connection ends in time."""
    async with RawWebSocket(limited.url, keep=False) as board:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(15):
                while True:
                    await board.send(PING_OP * 500)
    await until_rate_limited(limited, 1)
    await until_nobody(limited)


async def test_zero_is_no_limit(start_gateway: StartGateway) -> None:
    """A thousand pings in one go are answered."""
    gateway = await start_gateway(INBOUND_RATE=0)
    async with RawWebSocket(gateway.url) as board:
        await board.send(PING_OP * 1000)
        for _ in range(1000):
            await board.next_op("pong")


async def test_pongs_and_fragments_cost_little(limited: Gateway) -> None:
    """A message may come in hundreds of fragments with pongs in between, and counts as a few."""
    message = json.dumps({"op": "ping", "ref": "x" * 100}).encode()
    async with RawWebSocket(limited.url) as board:
        first, *middle, last = [message[at : at + 1] for at in range(len(message))]
        for _ in range(BURST // 8):
            await board.send(encode_frame(TEXT, first, fin=False))
            await board.send(*(encode_frame(CONTINUATION, each, fin=False) + encode_frame(PONG) for each in middle))
            await board.send(encode_frame(CONTINUATION, last))
            await board.next_op("pong")


async def test_filters_of_a_feed(start_gateway: StartGateway) -> None:
    """`MAX_FILTERS` in one feed; one more is an error, and the connection goes on."""
    gateway = await start_gateway(MAX_FILTERS=3)
    async with RawWebSocket(gateway.url) as board:
        await board.send(encode_op(op="subscribe", ref=1, subjects=[f"repo.{n}.>" for n in range(4)]))
        error = await board.next_op("error")
        assert (error["ref"], error["code"]) == (1, "too_many_filters")
        assert "3" in error["message"]
        await board.subscribe(*(f"repo.{n}.>" for n in range(3)))
    await until_nobody(gateway)


async def test_filters_of_a_connection(start_gateway: StartGateway) -> None:
    """The filters of all feeds of a connection have `MAX_FEEDS_BYTES` together: one feed beyond that is an error that
    says so, and there is room again when another one ends."""
    gateway = await start_gateway()
    width = 900
    one = [f"repo.{'x' * (width - 20)}{n:08}.>" for n in range(32)]
    two = [f"task.{'x' * (width - 20)}{n:08}.>" for n in range(32)]
    third = [f"user.{'x' * (width - 20)}{n:08}.>" for n in range(32)]
    assert 2 * 32 * width < MAX_FEEDS_BYTES < 3 * 32 * width
    async with RawWebSocket(gateway.url) as board:
        name = await board.subscribe(*one)
        await board.subscribe(*two)
        await board.send(encode_op(op="subscribe", ref=3, subjects=third))
        error = await board.next_op("error")
        assert (error["ref"], error["code"]) == (3, "too_many_subscriptions")
        assert str(MAX_FEEDS_BYTES) in error["message"]
        await board.send(encode_op(op="unsubscribe", ref=4, feed=name))
        await board.next_op("unsubscribed")
        await board.subscribe(*third)
        await until_counts(gateway, feeds=2)
    await until_nobody(gateway)


async def test_a_message_has_its_size(start_gateway: StartGateway) -> None:
    """`WS_MAX_MESSAGE_BYTES`, in one frame or many: 1009, and a metric."""
    gateway = await start_gateway(WS_MAX_MESSAGE_BYTES=1000, INBOUND_RATE=0)
    whole = encode_text("x" * 1001)
    pieces = encode_frame(TEXT, b"x" * 400, fin=False) + encode_frame(CONTINUATION, b"x" * 400, fin=False) * 2
    announced = encode_frame(TEXT, b"x" * 100_000)[:14]
    for sent in (whole, pieces, announced):
        async with RawWebSocket(gateway.url) as board:
            await board.send(sent)
            assert (await board.close_frame()).close_code == 1009
            with contextlib.suppress(ConnectionError):
                await board.send(encode_frame(CLOSE))
            await board.end()
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_connections_closed_total", transport="ws", reason="too_large") == 3
    await until_nobody(gateway)


async def test_who_does_not_say_who_it_is_has_little_time(start_gateway: StartGateway) -> None:
    """`AUTH_TIMEOUT_S`: pings and nonsense do not extend it; then 3000, `unauthorized`, and its place is free. Who
    has said it in time stays."""
    gateway = await start_gateway(
        AUTH="jwt", JWT_SECRET=SECRET, AUTH_TIMEOUT_S=0.5, MAX_CONNECTIONS=2, WS_MAX_ERRORS=0, HEARTBEAT_S=0.4
    )
    async with RawWebSocket(gateway.url) as silent, RawWebSocket(gateway.url) as timely:
        await timely.send(encode_op(op="auth", ref=1, token=token("alice", subscribe=["repo.limits.>"])))
        await timely.next_op("authenticated")
        for _ in range(3):
            await silent.send(encode_op(op="ping", ref=1), encode_text(json.dumps({"op": "subscribe"})))
        frame = await silent.answer_close()
        assert (frame.close_code, frame.payload[2:].decode()) == (3000, "unauthorized")
        await until_counts(gateway, connections=1, subs=1)
        await timely.subscribe("repo.limits.>")
    await until_nobody(gateway)


async def test_half_messages_of_all_clients_are_bounded(start_gateway: StartGateway) -> None:
    """What clients have sent of messages that are not whole counts together: beyond `MOST_UNREAD_BYTES` whoever sends
    more of one is told to come again, others are served, and when they are gone nothing is counted."""
    gateway = await start_gateway(WS_MAX_MESSAGE_BYTES=20 * MIB, INBOUND_RATE=0)
    half = encode_frame(TEXT, b"x" * (20 * MIB))[: 15 * MIB]
    async with AsyncExitStack() as stack, RawWebSocket(gateway.url) as other:
        for _ in range(4):
            board = await stack.enter_async_context(RawWebSocket(gateway.url))
            await board.send(half)
        async with RawWebSocket(gateway.url) as last:
            with contextlib.suppress(ConnectionError):  # it is ended on the way
                await last.send(half)
            await told_and_closed(last, "overloaded")
        await other.ping_op()
        metrics = await asyncio.to_thread(gateway.metrics)
        assert 59 * MIB < metrics.total("natsgate_unread_bytes") <= MOST_UNREAD_BYTES

    await until_nothing_unread(gateway)
    await until_nobody(gateway)


async def until_nothing_unread(gateway: Gateway) -> None:
    async def none_left() -> bool:
        return (await asyncio.to_thread(gateway.metrics)).total("natsgate_unread_bytes") == 0

    await eventually(none_left, "nothing unread is counted", timeout_s=20)


BOARD = routes(
    [
        'name = "board"',
        'path = "/board/{id}"',
        'transports = ["ws"]',
        'framing = "raw"',
        'subjects = ["project.{id}.>"]',
        'publish = "inbox.project.{id}.{type}"',
    ]
)


async def test_messages_that_wait_to_be_stored_are_bounded(start_gateway: StartGateway, own_nats: NatsServer) -> None:
    """What raw clients have sent and NATS has not stored yet counts as well: beyond `MOST_UNREAD_BYTES` whoever sends
    more is told to come again, and others are served. It is over when NATS has answered, or has not in time."""
    gateway = await start_gateway(
        config=BOARD, nats_url=own_nats.url, WS_MAX_MESSAGE_BYTES=MIB, MAX_EVENT_BYTES=MIB, INBOUND_RATE=0
    )
    large = encode_text('{"type":"move","pad":"%s"}' % ("x" * 1_000_000))
    clients = MOST_UNREAD_BYTES // (MAX_UNSTORED * len(large)) + 1
    async with AsyncExitStack() as stack, RawWebSocket(gateway.url) as other:
        boards = [
            await stack.enter_async_context(RawWebSocket(gateway.url, "/board/1", subprotocol=None))
            for _ in range(clients)
        ]
        with frozen(own_nats.pid):
            for board in boards:
                with contextlib.suppress(ConnectionError):  # the last one is ended on the way
                    for _ in range(MAX_UNSTORED):
                        await board.send(large)
            assert (await boards[-1].close_frame()).close_code == 1013
            await other.ping_op()
            metrics = await asyncio.to_thread(gateway.metrics)
            assert MOST_UNREAD_BYTES // 2 < metrics.total("natsgate_unread_bytes") <= MOST_UNREAD_BYTES
            ended = metrics.total("natsgate_connections_closed_total", transport="ws", reason="overloaded")
            assert 0 < ended < clients
        await until_nothing_unread(gateway)


async def test_one_large_message_alone_is_not_too_much(start_gateway: StartGateway) -> None:
    """What came of a message counts once: one of more than half of `MOST_UNREAD_BYTES` is looked at as any other, and
    refused for what it is. (NATS takes none so large.)"""
    gateway = await start_gateway(config=BOARD, WS_MAX_MESSAGE_BYTES=60 * MIB, MAX_EVENT_BYTES=0, INBOUND_RATE=0)
    async with RawWebSocket(gateway.url, "/board/1?control=true", subprotocol=None) as board:
        await board.send(encode_text('{"type":"move","pad":"%s"}' % ("x" * (40 * MIB))))
        while (frame := (await board.next_text(timeout_s=30)).json())["natsgate"] != "error":
            pass
        assert "Too much waits" not in frame["message"]
        await board.send(encode_frame(PING, b"still there"))
        assert (await board.next_frame()).opcode == PONG


ASKED = routes(
    ['name = "asked"', 'path = "/asked"', 'transports = ["ws"]', 'subjects = ["repo.1.>"]', 'authorize = "service"']
)


async def test_what_comes_before_the_handshake_is_answered_is_bounded(
    start_gateway: StartGateway, own_nats: NatsServer
) -> None:
    """A client may send its first frames behind the handshake, and waits with them; with more than `EARLY_BYTES` it is
    cut, and that is counted as `sent_too_early`. When they are gone nothing is counted."""
    gateway = await start_gateway(config=ASKED, nats_url=own_nats.url, AUTH="jwt", JWT_SECRET=SECRET)
    headers = {"Authorization": f"Bearer {token()}"}
    ping = encode_frame(PING, b"x" * 100)
    few, many = ping * (EARLY_BYTES // len(ping) // 2), ping * (2 * EARLY_BYTES // len(ping))

    async def held() -> bool:
        return (await asyncio.to_thread(gateway.metrics)).total("natsgate_unread_bytes") == len(few)

    with frozen(own_nats.pid):
        patient = RawWebSocket(gateway.url, "/asked", headers=headers, early=few)
        opening = asyncio.create_task(patient.open())
        await eventually(held, "what it sent is held")
        with pytest.raises((ConnectionError, Ended)):
            async with RawWebSocket(gateway.url, "/asked", headers=headers, early=many):
                pass
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.by("natsgate_requests_rejected_total", "reason")["sent_too_early"] == 1
        await opening
        patient.close()
    await until_nothing_unread(gateway)
