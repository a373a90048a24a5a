"""What is gone is said: with the right reason and range, once, and then live events follow."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway, provision
from tests.replay.test_resume import NO_LOG, cursor_now, up_to_ready
from tests.support.eventually import eventually
from tests.support.flow import store
from tests.support.follower import Follower, assert_same
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import moved, sequence_of, stored

ConnectNats = Callable[[str], Awaitable[Client]]


async def reconfigure(nc: Client, **changes: object) -> None:
    """Change the stream's configuration, as an operator does; the API's own field names and units."""
    info = json.loads((await nc.request("$JS.API.STREAM.INFO.EVENTS", timeout=5)).data)
    reply = await nc.request("$JS.API.STREAM.UPDATE.EVENTS", json.dumps(info["config"] | changes).encode(), timeout=5)
    assert "error" not in json.loads(reply.data), reply.data


async def gaps(gateway: Gateway, reason: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).total("natsgate_gaps_total", reason=reason)


async def expect_gap(sse: SseClient, reason: str, begin: str | None, *, moves: bool = True) -> str:
    """The next event is a gap of this reason that begins there; returns where it ends."""
    gap = await sse.next_event()
    assert gap.type == "natsgate.gap", gap
    content = gap.json()
    assert set(content) == {"reason", "from", "to"}
    assert (content["reason"], content["from"]) == (reason, begin)
    assert gap.id == (content["to"] if moves else None)
    return str(content["to"])


async def test_purged(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """After a purge a returning cursor gets one `expired` gap over exactly what is gone, then what is left."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=NO_LOG)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, filters)
    await store(nc, [f"repo.{own_id}.x"], 40)
    await nc.jetstream().purge_stream("EVENTS", seq=31)
    kept = await stored(nc, filters)
    assert len(kept) == 10
    async with SseClient(gateway.url, filters, headers={"Last-Event-ID": cursor}) as sse:
        end = await expect_gap(sse, "expired", cursor)
        assert sequence_of(end) == kept[0].sequence - 1
        events, _ = await up_to_ready(sse, upto=kept[-1].sequence)
        assert_same(events, kept)
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'
    assert await gaps(gateway, "expired") == 1
    async with SseClient(gateway.url, filters, headers={"Last-Event-ID": end}) as sse:
        events, _ = await up_to_ready(sse, upto=kept[-1].sequence + 1)
        assert len(events) == 11, "who comes back from the gap's end is not told again"


@pytest.mark.parametrize("limit", [{"max_msgs": 20}, {"max_bytes": 4096}])
async def test_older_than_the_stream_keeps(
    own_nats: NatsServer,
    start_gateway: StartGateway,
    connect_nats: ConnectNats,
    own_id: str,
    limit: dict[str, int],
) -> None:
    """What the stream's limits have let go is an `expired` gap, over WebSocket as well."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=NO_LOG)
    nc = await connect_nats(own_nats.url)
    await reconfigure(nc, **limit)
    feed = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, feed)
    await store(nc, [f"repo.{own_id}.x"], 200)
    kept = await stored(nc, feed)
    assert 0 < len(kept) < 200
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_op(op="subscribe", ref=1, subject=feed, cursor=cursor))
        await ws.next_op("subscribed")
        gap = (await ws.next_text()).json()
        assert (gap["op"], gap["feed"], gap["reason"], gap["from"]) == ("gap", feed, "expired", cursor)
        assert sequence_of(gap["to"]) == kept[0].sequence - 1
        assert [sequence_of((await ws.next_op("event"))["cursor"]) for _ in kept] == [e.sequence for e in kept]


async def test_max_age(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Events past the stream's age are an `expired` gap; the cursor of a client that was told stays good."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=NO_LOG)
    nc = await connect_nats(own_nats.url)
    await reconfigure(nc, max_age=10**9, duplicate_window=10**9)
    cursor = await cursor_now(gateway, f"repo.{own_id}.>")
    last = await store(nc, [f"repo.{own_id}.x"], 10)

    async def aged() -> bool:
        return not (await nc.jetstream().stream_info("EVENTS")).state.messages

    await eventually(aged, "the events have aged out")
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers={"Last-Event-ID": cursor}) as sse:
        assert sequence_of(await expect_gap(sse, "expired", cursor)) == last
        assert (await sse.ready()).json()["replayed"] == 0


async def test_purged_while_replay_is_under_way(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A purge in the midst of a replay: what was gone before it was read is told as a gap, never left out."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=NO_LOG, REPLAY_LIMIT=0)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, filters)
    last = await store(nc, [f"repo.{own_id}.x"], 60_000)
    async with SseClient(gateway.url, filters, headers={"Last-Event-ID": cursor}, keep=False) as sse:
        position = sequence_of(cursor)
        purged = False
        while (event := await sse.next_event(timeout_s=30)).type != "natsgate.ready":
            if event.type == "natsgate.gap":
                assert sequence_of(event.json()["from"]) == position
            else:
                assert sequence_of(event.id) == position + 1, "a hole that nobody was told of"
            position = sequence_of(event.id)
            if not purged:
                purged = True
                await nc.jetstream().purge_stream("EVENTS", seq=last - 5)
        assert position == last


async def test_too_far(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """More matching events than `REPLAY_LIMIT` are a `too_far` gap up to now; as many as the limit are replayed."""
    for settings in ({}, NO_LOG):
        gateway = await start_gateway(settings=settings, REPLAY_LIMIT=50)
        filters = f"repo.{own_id}.>"
        cursor = await cursor_now(gateway, filters)
        await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 100)
        last = (await stored(nc, filters))[-1].sequence
        for query in ({"last_event_id": cursor}, {"last_event_id": cursor, "until": "head"}):
            async with SseClient(gateway.url, filters, query=query) as sse:
                events, _ = await up_to_ready(sse, upto=last)
            assert len(events) == 50, query
        await store(nc, [f"repo.{own_id}.x"], 5)
        async with SseClient(gateway.url, filters, query={"last_event_id": cursor}) as sse:
            assert sequence_of(await expect_gap(sse, "too_far", cursor)) >= last
            assert (await sse.ready()).json()["replayed"] == 0
            await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
            assert (await sse.next_event()).data == '{"n":"live"}'
        async with SseClient(gateway.url, filters, query={"since": "all"}) as sse:
            gap = await sse.next_event()
            assert (gap.type, gap.json()["reason"]) == ("natsgate.gap", "too_far")


@pytest.mark.parametrize("two", [[">", "a.b"], ["a.>", "*.b"]], ids=["within each other", "beside each other"])
async def test_filters_that_overlap_count_an_event_once(
    start_gateway: StartGateway, nc: Client, own_id: str, two: list[str]
) -> None:
    """What two filters of a feed select is one event for `REPLAY_LIMIT`: as many as the limit are replayed, once."""
    gateway = await start_gateway(settings=NO_LOG, REPLAY_LIMIT=50)
    filters = [f"repo.{own_id}.{tail}" for tail in two]
    cursor = await cursor_now(gateway, *filters)
    await store(nc, [f"repo.{own_id}.a.b", f"task.{own_id}.x"], 100)
    expected = await stored(nc, f"repo.{own_id}.>")
    async with SseClient(gateway.url, *filters, query={"last_event_id": cursor}) as sse:
        events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
    assert_same(events, expected)
    await publish(nc, f"repo.{own_id}.a.b", "{}")
    async with SseClient(gateway.url, *filters, query={"last_event_id": cursor}) as sse:
        await expect_gap(sse, "too_far", cursor)


async def test_ahead(gateway: Gateway, start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A cursor that the leader has not reached is an `ahead` gap with nothing in `from`; the feed goes on from now."""
    filters = f"repo.{own_id}.>"
    for each in (gateway, await start_gateway(settings=NO_LOG)):
        cursor = await cursor_now(each, filters)
        for step in (1, 1000, 2**40, 2**64 - 1 - sequence_of(cursor)):
            ahead = moved(cursor, lambda sequence, step=step: sequence + step)  # type: ignore[misc]
            async with SseClient(each.url, filters, headers={"Last-Event-ID": ahead}) as sse:
                assert sequence_of(await expect_gap(sse, "ahead", None)) == sequence_of(cursor)
                assert (await sse.ready()).json()["replayed"] == 0


async def test_a_faster_replicas_cursor_waits(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A cursor that another replica handed out before this one had the event is no gap: it goes on where it is."""
    slow = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=5)
    fast = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with SseClient(slow.url, filters) as kept, SseClient(fast.url, filters) as ahead:
        await kept.ready()
        await ahead.ready()
        for n in range(5):
            os.kill(slow.pid, signal.SIGSTOP)
            try:
                await store(nc, [f"repo.{own_id}.x"], 100, begin=100 * n)
                for _ in range(100):
                    cursor = (await ahead.next_event()).id or ""
                back = SseClient(slow.url, filters, headers={"Last-Event-ID": cursor})
                opening = asyncio.create_task(back.open())
            finally:
                os.kill(slow.pid, signal.SIGCONT)
            await opening
            try:
                ready = await back.ready()
                assert sequence_of(ready.id) >= sequence_of(cursor)
                assert ready.json()["replayed"] == 0
                for _ in range(100):
                    await kept.next_event()
                await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
                for each in (back, kept, ahead):
                    assert (await each.next_event()).data == '{"n":"live"}'
            finally:
                back.close()


async def test_recreated_under_connected_clients(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """The stream deleted and made again: connected clients are told `recreated`, once, and get its events."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    feed = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, feed) as page, RawWebSocket(gateway.url) as ws:
        await page.until_ready()
        await ws.subscribe(feed)
        await store(nc, [f"repo.{own_id}.x"], 30)
        await page.until_heard(30)
        for _ in range(30):
            await ws.next_op("event")
        await nc.jetstream().delete_stream("EVENTS")
        await asyncio.to_thread(provision, own_nats.url)
        await store(nc, [f"repo.{own_id}.x"], 3)
        gap = await page.until_told("gap")
        assert (gap["reason"], gap["from"]) == ("recreated", None)
        op = await ws.next_op("gap")
        assert (op["feed"], op["reason"]) == (feed, "recreated")
        await store(nc, [f"repo.{own_id}.x"], 5, begin=100)
        while '{"n": 104}' not in [event.data for event in page.heard]:
            await page.until_heard(len(page.heard) + 1)
        new = [event for event in page.heard if (event.id or "").startswith(gap["to"].partition("-")[0])]
        assert_same(new, await stored(nc, feed, after=sequence_of(gap["to"])))
        assert len(page.told_of("gap")) == 1
        assert page.connects == 1
        while (event := await ws.next_op("event"))["event"]["n"] != 104:
            pass
        assert event["cursor"] == new[-1].id


async def test_recreated_for_returning_clients(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A cursor of the old life brings `recreated`, from log and stream, with and without the tap open."""
    gateway = await start_gateway(nats_url=own_nats.url, LINGER_S=0.05)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, filters)
    await store(nc, [f"repo.{own_id}.x"], 5)
    await nc.jetstream().delete_stream("EVENTS")
    await asyncio.to_thread(provision, own_nats.url)
    await store(nc, [f"repo.{own_id}.x"], 50)
    for other in (gateway, await start_gateway(nats_url=own_nats.url)):
        for _ in range(2):
            async with SseClient(other.url, filters, headers={"Last-Event-ID": cursor}) as sse:
                assert sequence_of(await expect_gap(sse, "recreated", None)) == 50
                await sse.ready()
                async with SseClient(other.url, filters, headers={"Last-Event-ID": cursor}) as beside:
                    await expect_gap(beside, "recreated", None)
                    await beside.ready()


async def test_a_new_epoch(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Another `natsgate_epoch` in the stream's metadata, as after a restore, makes every old cursor `recreated`."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 5)
        await page.until_heard(5)
        await reconfigure(nc, metadata={"natsgate_epoch": "2"})
        gap = await page.until_told("gap")
        assert (gap["reason"], gap["from"]) == ("recreated", None)
        await store(nc, [f"repo.{own_id}.x"], 5, begin=5)
        await page.until_heard(10)
        async with SseClient(gateway.url, filters, headers={"Last-Event-ID": page.heard[0].id or ""}) as sse:
            await expect_gap(sse, "recreated", None)
        async with SseClient(gateway.url, filters, headers={"Last-Event-ID": page.heard[5].id or ""}) as sse:
            events, _ = await up_to_ready(sse, upto=page.sequences[-1])
            assert len(events) == 4


async def test_a_snapshot_feed_is_shown_the_present_again(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A connected snapshot feed whose stream begins anew is told so and gets the new snapshot, then live events."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    async with Follower(lambda: gateway.url, f"repo.{own_id}.>", query={"snapshot": "true"}) as page:
        await page.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 5)
        await page.until_heard(5)
        await nc.jetstream().delete_stream("EVENTS")
        await asyncio.to_thread(provision, own_nats.url)
        await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b"], 2)
        await page.until_told("gap")
        await page.until_ready(2)
        assert page.told_of("ready")[-1]["snapshot"] == 2
        await publish(nc, f"repo.{own_id}.a", '{"n":"live"}')
        while page.heard[-1].data != '{"n":"live"}':
            await page.until_heard(len(page.heard) + 1)
        assert [(event.json()["n"], event.id is None) for event in page.heard[-3:-1]] == [(0, True), (1, True)]


async def test_a_gap_closes_a_raw_connection(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Bare events have no word for a gap: the connection is closed with 4100 `gap`; with control it is told first."""
    table = ['name = "raw"', 'path = "/raw/{id}"', 'transports = ["ws"]', 'subjects = ["repo.{id}.>"]']
    gateway = await start_gateway(nats_url=own_nats.url, config=routes([*table, 'framing = "raw"']))
    nc = await connect_nats(own_nats.url)
    async with (
        RawWebSocket(gateway.url, f"/raw/{own_id}", subprotocol=None) as bare,
        RawWebSocket(gateway.url, f"/raw/{own_id}?control=true", subprotocol=None) as told,
    ):
        await told.next_text()
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        for each in (bare, told):
            assert (await each.next_text()).json() == {"n": 1}
        await nc.jetstream().delete_stream("EVENTS")
        await asyncio.to_thread(provision, own_nats.url)
        await store(nc, [f"repo.{own_id}.x"], 1)  # shows the gateway at once that the stream began anew
        while (frame := (await told.next_text()).json())["natsgate"] == "state":
            pass
        assert (frame["natsgate"], frame["reason"]) == ("gap", "recreated")
        assert (await bare.answer_close()).close_code == 4100
        assert (await told.answer_close()).close_code == 4100


async def test_a_purge_in_an_outage(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Purged while a replica could not see it (frozen, its connections cut): connected clients get `expired`."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 10)
        await page.until_heard(10)
        os.kill(gateway.pid, signal.SIGSTOP)
        try:
            await store(nc, [f"repo.{own_id}.x"], 100, begin=10)
            await nc.jetstream().purge_stream("EVENTS", keep=3)
            await nc.close()
            await asyncio.to_thread(own_nats.restart)
        finally:
            os.kill(gateway.pid, signal.SIGCONT)
        again = await connect_nats(own_nats.url)
        await store(again, [f"repo.{own_id}.x"], 1, begin=110)
        while page.heard[-1].data != '{"n": 110}':
            await page.until_heard(len(page.heard) + 1)
        heard = page.sequences
        told = page.told_of("gap")
        covered = {s for gap in told for s in range(sequence_of(gap["from"]) + 1, sequence_of(gap["to"]) + 1)}
        assert sorted([*heard, *covered]) == list(range(heard[0], heard[-1] + 1)), "each event once, or in a gap"
        assert {gap["reason"] for gap in told} <= {"expired"}
        assert page.connects == 1
