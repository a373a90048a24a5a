"""What quiet connections are told: where they stand, and whether NATS is there."""

from __future__ import annotations

import asyncio

import pytest

from tests.replay.coming_back import up_to_ready
from tests.replay.scene import Scene
from tests.support.follower import Follower, assert_same
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import sequence_of


async def test_a_quiet_sse_connection_is_told_its_cursor(scene: Scene) -> None:
    """Every four heartbeats without an event `natsgate.cursor` comes with an `id:` that moves on with the stream;
    resuming with it works, without a gap, when everything before was purged."""
    gateway = await scene.gateway(HEARTBEAT_S=0.2)
    async with scene.client(gateway) as sse:
        start = sequence_of((await sse.ready()).id)
        last = await scene.store(50, [scene.other_subject])
        told = await sse.next_event()
        while sequence_of(told.id) < last:
            assert told.type == "natsgate.cursor"
            assert told.json() == {"cursor": told.id}
            assert sequence_of(told.id) >= start
            told = await sse.next_event()
        assert len(sse.comments) >= 1, "heartbeats come in between"
    await scene.purge()
    last = await scene.store(1)
    async with scene.client(gateway, told.id) as sse:
        events, _ = await up_to_ready(sse, upto=last)
    assert [event.data for event in events] == ['{"n": 0}']


async def test_a_quiet_websocket_feed_is_told_its_cursor(scene: Scene) -> None:
    """Each quiet feed of a WebSocket gets its own `cursor` op, which resumes it on another replica."""
    gateway = await scene.gateway(HEARTBEAT_S=0.2)
    other = await scene.gateway()
    feeds = [scene.feed, f"user.{scene.id}.>"]
    cursors: dict[str, str] = {}
    async with RawWebSocket(gateway.url) as ws:
        for feed in feeds:
            await ws.subscribe(feed)
        last = await scene.store(50, [scene.other_subject])
        while len(cursors) < 2 or min(map(sequence_of, cursors.values())) < last:
            op = await ws.next_op("cursor")
            cursors[op["feed"]] = op["cursor"]
    assert sorted(cursors) == feeds
    await scene.purge()
    await scene.publish('{"n":"after"}')
    async with RawWebSocket(other.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_op(op="subscribe", ref=1, subject=feeds[0], cursor=cursors[feeds[0]]))
        assert (await ws.next_text()).json()["op"] == "subscribed"
        assert (await ws.next_text()).json()["event"] == {"n": "after"}


async def test_no_cursor_while_events_come(scene: Scene) -> None:
    """A connection that gets events learns its cursor from them; `natsgate.cursor` is for quiet ones."""
    gateway = await scene.gateway(HEARTBEAT_S=0.5)
    async with scene.client(gateway) as sse, SseClient(gateway.url, "user.quiet.>") as quiet:
        await sse.ready()
        await quiet.ready()
        n = 0
        told = asyncio.create_task(quiet.next_event())
        while not told.done():
            await scene.publish("{}")
            assert (await sse.next_event()).type == "message"
            n += 1
        assert (await told).type == "natsgate.cursor"


async def test_everybody_is_told_of_an_outage(scene: Scene) -> None:
    """`natsgate.state` says `down` when NATS goes and `up` when it is back, once each, over both transports;
    connections stay, heartbeats go on."""
    gateway = await scene.gateway(HEARTBEAT_S=0.2)
    async with (
        scene.client(gateway) as sse,
        RawWebSocket(gateway.url) as ws,
    ):
        await sse.ready()
        await ws.subscribe(scene.feed)
        await asyncio.to_thread(scene.nats.kill)
        while (event := await sse.next_event()).type != "natsgate.state":
            assert event.type == "natsgate.cursor"
        assert (event.json(), event.id) == ({"upstream": "down"}, None)
        assert (await ws.next_op("state"))["upstream"] == "down"
        comments = len(sse.comments)
        while len(sse.comments) < comments + 2:
            await sse.next_comment()
        await asyncio.to_thread(scene.nats.start)
        while (event := await sse.next_event()).type != "natsgate.state":
            assert event.type == "natsgate.cursor"
        assert event.json() == {"upstream": "up"}
        assert (await ws.next_op("state"))["upstream"] == "up"
        await scene.until_producer_back()
        await scene.publish('{"n":1}')
        assert (await sse.next_message()).data == '{"n":1}'
        assert (await ws.next_op("event"))["event"] == {"n": 1}


@pytest.mark.parametrize("warm", [True, False], ids=["log", "nothing known"])
async def test_new_clients_in_an_outage(scene: Scene, warm: bool) -> None:
    """While NATS is away new clients are accepted and told; with a cursor they are served from the log or wait;
    when it is back each has everything, once."""
    gateway = await scene.gateway(HEARTBEAT_S=0.2)
    async with scene.follower(gateway) as first:
        await scene.store(20)
        await first.until_heard(20)
        cursor = first.heard[9].id or ""
        replica = gateway if warm else await scene.gateway(HEARTBEAT_S=0.2)
        await asyncio.to_thread(scene.nats.kill)
        await first.until_told("state")
        follower = Follower(lambda: replica.url, scene.feed)
        follower.last_event_id = cursor
        async with follower as back, Follower(lambda: replica.url, scene.feed) as fresh:
            for each in (back, fresh):
                assert await each.until_told("state") == {"upstream": "down"}
            if warm:
                await back.until_heard(10)
            await asyncio.to_thread(scene.nats.start)
            await scene.until_producer_back()
            for each in (back, fresh):
                await each.until_told("state", 2)
                await each.until_ready()
            await scene.store(10, begin=20)
            await back.until_heard(20)
            await fresh.until_heard(10)
            await first.until_heard(30)
            everything = await scene.stored()
            assert_same(back.heard, everything[10:])
            assert_same(fresh.heard, everything[20:])
            assert_same(first.heard, everything)
            assert {each.connects for each in (first, back, fresh)} == {1}
            for each in (first, back, fresh):
                assert each.told_of("gap") == []


async def test_clients_before_nats_was_ever_there(scene: Scene) -> None:
    """A replica that started without NATS accepts clients, tells them `down`, and serves them when it comes."""
    await asyncio.to_thread(scene.nats.stop)
    gateway = await scene.gateway(ready=False, HEARTBEAT_S=0.2)
    async with Follower(lambda: gateway.url, scene.feed) as client:
        assert await client.until_told("state", timeout_s=5) == {"upstream": "down"}
        await asyncio.to_thread(scene.nats.start)
        await client.until_ready()
        await scene.publish('{"n":1}')
        await client.until_heard(1)
        assert client.told_of("state")[-1] == {"upstream": "up"}
        assert client.connects == 1
