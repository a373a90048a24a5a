"""Snapshots: the present first, then everything that changes it."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.coming_back import NO_LOG, cursor_now, up_to_ready
from tests.support.flow import Flow, store
from tests.support.gateway import Gateway, routes
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient, SseEvent
from tests.support.stored import moved, sequence_of, stored

SNAPSHOT = {"snapshot": "true"}


async def test_last_event_of_each_subject_then_live(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The last event of every subject, ascending, without `id:`; then `ready` with the watermark; then live."""
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(20)], 50)
    expected = await stored(nc, f"repo.{own_id}.>")
    last = {each.subject: each for each in expected}
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=SNAPSHOT) as sse:
        events, ready = await up_to_ready(sse)
        assert [event.data for event in events] == [
            each.text for each in sorted(last.values(), key=lambda each: each.sequence)
        ]
        assert {event.id for event in events} == {None}
        assert (ready.json()["snapshot"], ready.json()["replayed"]) == (20, 0)
        assert sequence_of(ready.id) >= expected[-1].sequence
        await publish(nc, f"repo.{own_id}.k3", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'


async def test_overlapping_filters(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A subject that several filters match is in the snapshot once."""
    await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b", f"task.{own_id}.a"], 9)
    filters = [f"repo.{own_id}.>", f"repo.{own_id}.a", f"repo.{own_id}.*", f"task.{own_id}.>"]
    async with SseClient(gateway.url, *filters, query=SNAPSHOT) as sse:
        events, _ = await up_to_ready(sse)
    assert [event.json()["n"] for event in events] == [6, 7, 8]


async def test_nothing_to_show(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Without any event the snapshot is empty, `ready` says so, and live events follow."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=SNAPSHOT) as sse:
        ready = await sse.ready()
        assert (ready.json()["snapshot"], ready.json()["replayed"]) == (0, 0)
        assert ready.id
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await sse.next_event()).data == '{"n":1}'


async def test_not_sent_with_a_valid_cursor(gateway: Gateway, nc: Client, own_id: str) -> None:
    """With a valid cursor there is no snapshot: what came after it, and nothing else."""
    await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b"], 4)
    cursor = await cursor_now(gateway, f"repo.{own_id}.>")
    last = await store(nc, [f"repo.{own_id}.b"], 1, begin=9)
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=SNAPSHOT | {"last_event_id": cursor}) as sse:
        events, ready = await up_to_ready(sse, upto=last)
    assert [event.data for event in events] == ['{"n": 9}']
    assert ready.json()["snapshot"] == 0


async def test_sent_again_after_a_gap(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A cursor that leads to a gap is followed by the whole snapshot; the gap has no `id:`, `ready` has."""
    await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b"], 4)
    cursor = moved(await cursor_now(gateway, f"repo.{own_id}.>"), lambda sequence: sequence + 10**9)
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=SNAPSHOT | {"last_event_id": cursor}) as sse:
        gap = await sse.next_event()
        assert (gap.type, gap.json()["reason"], gap.id) == ("natsgate.gap", "ahead", None)
        events, ready = await up_to_ready(sse)
    assert [event.json()["n"] for event in events] == [2, 3]
    assert ready.json()["snapshot"] == 2
    assert sequence_of(ready.id) == sequence_of(gap.json()["to"])


async def test_with_since_it_is_refused(gateway: Gateway, own_id: str) -> None:
    """`since` and `snapshot` together: 400; over WebSocket an `error`."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=SNAPSHOT | {"since": "all"}) as sse:
        assert sse.status == 400
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.>", since="all", snapshot=True))
        error = await ws.next_op("error")
        assert error["ref"] == 1


@pytest.mark.parametrize(("limit", "subjects"), [(5, 6), (1000, 1030)])
async def test_more_subjects_than_the_limit(
    start_gateway: StartGateway, nc: Client, own_id: str, limit: int, subjects: int
) -> None:
    """Too many subjects are told as a gap, and live events follow: never silence, never half a snapshot."""
    replica = await start_gateway(SNAPSHOT_LIMIT=limit)
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(subjects)], subjects)
    async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT) as sse:
        gap = await sse.next_event()
        assert (gap.type, gap.json()["reason"]) == ("natsgate.gap", "too_far")
        assert (await sse.ready()).json()["snapshot"] == 0
        await publish(nc, f"repo.{own_id}.k3", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'


async def test_as_many_subjects_as_the_limit(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Exactly `SNAPSHOT_LIMIT` subjects, the most that can be set, are all shown."""
    replica = await start_gateway(SNAPSHOT_LIMIT=1024)
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(1024)], 1024)
    async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT) as sse:
        events, ready = await up_to_ready(sse)
    assert ready.json()["snapshot"] == 1024
    assert [event.json()["n"] for event in events] == list(range(1024))


async def test_large_events(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Three hundred subjects of 100 KB each are shown whole."""
    replica = await start_gateway()
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(300)], 300, pad="x" * 100_000)
    async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT, keep=False) as sse:
        events, ready = await up_to_ready(sse)
    assert [event.json()["n"] for event in events] == list(range(300))
    assert ready.json()["snapshot"] == 300


async def test_websocket(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Over WebSocket a snapshot's events say `"snapshot":true` and have no cursor; later ones are ordinary."""
    await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b"], 4)
    feed = f"repo.{own_id}.>"
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_op(op="subscribe", ref=1, subject=feed, snapshot=True))
        await ws.next_op("subscribed")
        for n, kind in ((2, "a"), (3, "b")):
            assert (await ws.next_text()).json() == {
                "op": "event",
                "feed": feed,
                "subject": f"repo.{own_id}.{kind}",
                "snapshot": True,
                "event": {"n": n},
            }
        ready = (await ws.next_text()).json()
        assert (ready["op"], ready["snapshot"], ready["replayed"]) == ("ready", 2, 0)
        await publish(nc, f"repo.{own_id}.a", '{"n":"live"}')
        op = (await ws.next_text()).json()
        assert (op["event"], "snapshot" in op) == ({"n": "live"}, False)
        assert op["cursor"]


async def test_configured_route(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A route with `snapshot = true` shows it unasked, over both transports; `snapshot=false` and `since` win."""
    table = ['name = "r"', 'path = "/r/{id}"', 'transports = ["sse", "ws"]', 'subjects = ["repo.{id}.>"]']
    replica = await start_gateway(config=routes([*table, "snapshot = true"]))
    await store(nc, [f"repo.{own_id}.a", f"repo.{own_id}.b"], 4)
    for query, numbers in (("", [2, 3]), ("?snapshot=false", []), ("?since=all", [0, 1, 2, 3])):
        async with SseClient(replica.url, target=f"/r/{own_id}{query}") as sse:
            events, _ = await up_to_ready(sse)
        assert [event.json()["n"] for event in events] == numbers
    async with RawWebSocket(replica.url, f"/r/{own_id}") as ws:
        assert [(await ws.next_op("event"))["event"]["n"] for _ in range(2)] == [2, 3]
        assert (await ws.next_op("ready"))["snapshot"] == 2


class Board:
    """What a page makes of a snapshot feed: the newest number of every subject."""

    def __init__(self) -> None:
        self.newest: dict[str, int] = {}
        self.live: list[int] = []

    def take(self, event: SseEvent) -> None:
        content = event.json()
        self.newest[content["k"]] = content["n"]
        if event.id is not None:
            self.live.append(sequence_of(event.id))


async def keep_publishing(nc: Client, own_id: str, ended: asyncio.Event) -> dict[str, int]:
    """Numbered events on fifty subjects until told to end; the newest number of each."""
    js = nc.jetstream()
    newest: dict[str, int] = {}
    n = 0
    while not ended.is_set():
        acks = []
        for _ in range(20):
            key = f"k{n * 7 % 50}"
            newest[key] = n
            acks.append(await js.publish_async(f"repo.{own_id}.{key}", json.dumps({"k": key, "n": n}).encode()))
            n += 1
        await asyncio.gather(*acks)
    await js.publish(f"repo.{own_id}.end", b'{"k":"end","n":0}')
    return newest | {"end": 0}


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_spliced_into_a_running_flow(
    start_gateway: StartGateway, nc: Client, own_id: str, settings: dict[str, object]
) -> None:
    """While events flow, thirty snapshot clients end with the same state as the stream; live events are gapless."""
    replica = await start_gateway(settings=settings)
    ended = asyncio.Event()
    publishing = asyncio.create_task(keep_publishing(nc, own_id, ended))

    async def follow() -> tuple[Board, int]:
        board = Board()
        async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT, keep=False) as sse:
            events, ready = await up_to_ready(sse)
            for event in events:
                board.take(event)
            while "end" not in board.newest:
                event = await sse.next_event(timeout_s=30)
                board.take(event)
        return board, sequence_of(ready.id)

    try:
        following = []
        for _ in range(30):
            following.append(asyncio.create_task(follow()))
            await asyncio.sleep(0.01)  # spreads the clients over the flow; nothing waits for it
    finally:
        ended.set()
        newest = await publishing
    everything = await stored(nc, f"repo.{own_id}.>")
    for board, watermark in await asyncio.gather(*following):
        assert board.newest == newest
        assert [s for s in board.live if s > watermark] == [e.sequence for e in everything if e.sequence > watermark]


async def test_cut_in_the_middle_of_a_snapshot(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A client cut at any place of a snapshot has no id yet, comes back to a whole one, and ends up right."""
    replica = await start_gateway()
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(200)], 400, pad="x" * 1000)
    sizes = [0, 100, 5_000, 30_000, 100_000, 190_000]
    for size in sizes:
        async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT, receive_buffer_bytes=4096) as sse:
            taken = 0
            while taken < size:
                taken += len((await sse.next_event()).data)
            cursor = sse.last_event_id
            sse.tcp.abort()
        assert cursor == ""
        await store(nc, [f"repo.{own_id}.k{size % 7}"], 1, begin=1000 + size)
        async with SseClient(replica.url, f"repo.{own_id}.>", query=SNAPSHOT) as again:
            events, ready = await up_to_ready(again)
        assert ready.json()["snapshot"] == 200
        assert events[-1].json() == {"n": 1000 + size}


async def test_cut_in_the_snapshot_after_a_gap(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A client cut within the snapshot that follows a gap comes back with its old cursor: gap and snapshot again."""
    replica = await start_gateway()
    await store(nc, [f"repo.{own_id}.k{k}" for k in range(200)], 200, pad="x" * 1000)
    cursor = moved(await cursor_now(replica, f"repo.{own_id}.>"), lambda sequence: sequence + 10**9)
    query = SNAPSHOT | {"last_event_id": cursor}
    for _ in range(3):
        async with SseClient(replica.url, f"repo.{own_id}.>", query=query, receive_buffer_bytes=4096) as sse:
            assert (await sse.next_event()).type == "natsgate.gap"
            for n in range(20):
                assert (await sse.next_event()).json()["n"] == n
            assert sse.last_event_id == ""
            sse.tcp.abort()
    async with SseClient(replica.url, f"repo.{own_id}.>", query=query) as sse:
        assert (await sse.next_event()).type == "natsgate.gap"
        events, ready = await up_to_ready(sse)
    assert len(events) == ready.json()["snapshot"] == 200


async def test_the_producer_stores_each_event_once(nc: Client, own_id: str) -> None:
    """The producer of these tests stores each event once."""
    async with Flow(nc, [f"repo.{own_id}.x"]) as flow:
        await flow.more(20)
    assert [json.loads(each.text)["n"] for each in await stored(nc, f"repo.{own_id}.>")] == list(range(flow.stored))
