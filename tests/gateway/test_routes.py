"""Routes from the configuration: parameters become ids, never wildcards; both transports and framings."""

from __future__ import annotations

import asyncio
import json

import pytest
from nats.aio.client import Client
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.conftest import ShareGateway
from tests.support.barrier import barrier
from tests.support.eventually import wait_until
from tests.support.gateway import Gateway, routes
from tests.support.producer import publish
from tests.support.raw_ws import BINARY, CLOSE, RawWebSocket, encode_frame, encode_text
from tests.support.sse import SseClient
from tests.support.ws import ws_client

CONFIG = routes(
    [
        'name = "repo-events"',
        'path = "/api/repositories/{repo_id}/events"',
        'transports = ["sse"]',
        'subjects = ["repo.{repo_id}.>"]',
    ],
    [
        'name = "board"',
        'path = "/board/{project_id}/of/{user}"',
        'transports = ["sse", "ws"]',
        'subjects = ["project.{project_id}.>", "user.{user}.notification"]',
    ],
    [
        'name = "board-raw"',
        'path = "/boards/{project_id}"',
        'transports = ["ws"]',
        'subjects = ["project.{project_id}.>"]',
        'framing = "raw"',
        'publish = "inbox.project.{project_id}.{type}"',
    ],
    [
        'name = "everything"',
        'path = "/everything"',
        'transports = ["ws"]',
        'subjects = ["project.>"]',
        'framing = "raw"',
    ],
)


@pytest.fixture(scope="module")
def routed(share_gateway: ShareGateway) -> Gateway:
    """One gateway with the routes above for all tests of this module."""
    return share_gateway({}, CONFIG)


async def test_a_route_is_a_feed_of_its_subjects(routed: Gateway, nc: Client, own_id: str) -> None:
    """`/api/repositories/{repo_id}/events` streams that repository and no other."""
    async with SseClient(routed.url, target=f"/api/repositories/{own_id}/events") as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}x.task.progress", '{"n":0}')
        await publish(nc, f"repo.{own_id}.task.progress", '{"n":1}')
        assert (await sse.next_event()).data == '{"n":1}'


async def test_a_route_takes_the_query_of_events(routed: Gateway, nc: Client, own_id: str) -> None:
    """`named=true` works on a route too."""
    async with SseClient(routed.url, target=f"/api/repositories/{own_id}/events?named=true") as sse:
        await sse.ready()
        await publish(nc, f"repo.{own_id}.x", '{"type":"doc.created"}')
        assert (await sse.next_event()).type == "doc.created"


async def test_a_route_can_not_be_widened_by_its_query(routed: Gateway, nc: Client, own_id: str) -> None:
    """`subject=` on a route adds nothing: it is refused or ignored."""
    async with SseClient(
        routed.url, target=f"/api/repositories/{own_id}/events?subject=repo.{own_id}-other.%3E"
    ) as sse:
        if sse.status == 200:
            await sse.ready()
            await publish(nc, f"repo.{own_id}-other.x", '{"n":0}')
            await publish(nc, f"repo.{own_id}.x", '{"n":1}')
            assert (await sse.next_event()).data == '{"n":1}'
        else:
            assert sse.status == 400


async def test_several_parameters_and_both_transports(routed: Gateway, nc: Client, own_id: str) -> None:
    """A route with two parameters serves SSE and WebSocket clients alike."""
    path = f"/board/{own_id}/of/alice-{own_id}"
    feed = f"project.{own_id}.>,user.alice-{own_id}.notification"
    async with SseClient(routed.url, target=path) as sse, ws_client(routed.ws_url, path) as ws:
        await sse.ready()
        ready = await ws.next_op("ready")
        assert ready["feed"] == feed
        await publish(nc, f"user.alice-{own_id}.other", '{"n":0}')
        await publish(nc, f"project.{own_id}.task_created", '{"n":1}')
        await publish(nc, f"user.alice-{own_id}.notification", '{"n":2}')
        assert [(await sse.next_event()).data for _ in range(2)] == ['{"n":1}', '{"n":2}']
        ops = [await ws.event() for _ in range(2)]
    assert [(op["feed"], op["event"]["n"]) for op in ops] == [(feed, 1), (feed, 2)]


SEGMENTS = {
    "a slash and a dot": ("{id}%2Frepo.js", "{id}/repo%2Ejs"),
    "a dot": ("{id}.b", "{id}%2Eb"),
    "an encoded dot": ("{id}%2Eb", "{id}%2Eb"),
    "a star": ("*", "%2A"),
    "an encoded star": ("%2A", "%2A"),
    "an encoded star in small letters": ("%2a", "%2A"),
    "a star encoded twice": ("%252A", "%252A"),
    "everything": (">", "%3E"),
    "everything, encoded": ("%3E", "%3E"),
    "a star inside": ("{id}*", "{id}%2A"),
    "a tail": ("{id}.%3E", "{id}%2E%3E"),
    "a space": ("{id}%20b", "{id}%20b"),
    "a plus is a plus": ("{id}+b", "{id}+b"),
    "a line break": ("{id}%0D%0Ab", "{id}%0D%0Ab"),
    "a NUL": ("{id}%00", "{id}%00"),
    "a percent sign": ("{id}%25", "{id}%25"),
    "non-ASCII": ("{id}%E4%BB%BB", "{id}%E4%BB%BB"),
    "an encoded letter": ("{id}%41", "{id}A"),
    "two dots": ("..{id}", "%2E%2E{id}"),
    "an encoded slash to another route": ("{id}%2F..%2Fx", "{id}/%2E%2E/x"),
    "braces": ("%7Brepo_id%7D", "%7Brepo_id%7D"),
}


@pytest.mark.parametrize(("segment", "token"), SEGMENTS.values(), ids=SEGMENTS.keys())
async def test_a_parameter_is_an_id_and_never_a_wildcard(
    routed: Gateway, nc: Client, own_id: str, segment: str, token: str
) -> None:
    """The raw segment, decoded once and encoded as an id, is the one subject token that is heard."""
    segment, token = segment.replace("{id}", own_id), token.replace("{id}", own_id)
    async with SseClient(routed.url, target=f"/api/repositories/{segment}/events") as sse:
        assert sse.status == 200, sse.body
        await sse.ready()
        for other in (own_id, f"{own_id}.b", "other"):
            await publish(nc, f"repo.{other}.x", '{"heard":false}')
        await publish(nc, f"repo.{token}.x", json.dumps({"heard": own_id}))
        assert (await sse.next_event()).json() == {"heard": own_id}


@pytest.mark.parametrize("segment", ["", "%", "%2", "%GG", "%FF", "%ED%A0%80", "a/b"])
async def test_paths_that_are_no_id_are_refused(routed: Gateway, segment: str) -> None:
    """Empty or undecodable parameters and too many segments: 400 or 404, as a problem."""
    async with SseClient(routed.url, target=f"/api/repositories/{segment}/events") as sse:
        assert sse.status in (400, 404)
        sse.reply.problem()


async def test_a_trailing_slash_is_another_path(routed: Gateway, own_id: str) -> None:
    """Routes match segment by segment: one more, even empty, does not match."""
    async with SseClient(routed.url, target=f"/api/repositories/{own_id}/events/") as sse:
        assert sse.status == 404


async def test_an_sse_route_does_not_speak_websocket(routed: Gateway, own_id: str) -> None:
    """A WebSocket handshake on an SSE-only route is refused, by status or by 4404."""
    async with RawWebSocket(routed.url, f"/api/repositories/{own_id}/events") as ws:
        if ws.status == 101:
            assert (await ws.close_frame()).close_code == 4404
        else:
            assert ws.status in (400, 404)


async def test_a_websocket_route_does_not_stream(routed: Gateway, own_id: str) -> None:
    """A plain GET on a WebSocket-only route is refused by a problem."""
    async with SseClient(routed.url, target=f"/boards/{own_id}") as sse:
        assert sse.status in (400, 404, 426)
        sse.reply.problem()


async def test_raw_framing_sends_the_event_as_it_is(routed: Gateway, nc: Client, own_id: str) -> None:
    """On a raw route every message is the event's JSON, byte for byte, and nothing else comes."""
    texts = [
        '{"type":"task_created", "project_id":1.0,"data":{"z":1,"a":1208925819614629174706176}}',
        '{"type":"log","data":"\\ud800"}',
        "{}",
    ]
    async with connect(f"{routed.ws_url}/boards/{own_id}", proxy=None) as page:
        assert page.subprotocol is None
        await asyncio.to_thread(wait_for_feed, routed)
        for text in texts:
            await publish(nc, f"project.{own_id}.task_created", text)
        assert [await page.recv() for _ in texts] == texts


def wait_for_feed(gateway: Gateway) -> None:
    """A raw client gets no sign of being ready: the gateway's own count of feeds tells."""
    wait_until(lambda: gateway.metrics().total("natsgate_feeds") == 1, "one feed")


async def test_raw_control_frames_come_only_when_asked_for(routed: Gateway, nc: Client, own_id: str) -> None:
    """With `control=true` a `{"natsgate":"ready",…}` frame tells the cursor; events stay as they are."""
    async with RawWebSocket(routed.url, f"/boards/{own_id}?control=true", subprotocol="natsgate.raw.v1") as ws:
        assert ws.headers["sec-websocket-protocol"] == "natsgate.raw.v1"
        ready = (await ws.next_text()).json()
        assert ready["natsgate"] == "ready"
        assert ready["cursor"]
        await publish(nc, f"project.{own_id}.x", '{"n":1}')
        assert (await ws.next_text()).payload == b'{"n":1}'


async def test_raw_and_enveloped_clients_share_events(routed: Gateway, nc: Client, own_id: str) -> None:
    """The same event reaches raw, enveloped and SSE clients of different routes."""
    text = '{"type": "task_updated", "project_id": "p", "data": {}, "timestamp": "now"}'
    async with (
        RawWebSocket(routed.url, f"/boards/{own_id}?control=true", subprotocol=None) as raw,
        RawWebSocket(routed.url, "/everything?control=true", subprotocol=None) as everything,
        ws_client(routed.ws_url, f"/board/{own_id}/of/x") as enveloped,
        SseClient(routed.url, f"project.{own_id}.>") as sse,
    ):
        await raw.next_text()
        await everything.next_text()
        await enveloped.next_op("ready")
        await sse.ready()
        await publish(nc, f"project.{own_id}.task_updated", text)
        assert (await raw.next_text()).payload.decode() == text
        assert (await everything.next_text()).payload.decode() == text
        assert (await enveloped.event())["event"] == json.loads(text)
        assert (await sse.next_event()).data == text


async def test_what_a_raw_client_sends_arrives_on_nats(routed: Gateway, nc: Client, own_id: str) -> None:
    """A raw client's message goes, as it is, to the route's `publish` subject, its type encoded as an id."""
    inbox = await nc.subscribe(f"inbox.project.{own_id}.>")
    await barrier(nc)
    messages = {
        "task_move": '{"type":"task_move",  "data":{"id":1208925819614629174706176,"to":1.0}}',
        "agent%3E%2E%2A": '{"type":"agent>.*","data":{}}',
    }
    async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as ws:
        for kind, text in messages.items():
            await ws.send(encode_text(text))
            message = await inbox.next_msg(timeout=10)
            assert message.subject == f"inbox.project.{own_id}.{kind}"
            assert json.loads(message.data)["type"] == json.loads(text)["type"]
            assert text.encode() in message.data


async def test_what_a_raw_client_sends_keeps_its_order(routed: Gateway, nc: Client, own_id: str) -> None:
    """A burst of messages from one client is in the stream in the order in which it was sent."""
    inbox = await nc.subscribe(f"inbox.project.{own_id}.>")
    await barrier(nc)
    async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as ws:
        await ws.send(*(encode_text(json.dumps({"type": "move", "n": n})) for n in range(15)))
        numbers = [json.loads((await inbox.next_msg(timeout=10)).data)["n"] for _ in range(15)]
    assert numbers == list(range(15))


async def test_what_a_raw_client_sends_before_it_closes_is_stored(routed: Gateway, nc: Client, own_id: str) -> None:
    """A page that sends much and closes at once loses none of it, and order holds."""
    inbox = await nc.subscribe(f"inbox.project.{own_id}.>")
    await barrier(nc)
    async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as ws:
        frames = [encode_text(json.dumps({"type": "move", "n": n})) for n in range(200)]
        await ws.send(*frames, encode_frame(CLOSE, b"\x03\xe8"))
        numbers = [json.loads((await inbox.next_msg(timeout=10)).data)["n"] for _ in range(200)]
    assert numbers == list(range(200))


async def test_what_a_raw_client_sent_is_stored(routed: Gateway, nc: Client, own_id: str) -> None:
    """The message is in the stream, so a service that was away finds it later."""
    async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as ws:
        await ws.send(encode_text('{"type":"task_move"}'))
        inbox = await nc.jetstream().subscribe(f"inbox.project.{own_id}.>", ordered_consumer=True)
        message = await inbox.next_msg(timeout=10)
        assert message.subject == f"inbox.project.{own_id}.task_move"
        await inbox.unsubscribe()


@pytest.mark.parametrize("text", ["no json", "[1]", '{"data":{}}', '{"type":7}', '{"type":""}'])
async def test_a_raw_message_without_its_type_goes_nowhere(routed: Gateway, nc: Client, own_id: str, text: str) -> None:
    """A message that can not fill the subject is not published, and the gateway goes on."""
    inbox = await nc.subscribe(f"inbox.project.{own_id}.>")
    await barrier(nc)
    async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as bad:
        await bad.send(encode_text(text))
        async with RawWebSocket(routed.url, f"/boards/{own_id}", subprotocol=None) as good:
            await good.send(encode_text('{"type":"fine"}'))
            message = await inbox.next_msg(timeout=10)
    assert message.subject == f"inbox.project.{own_id}.fine"


async def test_a_raw_route_without_publish_takes_nothing(routed: Gateway, nc: Client, own_id: str) -> None:
    """Without `publish` what a client sends is ignored or refused; events still flow to others."""
    async with (
        RawWebSocket(routed.url, "/everything?control=true", subprotocol=None) as sender,
        RawWebSocket(routed.url, "/everything?control=true", subprotocol=None) as other,
    ):
        await sender.next_text()
        await other.next_text()
        await sender.send(encode_text('{"type":"x"}'), encode_frame(BINARY, b"\0"))
        await publish(nc, f"project.{own_id}.x", json.dumps({"n": own_id}))
        assert (await other.next_text()).json() == {"n": own_id}


async def test_the_raw_subprotocol_is_not_for_enveloped_routes(routed: Gateway, own_id: str) -> None:
    """Each route answers with the subprotocol of its own framing or none."""
    async with connect(
        f"{routed.ws_url}/board/{own_id}/of/x",
        subprotocols=[Subprotocol("natsgate.raw.v1"), Subprotocol("natsgate.v1")],
        proxy=None,
    ) as page:
        assert page.subprotocol == "natsgate.v1"


async def test_metrics_name_the_route(routed: Gateway, own_id: str) -> None:
    """Connections are counted under their route's name."""
    async with SseClient(routed.url, target=f"/api/repositories/{own_id}/events") as sse:
        await sse.ready()
        metrics = await asyncio.to_thread(routed.metrics)
    assert metrics.total("natsgate_connections", transport="sse", route="repo-events") == 1
