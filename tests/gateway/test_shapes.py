"""Nothing of an event's text changes, and what is no event harms nobody."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket
from tests.support.shapes import FOREIGN, NO_EVENTS
from tests.support.sse import SseClient


@pytest.mark.parametrize("text", FOREIGN.values(), ids=FOREIGN.keys())
async def test_foreign_shapes_pass_byte_for_byte(gateway: Gateway, nc: Client, own_id: str, text: str) -> None:
    """Key order, spaces, big integers, floats and escapes of any JSON object arrive as they left."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", text)
        assert (await sse.next_event()).data == text
        frame = await ws.next_text()
        assert frame.json()["op"] == "event"
        assert text.encode() in frame.payload


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"type": "a", "payload": {"list": [1, 2, {}], "text": "x"}}, indent=2),
        json.dumps({"type": "a", "payload": [1]}, indent="\t").replace("\n", "\r\n"),
        '{\r"a":1,\r"b":2\r}',
        '{\n\n"a":\r\n\r\n1}',
        '\n{"a":1}\n',
        '\r\n  {"a":1}  \r\n\r\n',
    ],
)
async def test_pretty_printed_events_become_one_line(gateway: Gateway, nc: Client, own_id: str, text: str) -> None:
    """CR and LF between tokens become spaces, so the event is one `data:` line; nothing else changes."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", text)
        event = await sse.next_event()
        frame = await ws.next_text()
    flat = text.replace("\r", " ").replace("\n", " ")
    assert event.data.strip() == flat.strip()
    assert f"data: {event.data}\n\n".encode() in sse.raw
    assert flat.strip().encode() in frame.payload
    assert frame.json()["event"] == json.loads(text)


async def test_what_is_no_event_is_dropped_counted_and_forgotten(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Messages that are no JSON object in UTF-8 reach nobody; the same clients get what follows."""
    before = (await asyncio.to_thread(gateway.metrics)).total("natsgate_events_dropped_total")
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        for n, message in enumerate(NO_EVENTS.values()):
            await publish(nc, f"repo.{own_id}.x", message)
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
        for (name, _), n in zip(NO_EVENTS.items(), range(len(NO_EVENTS)), strict=True):
            assert (await sse.next_event()).data == json.dumps({"n": n}), f"after {name}"
            assert (await ws.next_op("event"))["event"] == {"n": n}, f"after {name}"
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_events_dropped_total") - before == len(NO_EVENTS)
    dropped = [s for s in metrics.samples if s.name == "natsgate_events_dropped_total"]
    assert {label for sample in dropped for label in sample.labels} == {"reason"}


async def test_events_up_to_max_event_bytes_pass_and_larger_ones_are_dropped(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Exactly `MAX_EVENT_BYTES` passes; one byte more is dropped and counted."""
    gateway = await start_gateway(MAX_EVENT_BYTES=2048)
    fitting = '{"a":"' + "x" * (2048 - 8) + '"}'
    assert len(fitting) == 2048
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        for text in (fitting + " ", fitting, fitting.replace("x", "xx", 1), '{"last":1}'):
            await publish(nc, f"repo.{own_id}.x", text)
        assert [(await sse.next_event()).data for _ in range(2)] == [fitting, '{"last":1}']
        assert [(await ws.next_op("event"))["event"] for _ in range(2)] == [json.loads(fitting), {"last": 1}]
        metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_events_dropped_total") == 2


async def test_dropped_messages_are_logged_but_not_one_by_one(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """Five hundred bad messages leave a few log lines, not five hundred."""
    gateway = await start_gateway()
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        before = len(gateway.logs())
        for _ in range(500):
            await nc.publish(f"repo.{own_id}.x", b"no json")
        await publish(nc, f"repo.{own_id}.x", "{}")
        await sse.next_event()
    written = len(gateway.logs()) - before
    assert 1 <= written < 50


async def test_a_message_with_headers_and_reply_is_an_event_too(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Producers may set NATS headers, even odd ones; clients see only the JSON."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        headers = {"Nats-Msg-Id": own_id, "X-Odd": "a: b; c=ü", "traceparent": "00-ab-cd-01"}
        await nc.jetstream().publish(f"repo.{own_id}.x", b'{"n":1}', headers=headers)
        assert (await sse.next_event()).data == '{"n":1}'


async def test_a_producer_can_not_forge_the_sequence_by_headers(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A producer's own `Nats-Sequence` or `Nats-Subject` headers change neither cursor nor subject."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.subscribe(f"repo.{own_id}.>")
        headers = {"Nats-Sequence": "999999999", "Nats-Subject": "repo.forged.x", "Nats-Stream": "FORGED"}
        ack = await nc.jetstream().publish(f"repo.{own_id}.x", b"{}", headers=headers)
        op = await ws.next_op("event")
        assert op["subject"] == f"repo.{own_id}.x"
        assert int(op["cursor"].rpartition("-")[2]) == ack.seq
        await publish(nc, f"repo.{own_id}.y", "{}")
        assert (await ws.next_op("event"))["subject"] == f"repo.{own_id}.y"


async def test_subjects_outside_the_grammar_harm_nobody(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Odd subjects that NATS stores all the same are delivered or dropped; the flow goes on."""
    odd = ["repo", f"repo.{own_id}", f"repo.{own_id}.ü", f"repo.{own_id}.%zz", f'repo.{own_id}."quoted\\"']
    async with SseClient(gateway.url, "repo.>") as sse, RawWebSocket(gateway.url) as ws:
        await sse.ready()
        await ws.subscribe("repo.>")
        for subject in odd:
            await nc.publish(subject, json.dumps({"odd": own_id}).encode())
        await publish(nc, f"repo.{own_id}.x", json.dumps({"last": own_id}))
        while (await sse.next_event()).json() != {"last": own_id}:
            pass
        while (await ws.next_op("event"))["event"] != {"last": own_id}:
            pass
