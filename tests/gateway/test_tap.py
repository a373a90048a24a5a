"""One subscription for everybody, open only while somebody listens."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient

ConnectNats = Callable[[str], Awaitable[Client]]


def live(server: NatsServer) -> list[str]:
    """What is subscribed of the republished subjects, over all connections."""
    return [subject for subject in server.subscriptions() if subject.startswith("live.")]


async def taps(gateway: Gateway) -> float:
    return (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_subscriptions")


async def until_taps(gateway: Gateway, count: int) -> None:
    async def reached() -> bool:
        return await taps(gateway) == count

    await eventually(reached, f"natsgate_nats_subscriptions is {count}")


async def test_a_thousand_clients_share_one_subscription(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """600 SSE and 400 WebSocket clients with as many filters: one subscription, `live.>`, in NATS."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    pages = [SseClient(gateway.url, f"repo.{own_id}-{n}.>", f"user.{own_id}.>") for n in range(600)]
    boards = [RawWebSocket(gateway.url) for _ in range(400)]
    async with AsyncExitStack() as open_clients:
        for start in range(0, 600, 50):
            await asyncio.gather(*map(open_clients.enter_async_context, pages[start : start + 50]))
        for start in range(0, 400, 50):
            await asyncio.gather(*map(open_clients.enter_async_context, boards[start : start + 50]))
        await asyncio.gather(*(page.ready() for page in pages))
        await asyncio.gather(*(board.subscribe(f"user.{own_id}.>") for board in boards))

        assert await taps(gateway) == 1
        assert await asyncio.to_thread(live, own_nats) == ["live.>"]
        await publish(nc, f"repo.{own_id}-7.x", '{"for":7}')
        await publish(nc, f"user.{own_id}.x", '{"for":"all"}')
        assert (await pages[7].next_event()).data == '{"for":7}'
        events = await asyncio.gather(*(page.next_event(timeout_s=20) for page in pages))
        ops = await asyncio.gather(*(board.next_op("event", timeout_s=20) for board in boards))
        metrics = await asyncio.to_thread(gateway.metrics)
    assert {event.data for event in events} == {'{"for":"all"}'}
    assert {op["cursor"] for op in ops} == {event.id for event in events}
    assert metrics.total("natsgate_connections", transport="sse") == 600
    assert metrics.total("natsgate_connections", transport="ws") == 400
    assert metrics.total("natsgate_feeds") == 1000
    assert metrics.total("natsgate_nats_subscriptions") == 1


async def test_the_tap_closes_after_the_last_client_and_reopens(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """`LINGER_S` after the last client left nothing is subscribed; the next client opens it again."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=0.3)
    nc = await connect_nats(own_nats.url)
    assert live(own_nats) == []
    for n in range(3):
        async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
            await sse.ready()
            assert await taps(gateway) == 1
            assert live(own_nats) == ["live.>"]
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await sse.next_event()).json() == {"n": n}
        await until_taps(gateway, 0)
        assert live(own_nats) == []
        await publish(nc, f"repo.{own_id}.x", json.dumps({"unheard": n}))


async def test_the_tap_outlives_a_quick_reconnect(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A client that is back within `LINGER_S` finds the same subscription, and events flow."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=30)
    nc = await connect_nats(own_nats.url)
    for n in range(5):
        async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
            await sse.ready()
            assert live(own_nats) == ["live.>"]
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await sse.next_event()).json() == {"n": n}
        assert await taps(gateway) == 1


async def test_a_websocket_without_feeds_needs_no_tap(
    own_nats: NatsServer, start_gateway: StartGateway, own_id: str
) -> None:
    """Only feeds open the tap, and the last unsubscribe lets it close."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=0.2)
    async with RawWebSocket(gateway.url) as ws:
        await ws.ping_op()
        await until_taps(gateway, 0)
        feed = await ws.subscribe(f"repo.{own_id}.>")
        assert await taps(gateway) == 1
        await ws.send(encode_op(op="unsubscribe", ref=1, feed=feed))
        await ws.next_op("unsubscribed")
        await until_taps(gateway, 0)
        await ws.ping_op()


async def test_linger_zero_closes_at_once_and_storms_do_no_harm(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Clients that come and go around a closing tap all get their `ready` and the next event."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=0.01)
    nc = await connect_nats(own_nats.url)
    for n in range(20):
        async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
            await sse.ready()
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await sse.next_event()).json() == {"n": n}


async def test_nobody_hears_what_the_log_holds_from_before(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A new client without a cursor starts from now, though the log holds older events."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as early:
        await early.ready()
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        await early.next_event()
        async with SseClient(gateway.url, f"repo.{own_id}.>") as late, RawWebSocket(gateway.url) as board:
            await late.ready()
            await board.subscribe(f"repo.{own_id}.>")
            await publish(nc, f"repo.{own_id}.x", '{"n":2}')
            assert (await late.next_event()).data == '{"n":2}'
            assert (await board.next_op("event"))["event"] == {"n": 2}
            assert (await early.next_event()).data == '{"n":2}'


async def test_the_log_stays_within_log_bytes(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """More events than fit push the oldest out: `natsgate_log_bytes` stays under `LOG_BYTES`."""
    limit = 1024 * 1024
    gateway = await start_gateway(LOG_BYTES=limit)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for n in range(300):
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n, "pad": "x" * 10_000}))
            assert (await sse.next_event()).json()["n"] == n
        metrics = await asyncio.to_thread(gateway.metrics)
    assert 0 < metrics.total("natsgate_log_bytes") <= limit
    assert 0 < metrics.total("natsgate_log_events") < 300


async def test_opening_the_tap_in_a_running_flow_loses_nothing(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """While events flow without pause, clients come and open the tap anew: from the first event on
    there is no hole, and `ready` comes where it says it does."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=0.01, WARM_S=0.2)
    nc = await connect_nats(own_nats.url)

    enough = asyncio.Event()

    async def flow() -> None:
        while not enough.is_set():
            for _ in range(10):
                await nc.publish(f"repo.{own_id}.x", b"{}")
            await nc.flush()

    def sequence(cursor: str | None) -> int:
        assert cursor is not None
        return int(cursor.rpartition("-")[2])

    flowing = asyncio.create_task(flow())
    try:
        for _ in range(15):
            async with SseClient(gateway.url, f"repo.{own_id}.>", keep=False) as sse:
                heard: list[int] = []
                while (event := await sse.next_event()).type != "natsgate.ready":
                    heard.append(sequence(event.id))
                assert event.json()["replayed"] == len(heard)
                assert heard[-1:] in ([], [sequence(event.id)]), "ready stands where the events stand"
                first = heard[0] if heard else sequence(event.id) + 1
                heard += [sequence((await sse.next_event()).id) for _ in range(100)]
                assert heard == list(range(first, first + len(heard)))
            await until_taps(gateway, 0)
    finally:
        enough.set()
        await flowing
