"""Clients that do not read: they delay nobody, cost little, and get everything when they read again."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client

from gateway.transports.limits import MOST_PIPELINED
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.producer import flood, publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.tcp import TcpStream

EVENTS = 800
PAD = "x" * 8_000
STALLED_EACH = 8
SMALL = 4096


def flood_texts() -> list[str]:
    return [json.dumps({"n": n, "pad": PAD}) for n in range(EVENTS)]


async def behind(gateway: Gateway) -> float:
    return (await asyncio.to_thread(gateway.metrics)).total("natsgate_connections_behind")


async def test_stalled_readers_beside_fast_ones(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Sixteen stalled clients, 6 MB of events: the fast ones get all of it meanwhile, memory stays
    bounded, the stalled ones are seen as behind, and get everything in order, once, when they read."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=120, WS_PING_S=120)
    subject = f"repo.{own_id}.>"
    async with AsyncExitStack() as clients:
        pages, boards = [], []
        for _ in range(STALLED_EACH):
            page = SseClient(gateway.url, subject, receive_buffer_bytes=SMALL, keep=False)
            board = RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False)
            pages.append(await clients.enter_async_context(page))
            boards.append(await clients.enter_async_context(board))
            await page.ready()
            await board.subscribe(subject)
        fast = await clients.enter_async_context(SseClient(gateway.url, subject, keep=False))
        fast_board = await clients.enter_async_context(RawWebSocket(gateway.url, keep=False))
        await fast.ready()
        await fast_board.subscribe(subject)
        resident = gateway.rss_bytes()

        async def read_page() -> list[int]:
            return [(await fast.next_event()).json()["n"] for _ in range(EVENTS)]

        async def read_board() -> list[int]:
            return [(await fast_board.next_op("event"))["event"]["n"] for _ in range(EVENTS)]

        fast_reading = asyncio.gather(read_page(), read_board())
        await flood(nc, f"repo.{own_id}.x", flood_texts())
        for numbers in await asyncio.wait_for(fast_reading, 20):
            assert numbers == list(range(EVENTS))

        grown = gateway.rss_bytes() - resident
        everything = EVENTS * len(PAD)
        assert grown < 6 * everything, "a queue per stalled client would be 16 times the events"
        assert await behind(gateway) == 2 * STALLED_EACH

        for page in pages:
            assert [(await page.next_event()).json()["n"] for _ in range(EVENTS)] == list(range(EVENTS))
        for board in boards:
            numbers = [(await board.next_op("event"))["event"]["n"] for _ in range(EVENTS)]
            assert numbers == list(range(EVENTS))

        async def none_behind() -> bool:
            return await behind(gateway) == 0

        await eventually(none_behind, "nobody is behind")
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        for page in [*pages, fast]:
            assert (await page.next_event()).json() == {"n": "live"}
        for board in [*boards, fast_board]:
            assert (await board.next_op("event"))["event"] == {"n": "live"}


async def test_a_slow_reader_that_never_stops_gets_everything(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """A client that reads while the flow goes on, slower than it, misses nothing and gets nothing twice."""
    gateway = await start_gateway()
    subject = f"repo.{own_id}.>"
    async with (
        SseClient(gateway.url, subject, receive_buffer_bytes=SMALL, keep=False) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False) as board,
    ):
        await page.ready()
        await board.subscribe(subject)
        publishing = asyncio.create_task(flood(nc, f"repo.{own_id}.x", flood_texts()))
        for n in range(EVENTS):
            assert (await page.next_event()).json()["n"] == n
            assert (await board.next_op("event"))["event"]["n"] == n
        await publishing


async def test_ops_are_answered_behind_a_backlog(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A WebSocket that fell behind gets the answer to its ping once it reads, and whole frames only."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=120)
    async with RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False) as board:
        await board.subscribe(f"repo.{own_id}.>")
        await flood(nc, f"repo.{own_id}.x", flood_texts())

        async def is_behind() -> bool:
            return await behind(gateway) == 1

        await eventually(is_behind, "the stalled one is behind")
        await board.send(encode_op(op="ping", ref="late"))
        seen: list[object] = []
        while len(seen) < EVENTS + 1:
            op = (await board.next_text()).json()
            seen.append(op["event"]["n"] if op["op"] == "event" else op)
    assert {"op": "pong", "ref": "late"} in seen
    assert [n for n in seen if isinstance(n, int)] == list(range(EVENTS))


async def test_a_client_that_accepts_no_byte_is_closed(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """After `WRITE_TIMEOUT_S` without a byte accepted both are closed as `slow`; the fast one stays."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=0.5)
    subject = f"repo.{own_id}.>"
    async with (
        SseClient(gateway.url, subject, receive_buffer_bytes=SMALL) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=SMALL) as board,
        SseClient(gateway.url, subject, keep=False) as fast,
    ):
        await page.ready()
        await board.subscribe(subject)
        await fast.ready()

        async def read_all() -> None:
            for _ in range(EVENTS):
                await fast.next_event()

        reading = asyncio.create_task(read_all())
        await flood(nc, f"repo.{own_id}.x", flood_texts())
        await reading

        async def both_closed() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return metrics.total("natsgate_connections_closed_total", reason="slow") == 2

        await eventually(both_closed, "both stalled clients are closed as slow")
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await fast.next_event()).json() == {"n": "live"}


async def test_a_client_that_vanishes_while_behind_is_forgotten(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Resetting a stalled connection frees it: nothing is behind, nothing is connected."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=120)
    async with SseClient(gateway.url, f"repo.{own_id}.>", receive_buffer_bytes=SMALL) as page:
        await page.ready()
        await flood(nc, f"repo.{own_id}.x", flood_texts())

        async def is_behind() -> bool:
            return await behind(gateway) == 1

        await eventually(is_behind, "the stalled one is behind")
        page.tcp.abort()

        async def forgotten() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            left = metrics.total("natsgate_connections") + metrics.total("natsgate_connections_behind")
            return left == 0

        await eventually(forgotten, "the vanished client is forgotten")


async def test_events_of_one_burst_leave_in_few_writes(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Five hundred events published in one go reach each client in far fewer pieces."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as page, RawWebSocket(gateway.url) as board:
        await page.ready()
        await board.subscribe(f"repo.{own_id}.>")
        chunks, reads, board_reads = page.chunks, page.tcp.reads, board.tcp.reads
        for n in range(500):
            await nc.publish(f"repo.{own_id}.x", json.dumps({"n": n}).encode())
        await nc.flush()
        assert [(await page.next_event()).json()["n"] for _ in range(500)] == list(range(500))
        for n in range(500):
            assert (await board.next_op("event"))["event"] == {"n": n}
    assert page.chunks - chunks < 250
    assert page.tcp.reads - reads < 250
    assert board.tcp.reads - board_reads < 250


async def test_unsubscribing_while_behind_ends_the_feed(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A stalled WebSocket that unsubscribes gets nothing of that feed after `unsubscribed`; another feed goes on."""
    gateway = await start_gateway(WRITE_TIMEOUT_S=120)
    async with RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False) as board:
        gone = await board.subscribe(f"repo.{own_id}.>")
        kept = await board.subscribe(f"task.{own_id}.>")
        await flood(nc, f"repo.{own_id}.x", flood_texts())
        await publish(nc, f"task.{own_id}.x", '{"n":"kept"}')

        async def is_behind() -> bool:
            return await behind(gateway) >= 1

        await eventually(is_behind, "the stalled one is behind")
        await board.send(encode_op(op="unsubscribe", ref=1, feed=gone))
        numbers: list[object] = []
        while (op := (await board.next_text()).json())["op"] != "unsubscribed":
            numbers += [op["event"]["n"]] if op["feed"] == gone else []
        assert numbers == list(range(len(numbers))), "in order up to the end of the feed"
        await publish(nc, f"repo.{own_id}.x", '{"n":"unheard"}')
        await publish(nc, f"task.{own_id}.x", '{"n":"last"}')
        while (event := await board.next_op("event"))["event"]["n"] != "last":
            assert event["feed"] == kept


async def test_falling_out_of_the_log_loses_nothing(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """With a log too small for the backlog a stalled client gets all the same: the rest of it comes from the stream."""
    gateway = await start_gateway(LOG_BYTES=1024 * 1024, WRITE_TIMEOUT_S=120)
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", receive_buffer_bytes=SMALL, keep=False) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False) as board,
    ):
        await page.ready()
        await board.subscribe(f"repo.{own_id}.>")
        await flood(nc, f"repo.{own_id}.x", flood_texts())

        assert [(await page.next_event(timeout_s=20)).json()["n"] for _ in range(EVENTS)] == list(range(EVENTS))
        ops = [(await board.next_text(timeout_s=20)).json() for _ in range(EVENTS)]
        assert [(op["op"], op["event"]["n"]) for op in ops] == [("event", n) for n in range(EVENTS)]
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_replayed_events_total", source="stream") > 0


ASKED_BEFORE = b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"
MOST_ASKED = 3 * MOST_PIPELINED
SSE = "GET /events?subject={} HTTP/1.1\r\nHost: x\r\n\r\n"
WS = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: natsgate.v1\r\n\r\n"
)


async def until_steady(gateway: Gateway, name: str) -> float:
    """Wait until a metric stays as it is; its value."""
    seen = -1.0

    async def steady() -> bool:
        nonlocal seen
        before, seen = seen, (await asyncio.to_thread(gateway.metrics)).total(name)
        return before == seen

    await eventually(steady, f"{name} is steady", every_s=0.3)
    return seen


@pytest.mark.parametrize("request_of_stream", [SSE, WS], ids=["sse", "ws"])
async def test_a_socket_that_was_full_before_it_became_a_stream(
    start_gateway: StartGateway, nc: Client, own_id: str, request_of_stream: str
) -> None:
    """Clients that ask for one answer, two, three… up to more than their sockets hold, read none of them, and then ask
    for a stream: all that get one are behind, also the one whose socket was full to the brim just then, and are closed
    as `slow`. Meanwhile the process does not grow."""
    gateway = await start_gateway(LOG_BYTES=1024 * 1024, WRITE_TIMEOUT_S=6)
    stream = request_of_stream.format(f"repo.{own_id}.x").encode()
    if request_of_stream is WS:
        stream += encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.x")
    async with AsyncExitStack() as stack:
        clients = [
            await stack.enter_async_context(
                TcpStream(gateway.host, gateway.port, receive_buffer_bytes=SMALL, keep=False)
            )
            for _ in range(MOST_ASKED)
        ]
        for begin in range(0, MOST_ASKED, MOST_PIPELINED):
            for count, tcp in enumerate(clients):
                await tcp.send(ASKED_BEFORE * min(MOST_PIPELINED, max(0, count - begin)))
            answered = await until_steady(gateway, "natsgate_requests_waiting")
        assert answered < MOST_ASKED, "some have to wait for their answers"
        for tcp in clients:
            with contextlib.suppress(ConnectionError):  # one that still waits for an answer is refused the other one
                await tcp.send(stream)
        opened = await until_steady(gateway, "natsgate_connections")
        assert opened >= answered - 1
        resident = gateway.rss_bytes()
        await flood(nc, f"repo.{own_id}.x", flood_texts())

        async def all_are() -> bool:
            return await behind(gateway) == opened

        await eventually(all_are, "all of them are behind")
        assert gateway.rss_bytes() - resident < 8 * 1024 * 1024

        async def all_closed() -> bool:
            metrics = await asyncio.to_thread(gateway.metrics)
            return metrics.total("natsgate_connections_closed_total", reason="slow") == opened

        await eventually(all_closed, "they are closed as slow", timeout_s=30)
