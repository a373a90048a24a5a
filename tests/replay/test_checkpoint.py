"""What quiet connections are told: where they stand, and whether NATS is there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.test_resume import up_to_ready
from tests.support.eventually import eventually
from tests.support.flow import store
from tests.support.follower import Follower, assert_same
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import sequence_of, stored

ConnectNats = Callable[[str], Awaitable[Client]]


async def test_a_quiet_sse_connection_is_told_its_cursor(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Every four heartbeats without an event `natsgate.cursor` comes with an `id:` that moves on with the stream;
    resuming with it works, without a gap, when everything before was purged."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.2)
    nc = await connect_nats(own_nats.url)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        start = sequence_of((await sse.ready()).id)
        last = await store(nc, [f"task.{own_id}.other"], 50)
        told = await sse.next_event()
        while sequence_of(told.id) < last:
            assert told.type == "natsgate.cursor"
            assert told.json() == {"cursor": told.id}
            assert sequence_of(told.id) >= start
            told = await sse.next_event()
        assert len(sse.comments) >= 1, "heartbeats come in between"
    await nc.jetstream().purge_stream("EVENTS")
    last = await store(nc, [f"repo.{own_id}.x"], 1)
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers={"Last-Event-ID": told.id or ""}) as sse:
        events, _ = await up_to_ready(sse, upto=last)
    assert [event.data for event in events] == ['{"n": 0}']


async def test_a_quiet_websocket_feed_is_told_its_cursor(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Each quiet feed of a WebSocket gets its own `cursor` op, which resumes it on another replica."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.2)
    other = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    feeds = [f"repo.{own_id}.>", f"user.{own_id}.>"]
    cursors: dict[str, str] = {}
    async with RawWebSocket(gateway.url) as ws:
        for feed in feeds:
            await ws.subscribe(feed)
        last = await store(nc, [f"task.{own_id}.other"], 50)
        while len(cursors) < 2 or min(map(sequence_of, cursors.values())) < last:
            op = await ws.next_op("cursor")
            cursors[op["feed"]] = op["cursor"]
    assert sorted(cursors) == feeds
    await nc.jetstream().purge_stream("EVENTS")
    await publish(nc, f"repo.{own_id}.x", '{"n":"after"}')
    async with RawWebSocket(other.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_op(op="subscribe", ref=1, subject=feeds[0], cursor=cursors[feeds[0]]))
        assert (await ws.next_text()).json()["op"] == "subscribed"
        assert (await ws.next_text()).json()["event"] == {"n": "after"}


async def test_no_cursor_while_events_come(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A connection that gets events learns its cursor from them; `natsgate.cursor` is for quiet ones."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.5)
    nc = await connect_nats(own_nats.url)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, SseClient(gateway.url, "user.quiet.>") as quiet:
        await sse.ready()
        await quiet.ready()
        n = 0
        told = asyncio.create_task(quiet.next_event())
        while not told.done():
            await publish(nc, f"repo.{own_id}.x", "{}")
            assert (await sse.next_event()).type == "message"
            n += 1
        assert (await told).type == "natsgate.cursor"


async def test_everybody_is_told_of_an_outage(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """`natsgate.state` says `down` when NATS goes and `up` when it is back, once each, over both transports;
    connections stay, heartbeats go on."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.2)
    nc = await connect_nats(own_nats.url)
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>") as sse,
        RawWebSocket(gateway.url) as ws,
    ):
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await asyncio.to_thread(own_nats.kill)
        while (event := await sse.next_event()).type != "natsgate.state":
            assert event.type == "natsgate.cursor"
        assert (event.json(), event.id) == ({"upstream": "down"}, None)
        assert (await ws.next_op("state"))["upstream"] == "down"
        comments = len(sse.comments)
        while len(sse.comments) < comments + 2:
            await sse.next_comment()
        await asyncio.to_thread(own_nats.start)
        while (event := await sse.next_event()).type != "natsgate.state":
            assert event.type == "natsgate.cursor"
        assert event.json() == {"upstream": "up"}
        assert (await ws.next_op("state"))["upstream"] == "up"

        async def connected() -> bool:
            return nc.is_connected

        await eventually(connected, "the producer is back")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        assert (await ws.next_op("event"))["event"] == {"n": 1}


@pytest.mark.parametrize("warm", [True, False], ids=["log", "nothing known"])
async def test_new_clients_in_an_outage(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str, warm: bool
) -> None:
    """While NATS is away new clients are accepted and told; with a cursor they are served from the log or wait;
    when it is back each has everything, once."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.2)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as first:
        await first.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 20)
        await first.until_heard(20)
        cursor = first.heard[9].id or ""
        replica = gateway if warm else await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.2)
        await asyncio.to_thread(own_nats.kill)
        await first.until_told("state")
        follower = Follower(lambda: replica.url, filters)
        follower.last_event_id = cursor
        async with follower as back, Follower(lambda: replica.url, filters) as fresh:
            for each in (back, fresh):
                assert await each.until_told("state") == {"upstream": "down"}
            if warm:
                await back.until_heard(10)
            await asyncio.to_thread(own_nats.start)

            async def connected() -> bool:
                return nc.is_connected

            await eventually(connected, "the producer is back")
            for each in (back, fresh):
                await each.until_told("state", 2)
                await each.until_ready()
            await store(nc, [f"repo.{own_id}.x"], 10, begin=20)
            await back.until_heard(20)
            await fresh.until_heard(10)
            await first.until_heard(30)
            everything = await stored(nc, filters)
            assert_same(back.heard, everything[10:])
            assert_same(fresh.heard, everything[20:])
            assert_same(first.heard, everything)
            assert {each.connects for each in (first, back, fresh)} == {1}
            for each in (first, back, fresh):
                assert each.told_of("gap") == []


async def test_clients_before_nats_was_ever_there(
    start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str, own_nats: NatsServer
) -> None:
    """A replica that started without NATS accepts clients, tells them `down`, and serves them when it comes."""
    await asyncio.to_thread(own_nats.stop)
    gateway = await start_gateway(nats_url=own_nats.url, ready=False, HEARTBEAT_S=0.2)
    async with Follower(lambda: gateway.url, f"repo.{own_id}.>") as client:
        assert await client.until_told("state", timeout_s=5) == {"upstream": "down"}
        await asyncio.to_thread(own_nats.start)
        await client.until_ready()
        nc = await connect_nats(own_nats.url)
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        await client.until_heard(1)
        assert client.told_of("state")[-1] == {"upstream": "up"}
        assert client.connects == 1
