"""From a plain NATS publish to every browser: the same text, the same cursor, once."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.producer import burst, publish
from tests.support.sse import SseClient
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]
CURSOR = re.compile(r"[!-~]{1,64}")


async def test_one_publish_reaches_sse_and_websocket_alike(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A plain `nc.publish` reaches an SSE and a WebSocket client with the same text and cursor."""
    text = '{"type": "task.progress", "payload": {"percent": 37.0}}'
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, ws_client(gateway.ws_url) as ws:
        await sse.ready()
        feed = await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.task.progress", text)

        event = await sse.next_event()
        op = await ws.event()

    assert (event.type, event.data) == ("message", text)
    assert op == {
        "op": "event",
        "feed": feed,
        "subject": f"repo.{own_id}.task.progress",
        "cursor": event.id,
        "event": json.loads(text),
    }
    assert text in ws.texts[-1], "the event is inside the frame, byte for byte"


async def test_a_cursor_is_short_printable_ascii_with_the_stream_sequence(
    gateway: Gateway, nc: Client, own_id: str
) -> None:
    """An event's cursor is `<incarnation>-<sequence>`, at most 64 visible ASCII characters."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        ack = await nc.jetstream().publish(f"repo.{own_id}.doc.created", b'{"type":"doc.created"}')
        event = await sse.next_event()
    assert event.id is not None
    assert CURSOR.fullmatch(event.id)
    incarnation, _, sequence = event.id.rpartition("-")
    assert incarnation
    assert int(sequence) == ack.seq


async def test_ready_states_the_cursor_that_events_follow(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The cursor of `natsgate.ready` is of the same incarnation as the events and lies before them."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        ready = await sse.ready()
        await publish(nc, f"repo.{own_id}.doc.created", "{}")
        event = await sse.next_event()
    assert ready.id is not None
    assert event.id is not None
    before, after = ready.id.rpartition("-"), event.id.rpartition("-")
    assert before[0] == after[0]
    assert int(before[2]) < int(after[2])


async def test_events_arrive_in_stream_order(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Two hundred events of one burst arrive in order, each once, on both transports."""
    texts = [json.dumps({"n": n}) for n in range(200)]
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, ws_client(gateway.ws_url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await burst(nc, f"repo.{own_id}.log.append", texts)
        events = [await sse.next_event() for _ in texts]
        ops = [await ws.event() for _ in texts]
    assert [event.data for event in events] == texts
    assert [op["event"] for op in ops] == [json.loads(text) for text in texts]
    assert [op["cursor"] for op in ops] == [event.id for event in events]


@pytest.mark.parametrize(
    ("pattern", "heard"),
    [
        ("repo.{id}.>", ["repo.{id}.task.progress", "repo.{id}.status_changed", "repo.{id}.a.b.c"]),
        ("repo.{id}.*", ["repo.{id}.status_changed"]),
        ("repo.{id}.task.*", ["repo.{id}.task.progress"]),
        ("repo.{id}.*.progress", ["repo.{id}.task.progress"]),
        ("repo.{id}.task.progress", ["repo.{id}.task.progress"]),
        ("repo.*.{id}", ["repo.other.{id}"]),
        ("repo.*.{id}.>", ["repo.other.{id}.x"]),
        ("task.{id}.>", ["task.{id}.progress"]),
    ],
)
async def test_wildcards_select_as_in_nats(
    gateway: Gateway, nc: Client, own_id: str, pattern: str, heard: list[str]
) -> None:
    """`*` stands for one token and `>` for one or more; nothing else is heard."""
    published = [
        "repo.{id}.task.progress",
        "repo.{id}.status_changed",
        "repo.{id}.a.b.c",
        "repo.{id}x.status_changed",
        "repo.other.{id}",
        "repo.other.{id}.x",
        "task.{id}.progress",
        "project.{id}.progress",
    ]
    subjects = [subject.replace("{id}", own_id) for subject in published]
    wanted = [subject.replace("{id}", own_id) for subject in heard]
    mark = f"user.{own_id}.end"
    async with (
        SseClient(gateway.url, pattern.replace("{id}", own_id), mark) as sse,
        ws_client(gateway.ws_url) as ws,
    ):
        await sse.ready()
        await ws.subscribe(pattern.replace("{id}", own_id), mark)
        for subject in [*subjects, mark]:
            await publish(nc, subject, json.dumps({"s": subject}))
        assert [(await sse.next_event()).json()["s"] for _ in [*wanted, mark]] == [*wanted, mark]
        assert [(await ws.event())["subject"] for _ in [*wanted, mark]] == [*wanted, mark]


async def test_overlapping_filters_deliver_once(gateway: Gateway, nc: Client, own_id: str) -> None:
    """An event that several filters of a feed match arrives once."""
    filters = [f"repo.{own_id}.>", f"repo.{own_id}.task.*", f"repo.*.task.{own_id}", f"repo.{own_id}.>"]
    async with SseClient(gateway.url, *filters) as sse, ws_client(gateway.ws_url) as ws:
        await sse.ready()
        await ws.subscribe(*filters)
        for n in range(3):
            await publish(nc, f"repo.{own_id}.task.{own_id}", json.dumps({"n": n}))
        assert [(await sse.next_event()).json()["n"] for _ in range(3)] == [0, 1, 2]
        assert [(await ws.event())["event"]["n"] for _ in range(3)] == [0, 1, 2]


async def test_several_filters_make_one_feed(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Filters of different roots are one feed: everything in the order of the stream."""
    subjects = [f"{root}.{own_id}.x" for root in ("user", "repo", "task", "ci", "project")]
    async with SseClient(gateway.url, *(f"{s.removesuffix('x')}>" for s in subjects)) as sse:
        await sse.ready()
        for subject in [*subjects, *subjects[::-1]]:
            await publish(nc, subject, json.dumps({"s": subject}))
        heard = [(await sse.next_event()).json()["s"] for _ in range(10)]
    assert heard == [*subjects, *subjects[::-1]]


async def test_two_feeds_on_one_websocket_each_get_the_event(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Two overlapping feeds of one WebSocket get an event once each, under their own names."""
    async with ws_client(gateway.ws_url) as ws:
        feeds = {await ws.subscribe(f"repo.{own_id}.>"), await ws.subscribe(f"repo.{own_id}.task.*")}
        await publish(nc, f"repo.{own_id}.task.x", "{}")
        ops = [await ws.event(), await ws.event()]
        await publish(nc, f"repo.{own_id}.end", "{}")
        last = await ws.event()
    assert len(feeds) == 2
    assert {op["feed"] for op in ops} == feeds
    assert ops[0]["cursor"] == ops[1]["cursor"]
    assert last["subject"] == f"repo.{own_id}.end"


async def test_ids_of_any_script_are_one_token(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A canonical encoded id in a filter selects exactly its subject; `%` travels as `%25`."""
    subject = f"repo.{own_id}/%C3%A9%2Ejs.doc.created"
    async with SseClient(gateway.url, f"repo.{own_id}/%C3%A9%2Ejs.>") as sse, ws_client(gateway.ws_url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}/%C3%A9%2Ejs.>")
        await publish(nc, subject, '{"n":1}')
        assert (await sse.next_event()).data == '{"n":1}'
        assert (await ws.event())["subject"] == subject


async def test_live_messages_with_a_senseless_sequence_are_dropped(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A message on `live.>` without the stream's headers, or with nonsense in them, reaches nobody."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for sequence in (None, "0", "-5", "many", "1.5", "", "٣"):
            named = {"Nats-Stream": "EVENTS", "Nats-Subject": f"repo.{own_id}.x", "Nats-Sequence": sequence or ""}
            await nc.publish(f"live.repo.{own_id}.x", b'{"forged":true}', headers=None if sequence is None else named)
            await publish(nc, f"repo.{own_id}.x", json.dumps({"after": sequence}))
            assert (await sse.next_event()).json() == {"after": sequence}


@pytest.mark.parametrize("sequence", [2**40, 2**64 - 1, int("9" * 30)])
async def test_live_messages_with_an_impossible_sequence_are_dropped(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str, sequence: int
) -> None:
    """A sequence far ahead of the stream is dropped and counted; the events that follow still arrive."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    headers = {"Nats-Stream": "EVENTS", "Nats-Subject": f"repo.{own_id}.x", "Nats-Sequence": str(sequence)}
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for n in range(3):
            await nc.publish(f"live.repo.{own_id}.x", b'{"forged":true}', headers=headers)
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await sse.next_event()).json() == {"n": n}
        metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_events_dropped_total") == 3


async def test_what_is_no_event_is_counted_whoever_wants_it(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Of subjects that no client follows, too, what is no event is counted and logged: a producer's mistake shows
    before somebody looks."""
    gateway = await start_gateway()
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for text in ("no json", "[1]", '{"a":' + "[" * 100_000 + "]" * 100_000 + "}"):
            await publish(nc, f"task.{own_id}.x", text)
        await publish(nc, f"repo.{own_id}.x", "{}")
        await sse.next_message()
    metrics = await asyncio.to_thread(gateway.metrics)
    assert {
        reason: metrics.total("natsgate_events_dropped_total", reason=reason)
        for reason in ("not_json", "not_object", "too_deep")
    } == {
        "not_json": 1,
        "not_object": 1,
        "too_deep": 1,
    }
    lines = gateway.logs("message_dropped")
    assert [line["reason"] for line in lines] == ["not_json", "not_object", "too_deep"]
    assert {line["subject"] for line in lines} == {f"task.{own_id}.x"}


async def test_live_messages_of_another_stream_are_dropped(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A message on `live.>` that names another stream is dropped."""
    headers = {"Nats-Stream": "OTHER", "Nats-Subject": f"repo.{own_id}.x", "Nats-Sequence": "1000000"}
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        await nc.publish(f"live.repo.{own_id}.x", b'{"forged":true}', headers=headers)
        await publish(nc, f"repo.{own_id}.x", '{"forged":false}')
        assert (await sse.next_event()).data == '{"forged":false}'
