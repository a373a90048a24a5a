"""Coming back with a cursor: the rest, once, in order, whoever asks, whichever way, wherever it is read from."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.coming_back import NO_LOG, cursor_now, up_to_ready
from tests.support.flow import Flow, store
from tests.support.follower import assert_same
from tests.support.gateway import Gateway, routes
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient, SseEvent
from tests.support.stored import moved, sequence_of, stored


async def replays(gateway: Gateway, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).total("natsgate_replays_total", **labels)


@pytest.mark.parametrize(
    ("headers", "query"),
    [
        ({"Last-Event-ID": "{cursor}"}, {}),
        ({}, {"last_event_id": "{cursor}"}),
        ({"Last-Event-ID": "{cursor}"}, {"last_event_id": "{newer}"}),
        ({"Last-Event-ID": "{cursor}"}, {"last_event_id": "{cursor}", "since": "1s"}),
        ({"Last-Event-ID": ""}, {"last_event_id": "{cursor}"}),
        ({}, {"last_event_id": "{newer}", "lastEventId": "{cursor}"}),
    ],
    ids=["header", "query", "header wins", "cursor before since", "empty header", "polyfill"],
)
async def test_sse_resumes(
    gateway: Gateway, nc: Client, own_id: str, headers: Mapping[str, str], query: Mapping[str, str]
) -> None:
    """A cursor brings what came after it, then `ready` that counts it, then live events; the header wins."""
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, filters)
    newer = moved(cursor, lambda sequence: sequence + 10)
    await store(nc, [f"repo.{own_id}.x"], 20)
    expected = await stored(nc, filters)

    def fill(values: Mapping[str, str]) -> dict[str, str]:
        return {name: value.format(cursor=cursor, newer=newer) for name, value in values.items()}

    async with SseClient(gateway.url, filters, headers=fill(headers), query=fill(query)) as sse:
        events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
        assert_same(events, expected)
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'


async def test_served_from_the_log(gateway: Gateway, nc: Client, own_id: str) -> None:
    """What the log still holds is served from it: `natsgate_replays_total{source="log"}` goes up."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        ready = await sse.ready()
        await store(nc, [f"repo.{own_id}.x"], 10)
        before = await replays(gateway, source="log")
        cursor = moved(ready.id or "", lambda sequence: sequence + 1)
        async with SseClient(gateway.url, f"repo.{own_id}.>", query={"last_event_id": cursor}) as again:
            expected = await stored(nc, f"repo.{own_id}.>", after=sequence_of(cursor))
            events, _ = await up_to_ready(again, upto=expected[-1].sequence)
        assert_same(events, expected)
        assert await replays(gateway, source="log") == before + 1


async def test_served_from_the_stream_on_another_replica(
    gateway: Gateway, start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """A replica whose log does not reach back reads the stream, in more than one batch, and goes on live."""
    other = await start_gateway(settings=NO_LOG)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(gateway, filters)
    await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 5000)
    expected = await stored(nc, filters)
    async with SseClient(other.url, filters, headers={"Last-Event-ID": cursor}) as sse:
        events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
        assert_same(events, expected)
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'
    assert await replays(other, source="stream") >= 1
    assert await replays(other, source="log") == 0


async def test_several_filters_are_one_ordered_sequence(
    gateway: Gateway, start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Filters of several roots, overlapping ones too, replay as one sequence, from log and stream alike."""
    bare = await start_gateway(settings=NO_LOG)
    subjects = [f"{root}.{own_id}.{kind}" for root in ("repo", "task", "user", "ci") for kind in ("a", "b")]
    filters = [f"repo.{own_id}.>", f"repo.{own_id}.a", f"task.*.{'b'}", f"ci.{own_id}.*"]
    cursor = await cursor_now(gateway, *filters)
    await store(nc, subjects, 2400)
    wanted = {f"repo.{own_id}.a", f"repo.{own_id}.b", f"task.{own_id}.b", f"ci.{own_id}.a", f"ci.{own_id}.b"}
    expected = [each for each in await stored(nc, ">", after=sequence_of(cursor)) if each.subject in wanted]
    for each in (gateway, bare):
        async with SseClient(each.url, *filters, headers={"Last-Event-ID": cursor}) as sse:
            events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
            assert_same(events, expected)


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_while_events_keep_arriving(
    start_gateway: StartGateway, nc: Client, own_id: str, settings: Mapping[str, object]
) -> None:
    """Replay is spliced into a running flow: twenty clients that come back in its midst get all of it, once."""
    replica = await start_gateway(settings=settings)
    filters = [f"repo.{own_id}.>", f"task.{own_id}.>"]
    cursor = await cursor_now(replica, *filters)
    await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 1500)
    async with Flow(nc, [f"repo.{own_id}.x", f"task.{own_id}.y", f"user.{own_id}.z"], pause_s=0.005) as flow:
        clients = [SseClient(replica.url, *filters, headers={"Last-Event-ID": cursor}, keep=False) for _ in range(20)]
        try:
            for client in clients:
                await client.open()
            collecting = [asyncio.create_task(until_end_mark(client)) for client in clients]
            await flow.more(500)
            await flow.stop()
            await nc.jetstream().publish(f"repo.{own_id}.end", b'{"end":true}')
            expected = await stored(nc, *filters)
            for events in await asyncio.gather(*collecting):
                assert_same(events, expected)
        finally:
            for client in clients:
                client.close()


async def until_end_mark(client: SseClient) -> list[SseEvent]:
    """Events up to and with the one that ends the test, which says `end`."""
    events: list[SseEvent] = []
    while True:
        event = await client.next_message(timeout_s=30)
        events.append(event)
        if event.json().get("end"):
            return events


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_a_websocket_feed_resumes_by_cursor(
    start_gateway: StartGateway, nc: Client, own_id: str, settings: Mapping[str, object]
) -> None:
    """`cursor` in `subscribe`: `subscribed`, what was missed, `ready` that counts it, then live, per feed."""
    replica = await start_gateway(settings=settings)
    cursor = await cursor_now(replica, f"repo.{own_id}.>")
    await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 300)
    async with RawWebSocket(replica.url) as ws:
        await ws.next_op("hello")
        for feed in (f"repo.{own_id}.>", f"task.{own_id}.>"):
            await ws.send(encode_op(op="subscribe", ref=feed, subject=feed, cursor=cursor))
            assert (await ws.next_text()).json() == {"op": "subscribed", "ref": feed, "feed": feed}
            expected = await stored(nc, feed)
            for each in expected:
                op = (await ws.next_text()).json()
                assert (op["op"], op["feed"], op["subject"]) == ("event", feed, each.subject)
                assert sequence_of(op["cursor"]) == each.sequence
            ready = (await ws.next_text()).json()
            assert (ready["op"], ready["feed"], ready["replayed"]) == ("ready", feed, 150)
            assert sequence_of(ready["cursor"]) >= expected[-1].sequence
        await publish(nc, f"task.{own_id}.x", '{"n":"live"}')
        assert (await ws.next_op("event"))["event"] == {"n": "live"}


async def test_raw_websocket_resumes_by_last_event_id(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A raw connection with `control=true` learns its cursor and resumes with `last_event_id`."""
    table = [
        'name = "raw"',
        'path = "/raw/{id}"',
        'transports = ["ws"]',
        'subjects = ["repo.{id}.>"]',
        'framing = "raw"',
    ]
    replica = await start_gateway(config=routes(table))
    async with RawWebSocket(replica.url, f"/raw/{own_id}?control=true", subprotocol=None) as ws:
        ready = (await ws.next_text()).json()
    assert ready["natsgate"] == "ready"
    await store(nc, [f"repo.{own_id}.x"], 50)
    path = f"/raw/{own_id}?control=true&last_event_id={ready['cursor']}"
    async with RawWebSocket(replica.url, path, subprotocol=None) as ws:
        assert [(await ws.next_text()).json() for _ in range(50)] == [{"n": n} for n in range(50)]
        again = (await ws.next_text()).json()
        assert (again["natsgate"], again["replayed"]) == ("ready", 50)
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await ws.next_text()).json() == {"n": "live"}


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_cut_in_the_middle_of_a_replay(
    start_gateway: StartGateway, nc: Client, own_id: str, settings: Mapping[str, object]
) -> None:
    """A client that is cut again and again within a replay, between bytes, and comes back has all of it, once."""
    replica = await start_gateway(settings=settings)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(replica, filters)
    await store(nc, [f"repo.{own_id}.x"], 3000)
    expected = await stored(nc, filters)
    heard: list[SseEvent] = []
    for piece in range(1, 200):
        client = SseClient(replica.url, filters, headers={"Last-Event-ID": cursor}, receive_buffer_bytes=4096)
        async with client as sse:
            taken = 0
            while taken < 40 * piece and (event := await sse.next_event()).type != "natsgate.ready":
                heard.append(event)
                cursor = event.last_event_id
                taken += 1
            sse.tcp.abort()
        if event.type == "natsgate.ready":
            break
    assert_same(heard, expected)
