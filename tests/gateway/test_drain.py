"""How a replica goes: what it says, when it sends its clients away, and whom it still takes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from gateway.background import end
from gateway.transports.journal import LINES_OF_ONE
from tests.conftest import StartGateway
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, histogram
from tests.support.flow import store
from tests.support.follower import Follower, assert_same
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.producer import flood, publish
from tests.support.raw_ws import CLOSE, RawWebSocket
from tests.support.sse import SseClient
from tests.support.stored import stored
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]

FOR_EVER_S = 86400
"""A time that no test sees the end of: of connections that end somewhen in it none does meanwhile."""

BOARD = routes(
    ('name = "board"', 'path = "/board/{id}"', 'transports = ["ws"]', 'framing = "raw"', 'subjects = ["repo.{id}.>"]')
)


async def until_drains(gateway: Gateway) -> dict[str, object]:
    """Send SIGTERM; what /readyz says once it fails."""
    gateway.terminate()

    async def unready() -> dict[str, object] | None:
        reply = await fetch_async(gateway.host, gateway.port, "/readyz")
        return reply.json() if reply.status == 503 else None

    return await eventually(unready, "/readyz fails")


async def until_refuses(gateway: Gateway) -> None:
    """Wait until new clients are refused."""

    async def refused() -> bool:
        return (await fetch_async(gateway.host, gateway.port, "/events")).status == 503  # 400 as long as it takes them

    await eventually(refused, "new clients are refused")


async def end_at_once(gateway: Gateway) -> int:
    """A second signal; the exit code."""
    gateway.terminate()
    return await asyncio.to_thread(gateway.wait, timeout_s=5)


async def test_readiness_fails_at_once_and_clients_are_served_for_the_delay(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Load balancers need a moment to notice: until `DRAIN_DELAY_S` is over, whoever is there and whoever comes gets
    events as ever. A second signal ends it at once, everybody told, with 0."""
    gateway = await start_gateway(DRAIN_DELAY_S=FOR_EVER_S, DRAIN_S=FOR_EVER_S)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as before:
        await before.ready()
        said = await until_drains(gateway)
        assert said["ready"] is False
        assert "draining" in str(said["reasons"])
        assert (await fetch_async(gateway.host, gateway.port, "/livez")).status == 200
        async with SseClient(gateway.url, f"repo.{own_id}.>") as page, ws_client(gateway.ws_url) as ws:
            await page.ready()
            await ws.subscribe(f"repo.{own_id}.>")
            await publish(nc, f"repo.{own_id}.x", '{"n":1}')
            assert (await before.next_message()).data == '{"n":1}'
            assert (await page.next_message()).data == '{"n":1}'
            assert (await ws.event())["event"] == {"n": 1}
            assert await end_at_once(gateway) == 0
            for each in (before, page):
                assert (await each.rest())[-1].json()["reason"] == "draining"
            close, ops = await ws.closed()
    assert close is not None
    assert (close.code, close.reason) == (1012, "draining")
    assert ops[-1]["reason"] == "draining"


async def test_connections_end_one_by_one(start_gateway: StartGateway, own_id: str) -> None:
    """After the delay connections of both transports end at random moments over `DRAIN_S`, each told why and when to
    come back, no two at one moment: those that stay see a trickle of clients, not a herd."""
    gateway = await start_gateway(DRAIN_DELAY_S=0.5, DRAIN_S=2)
    async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=40, comes_back=False) as fleet:
        await fleet.until_ready()
        begin = asyncio.get_running_loop().time()
        gateway.terminate()
        await fleet.until_ended()
        assert await asyncio.to_thread(gateway.wait, timeout_s=10) == 0
    ends = fleet.endings
    shown = histogram(ends, begin, 0.25)
    assert {end.reason for end in ends} == {"draining"}, shown
    assert {end.code for end in ends} == {0, 1012}
    assert all(1000 <= end.retry_ms <= 4000 for end in ends)
    assert len({end.retry_ms for end in ends}) > 40
    assert ends[0].at - begin >= 0.5, shown
    last = ends[-1].at - ends[0].at
    assert last > 1, shown
    quarters = [sum(int((end.at - ends[0].at) * 3.999 / last) == part for end in ends) for part in range(4)]
    assert min(quarters) >= 4, shown
    ordered = [line for line in gateway.logs() if line["event"] in ("draining", "drained", "ended")]
    assert [line["event"] for line in ordered] == ["draining", "drained", "ended"]
    assert ordered[0]["connections"] == ordered[1]["ended"] == 80


async def test_what_was_not_said_of_a_crowd_is_counted(start_gateway: StartGateway, own_id: str) -> None:
    """A drain may bring more lines about connections than are written in that time: before the end it is said how many
    are lacking."""
    gateway = await start_gateway()
    each = LINES_OF_ONE // 2 + 100
    async with Crowd(gateway.url, [(f"repo.{own_id}.>", "")] * each) as crowd:
        await crowd.until_ready()
        gateway.terminate()
        await crowd.until_lost()
        assert await asyncio.to_thread(gateway.wait, timeout_s=10) == 0
    lines = gateway.logs("connection_opened") + gateway.logs("connection_closed")
    assert len(lines) + sum(line["lines"] for line in gateway.logs("connection_lines_held_back")) == 2 * each
    assert gateway.logs()[-1]["event"] == "ended"


async def test_an_event_source_that_comes_too_late_lives(start_gateway: StartGateway, own_id: str) -> None:
    """While connections end, a new EventSource gets 200, when to come back, why, and an end; others get a 503 that
    says when."""
    gateway = await start_gateway(DRAIN_DELAY_S=0, DRAIN_S=FOR_EVER_S)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as kept:
        await kept.ready()
        gateway.terminate()
        await until_refuses(gateway)
        waits = set()
        for accept in ("text/event-stream", "text/html, text/event-stream;q=0.9", "TEXT/EVENT-STREAM"):
            target = f"/events?subject=repo.{own_id}.%3E"
            reply = await fetch_async(gateway.host, gateway.port, target, headers={"Accept": accept})
            assert reply.status == 200
            assert reply.headers["content-type"] == "text/event-stream; charset=utf-8"
            retry, name, data = reply.body.decode().removesuffix("\n\n").split("\n")
            said = json.loads(data.removeprefix("data: "))
            assert name == "event: natsgate.closing"
            assert said["reason"] == "draining"
            assert said["reconnect"] is True
            assert retry == f"retry: {said['retry_ms']}"
            assert 1000 <= said["retry_ms"] <= 4000
            waits.add(retry)
        assert len(waits) > 1
        for headers in ({}, {"Accept": "*/*"}, {"Accept": "application/json"}):
            target = f"/events?subject=repo.{own_id}.%3E"
            refused = await fetch_async(gateway.host, gateway.port, target, headers=headers)
            assert refused.status == 503
            assert 1 <= int(refused.headers["retry-after"]) <= 4
            refused.problem()
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.total("natsgate_requests_rejected_total", reason="draining") >= 6
        assert metrics.total("natsgate_connections_opened_total") == 1
        assert await end_at_once(gateway) == 0


async def test_a_websocket_that_comes_too_late_learns_why(start_gateway: StartGateway, own_id: str) -> None:
    """While connections end, a new WebSocket is accepted, since a page cannot see a status, and closed with 1012; with
    the word for it that its framing has."""
    gateway = await start_gateway(config=BOARD, DRAIN_DELAY_S=0, DRAIN_S=FOR_EVER_S)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as kept:
        await kept.ready()
        gateway.terminate()
        await until_refuses(gateway)
        async with ws_client(gateway.ws_url, hello=False) as ws:
            close, ops = await ws.closed()
        assert [op["op"] for op in ops] == ["hello", "closing"]
        assert ops[1].keys() == {"op", "reason", "reconnect", "retry_ms"}
        assert close is not None
        assert (close.code, close.reason) == (1012, "draining")
        async with RawWebSocket(gateway.url, f"/board/{own_id}?control=true", subprotocol=None) as board:
            assert (await board.next_text()).json()["natsgate"] == "closing"
            assert (await board.answer_close()).close_code == 1012
        async with RawWebSocket(gateway.url, f"/board/{own_id}", subprotocol="natsgate.raw.v1") as board:
            assert board.headers["sec-websocket-protocol"] == "natsgate.raw.v1"
            frame = await board.next_frame()
            assert (frame.opcode, frame.close_code) == (CLOSE, 1012)
        assert await end_at_once(gateway) == 0


async def test_it_is_over_when_nobody_is_left(start_gateway: StartGateway, own_id: str) -> None:
    """A replica whose clients have all gone by themselves does not wait for the rest of `DRAIN_S`."""
    gateway = await start_gateway(DRAIN_DELAY_S=0, DRAIN_S=FOR_EVER_S)
    async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=10, comes_back=False) as fleet:
        await fleet.until_ready()
        gateway.terminate()
        await until_refuses(gateway)
    assert await asyncio.to_thread(gateway.wait, timeout_s=5) == 0


async def test_stalled_clients_and_an_absent_nats_hold_nobody_up(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """With clients that read nothing, and NATS killed meanwhile, the exit comes when `DRAIN_S` is over, with 0."""
    gateway = await start_gateway(nats_url=own_nats.url, DRAIN_DELAY_S=0.5, DRAIN_S=1)
    nc = await connect_nats(own_nats.url)
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", receive_buffer_bytes=4096) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=4096) as board,
        SseClient(gateway.url, f"user.{own_id}.>") as reader,
    ):
        await page.ready()
        await board.subscribe(f"repo.{own_id}.>")
        await reader.ready()
        await flood(nc, f"repo.{own_id}.x", [json.dumps({"pad": "x" * 8000})] * 600)
        gateway.terminate()
        await asyncio.to_thread(own_nats.kill)
        events, code = await asyncio.gather(reader.rest(), asyncio.to_thread(gateway.wait, timeout_s=8))
    assert code == 0
    assert events[-1].json()["reason"] == "draining"
    assert gateway.logs("drained")[0]["cut"] == 2


async def test_a_replay_that_is_cut_goes_on_elsewhere(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A client in the midst of a long replay when its replica goes gets the rest from another one, each event once."""
    old = await start_gateway()
    new = await start_gateway()
    await store(nc, [f"repo.{own_id}.x"], 4000, pad="x" * 200)
    expected = await stored(nc, f"repo.{own_id}.>")
    where = old
    async with Follower(lambda: where.url, f"repo.{own_id}.>", query={"since": "all"}) as follower:
        await follower.until_heard(500)
        where = new
        old.terminate()
        assert await asyncio.to_thread(old.wait, timeout_s=5) == 0
        await follower.until_heard(len(expected))
    assert_same(follower.heard, expected)


async def test_a_task_that_loses_its_cancellation_ends_too() -> None:
    """What runs in the background is cancelled until it has ended: a library may swallow the first attempt."""
    attempts = 0
    waits = asyncio.Event()

    async def stubborn() -> None:
        nonlocal attempts
        while True:
            try:
                waits.set()
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                attempts += 1
                if attempts == 2:
                    raise

    task = asyncio.create_task(stubborn())
    await waits.wait()
    await asyncio.wait_for(end([task]), timeout=10)
    assert task.cancelled()
    assert attempts == 2


@pytest.mark.slow
async def test_a_long_drain_says_how_far_it_is(start_gateway: StartGateway, own_id: str) -> None:
    """Every few seconds a line has how many connections were ended and how many are left."""
    gateway = await start_gateway(DRAIN_DELAY_S=0, DRAIN_S=8)
    async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=50, comes_back=False) as fleet:
        await fleet.until_ready()
        gateway.terminate()
        assert await asyncio.to_thread(gateway.wait, timeout_s=20) == 0
    line = gateway.logs("drain_progress")[0]
    assert line["ended"] + line["left"] == 100
    assert 20 < line["ended"] < 100
