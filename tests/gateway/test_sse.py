"""The SSE stream: its head, its first bytes, its names, its silence."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.metrics import Metrics
from tests.support.producer import publish
from tests.support.sse import SseClient


async def test_headers_are_those_of_the_contract(gateway: Gateway, own_id: str) -> None:
    """200, HTTP/1.1 chunked, no caching, no transforming, no buffering in nginx."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        assert sse.status == 200
        assert sse.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert sse.headers["cache-control"] == "no-store, no-transform"
        assert sse.headers["x-accel-buffering"] == "no"
        assert sse.headers["transfer-encoding"] == "chunked"
        assert "content-length" not in sse.headers
        await sse.ready()


async def test_retry_leaves_at_once_and_differs_per_connection(gateway: Gateway, own_id: str) -> None:
    """The first bytes are `retry:` with a sensible time, random per connection."""
    retries = set()
    for _ in range(6):
        async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
            await sse.ready()
            _, _, body = sse.raw.partition(b"\r\n\r\n")
            assert body.partition(b"\r\n")[2].startswith(b"retry:"), "before anything else"
            assert sse.retry_ms is not None
            assert 100 <= sse.retry_ms <= 60_000
            retries.add(sse.retry_ms)
    assert len(retries) > 1


async def test_ready_has_its_fields_and_an_id(gateway: Gateway, own_id: str) -> None:
    """`natsgate.ready` says cursor, replayed, snapshot, replica, connection; its id is the cursor."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as one, SseClient(gateway.url, "user.x.>") as two:
        first, second = await one.ready(), await two.ready()
    data = first.json()
    assert data.keys() == {"cursor", "replayed", "snapshot", "replica", "connection"}
    assert data["cursor"] == first.id
    assert data["replayed"] == 0
    assert data["snapshot"] == 0
    assert isinstance(data["replica"], str)
    assert data["replica"]
    assert data["connection"] != second.json()["connection"]
    assert data["replica"] == second.json()["replica"]


async def test_replica_is_the_configured_name(start_gateway: StartGateway, own_id: str) -> None:
    """`REPLICA` is the name that `natsgate.ready` gives."""
    gateway = await start_gateway(REPLICA="blue-7")
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        assert (await sse.ready()).json()["replica"] == "blue-7"


async def test_silence_is_filled_with_comments(start_gateway: StartGateway, own_id: str) -> None:
    """After `HEARTBEAT_S` of silence a comment comes, and again."""
    gateway = await start_gateway(HEARTBEAT_S=0.3)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for _ in range(3):
            await sse.next_comment()


async def test_heartbeats_do_not_disturb_events(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Events between heartbeats arrive whole and in order."""
    gateway = await start_gateway(HEARTBEAT_S=0.2)
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        for n in range(3):
            await sse.next_comment()
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await sse.next_event()).json() == {"n": n}


async def test_a_busy_stream_needs_no_heartbeat(gateway: Gateway, nc: Client, own_id: str) -> None:
    """With the default of 15 s no comment comes between prompt events."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        before = len(sse.comments)
        for _ in range(5):
            await publish(nc, f"repo.{own_id}.x", "{}")
            await sse.next_event()
        assert len(sse.comments) == before


async def test_events_are_unnamed_by_default(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Without `named=true` an event has no `event:` line, so `onmessage` gets it."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.task.progress", '{"type":"task.progress"}')
        assert (await sse.next_event()).type == "message"


@pytest.mark.parametrize("kind", ["task.progress", "agent:complete", "任务", "Open", "x" * 100, " a b "])
async def test_named_events_carry_their_type(gateway: Gateway, nc: Client, own_id: str, kind: str) -> None:
    """With `named=true` the envelope's `type` becomes the event's name, as it is."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "true"}) as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", json.dumps({"type": kind}, ensure_ascii=False))
        assert (await sse.next_event()).type == kind


@pytest.mark.parametrize(
    "text",
    [
        '{"type":"natsgate.ready"}',
        '{"type":"natsgate."}',
        '{"type":"open"}',
        '{"type":"error"}',
        '{"type":"message"}',
        '{"type":"a\\nid: 7"}',
        '{"type":"a\\rb"}',
        '{"type":"a\\u0000b"}',
        '{"type":"a\\u007fb"}',
        '{"type":"a\\u0085b"}',
        '{"type":"\\ud800"}',
    ],
)
async def test_types_that_could_deceive_stay_unnamed(gateway: Gateway, nc: Client, own_id: str, text: str) -> None:
    """Types that begin with `natsgate.`, are EventSource's own, or hold controls: unnamed."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "true"}) as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", text)
        event = await sse.next_event()
    assert (event.type, event.data) == ("message", text)


@pytest.mark.parametrize(
    "text",
    ["{}", '{"type":""}', '{"type":7}', '{"type":null}', '{"type":["a"]}', '{"payload":{"type":"inner"}}'],
)
async def test_events_without_a_type_get_no_other_name_than_their_subject(
    gateway: Gateway, nc: Client, own_id: str, text: str
) -> None:
    """Where the envelope has no `type` that is a text, the event is called by its subject's tail."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "true"}) as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.task.progress", text)
        event = await sse.next_event()
    assert event.type == "task.progress"
    assert event.data == text


@pytest.mark.parametrize("tail", ["natsgate.ready", "message", "open", "error"])
async def test_subjects_that_could_deceive_stay_unnamed(gateway: Gateway, nc: Client, own_id: str, tail: str) -> None:
    """The exceptions hold for names that come from the subject too."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "true"}) as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.{tail}", "{}")
        assert (await sse.next_event()).type == "message"


async def test_named_and_unnamed_clients_live_side_by_side(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The same event reaches a naming and an unnaming client of the same filter, each in its way."""
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "true"}) as named,
        SseClient(gateway.url, f"repo.{own_id}.>", query={"named": "false"}) as unnamed,
    ):
        await named.ready()
        await unnamed.ready()
        await publish(nc, f"repo.{own_id}.x", '{"type":"doc.created"}')
        one, other = await named.next_event(), await unnamed.next_event()
    assert (one.type, other.type) == ("doc.created", "message")
    assert (one.data, one.id) == (other.data, other.id)


async def test_an_event_is_one_id_line_and_one_data_line(gateway: Gateway, nc: Client, own_id: str) -> None:
    """On the wire an event is `id: <cursor>`, `data: <json>`, an empty line; nothing else."""
    async with SseClient(gateway.url, f"repo.{own_id}.>") as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        event = await sse.next_event()
        assert f'id: {event.id}\ndata: {{"n":1}}\n\n'.encode() in sse.raw


async def test_a_client_that_leaves_is_forgotten(start_gateway: StartGateway, own_id: str) -> None:
    """Orderly closes and resets both bring `natsgate_connections` and `natsgate_feeds` back to 0."""
    gateway = await start_gateway()
    for _ in range(2):
        async with SseClient(gateway.url, f"repo.{own_id}.>") as leaving:
            await leaving.ready()
        vanishing = SseClient(gateway.url, f"task.{own_id}.>")
        await vanishing.open()
        await vanishing.ready()
        vanishing.tcp.abort()

    async def all_gone() -> Metrics | None:
        metrics = await asyncio.to_thread(gateway.metrics)
        left = metrics.total("natsgate_connections") + metrics.total("natsgate_feeds")
        return None if left else metrics

    metrics = await eventually(all_gone, "connections and feeds are 0")
    assert metrics.total("natsgate_connections_opened_total", transport="sse") == 4
    assert metrics.by("natsgate_connections_closed_total", "reason").get("client_closed") == 4


async def test_a_client_that_talks_into_its_stream_harms_nobody(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Bytes sent after the request change nothing for other clients."""
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>") as chatty,
        SseClient(gateway.url, f"repo.{own_id}.>") as calm,
    ):
        await chatty.ready()
        await calm.ready()
        await chatty.tcp.send(b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\nnonsense\x00\xff\r\n")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        assert (await calm.next_event()).data == '{"n":1}'


@pytest.mark.parametrize(
    ("query", "named"), [("named=maybe", "named"), ("named=true&named=false", "named"), ("subject", "filter")]
)
async def test_senseless_queries_are_refused(gateway: Gateway, own_id: str, query: str, named: str) -> None:
    """A value that means nothing, two of them, or none at all: 400, and what it is about."""
    async with SseClient(gateway.url, target=f"/events?subject=repo.{own_id}.x&{query}") as sse:
        assert sse.status == 400
        assert named in sse.reply.problem()["detail"]


async def test_queries_of_others_are_passed_over(gateway: Gateway, own_id: str) -> None:
    """A parameter that natsgate does not know may be a proxy's or a tracker's: it changes nothing."""
    async with SseClient(gateway.url, target=f"/events?subject=repo.{own_id}.x&utm_source=mail") as sse:
        await sse.ready()
