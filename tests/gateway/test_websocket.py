"""The natsgate.v1 ops: what is asked, what is answered, what stays open."""

from __future__ import annotations

import json

import pytest
from nats.aio.client import Client
from websockets.asyncio.client import connect

from tests.conftest import StartGateway
from tests.support.gateway import Gateway
from tests.support.producer import publish
from tests.support.raw_ws import BINARY, RawWebSocket, encode_frame, encode_op, encode_text
from tests.support.ws import ws_client


async def test_the_subprotocol_is_chosen(gateway: Gateway) -> None:
    """Out of several offers the server picks `natsgate.v1`."""
    async with ws_client(gateway.ws_url, subprotocols=["other", "natsgate.v1", "natsgate.v9"]) as ws:
        assert ws.connection.subprotocol == "natsgate.v1"


async def test_tokens_in_subprotocols_are_never_echoed(gateway: Gateway) -> None:
    """`natsgate.bearer.…` beside the subprotocol is not chosen."""
    async with ws_client(gateway.ws_url, subprotocols=["natsgate.bearer.a.b.c", "natsgate.v1"]) as ws:
        assert ws.connection.subprotocol == "natsgate.v1"


async def test_hello_comes_first(gateway: Gateway) -> None:
    """The first frame is `hello` with connection, replica and whether one is authenticated."""
    async with ws_client(gateway.ws_url) as one, ws_client(gateway.ws_url) as two:
        assert one.hello.keys() == {"op", "connection", "replica", "authenticated"}
        assert isinstance(one.hello["authenticated"], bool)
        assert one.hello["connection"] != two.hello["connection"]
        assert one.hello["replica"] == two.hello["replica"]


async def test_subscribed_comes_at_once_then_ready(gateway: Gateway, own_id: str) -> None:
    """`subscribe` is answered by `subscribed`, then `ready`, each with exactly its fields."""
    async with ws_client(gateway.ws_url) as ws:
        await ws.send(op="subscribe", ref=1, subject=f"repo.{own_id}.>")
        assert await ws.next() == {"op": "subscribed", "ref": 1, "feed": f"repo.{own_id}.>"}
        ready = await ws.next()
        assert ready.keys() == {"op", "feed", "cursor", "replayed", "snapshot"}
        assert (ready["op"], ready["feed"]) == ("ready", f"repo.{own_id}.>")
        assert ready["replayed"] == 0
        assert ready["snapshot"] == 0
        assert ready["cursor"]


async def test_a_feed_is_named_by_its_sorted_filters(gateway: Gateway, own_id: str) -> None:
    """A feed's name is its filters, sorted, joined by commas."""
    async with ws_client(gateway.ws_url) as ws:
        feed = await ws.subscribe(f"user.{own_id}.>", f"ci.{own_id}.>", f"repo.{own_id}.*")
    assert feed == f"ci.{own_id}.>,repo.{own_id}.*,user.{own_id}.>"


async def test_the_same_feed_twice_is_an_error(gateway: Gateway, own_id: str) -> None:
    """The same filters, in whatever order, are `already_subscribed`; the feed goes on."""
    async with ws_client(gateway.ws_url) as ws:
        await ws.subscribe(f"repo.{own_id}.>", f"ci.{own_id}.>")
        error = await ws.request(op="subscribe", ref="x", subjects=[f"ci.{own_id}.>", f"repo.{own_id}.>"])
        assert (error["op"], error["code"]) == ("error", "already_subscribed")
        assert error.keys() == {"op", "ref", "code", "message"}
        assert await ws.request(op="ping", ref=0) == {"op": "pong", "ref": 0}


async def test_unsubscribe_ends_a_feed_for_good(gateway: Gateway, nc: Client, own_id: str) -> None:
    """After `unsubscribed` no event of that feed comes; others go on."""
    async with ws_client(gateway.ws_url) as ws:
        gone = await ws.subscribe(f"repo.{own_id}.>")
        kept = await ws.subscribe(f"task.{own_id}.>")
        await publish(nc, f"repo.{own_id}.before", "{}")
        assert (await ws.event())["feed"] == gone
        assert await ws.request(op="unsubscribe", ref=9, feed=gone) == {
            "op": "unsubscribed",
            "ref": 9,
            "feed": gone,
        }
        await publish(nc, f"repo.{own_id}.after", "{}")
        await publish(nc, f"task.{own_id}.after", "{}")
        assert (await ws.event())["feed"] == kept


async def test_a_feed_can_be_taken_up_again(gateway: Gateway, nc: Client, own_id: str) -> None:
    """After `unsubscribe` the same filters can be subscribed anew."""
    async with ws_client(gateway.ws_url) as ws:
        for n in range(3):
            feed = await ws.subscribe(f"repo.{own_id}.>")
            await publish(nc, f"repo.{own_id}.x", json.dumps({"n": n}))
            assert (await ws.event())["event"] == {"n": n}
            await ws.request(op="unsubscribe", ref=n, feed=feed)


@pytest.mark.parametrize("ref", [1, 0, -7, "text", "ü", 2**53, None, 1.5])
async def test_a_ref_comes_back_as_it_went(gateway: Gateway, ref: object) -> None:
    """Whatever number or text the `ref` is, the answer carries the same."""
    async with ws_client(gateway.ws_url) as ws:
        answer = await ws.request(op="ping", ref=ref)
        assert answer["op"] == "pong"
        assert type(answer["ref"]) is type(ref)


@pytest.mark.parametrize("ref", ["123456789012345678901234567890", "-0", "1.50", "1E2", r'"\u00e9\/"'])
async def test_a_ref_is_the_same_text(gateway: Gateway, ref: str) -> None:
    """The answer has the `ref` letter for letter: a number beyond 2^53 is no other one when it is back."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.next_op("hello")
        await ws.send(encode_text(f'{{"op":"ping","ref": {ref} }}'))
        assert (await ws.next_text()).payload.decode() == f'{{"op":"pong","ref":{ref}}}'


async def test_a_ref_may_be_left_out(gateway: Gateway) -> None:
    """A ping without `ref` is answered all the same."""
    async with ws_client(gateway.ws_url) as ws:
        await ws.send(op="ping")
        pong = await ws.next()
        assert pong["op"] == "pong"
        assert pong.get("ref") is None


FOOLISH = {
    "an unknown op": {"op": "dance", "ref": 1},
    "no op": {"ref": 1},
    "an op that is no text": {"op": 7, "ref": 1},
    "subscribe to nothing": {"op": "subscribe", "ref": 1},
    "subscribe to a number": {"op": "subscribe", "ref": 1, "subject": 42},
    "subscribe to null": {"op": "subscribe", "ref": 1, "subject": None},
    "no filters": {"op": "subscribe", "ref": 1, "subjects": []},
    "filters that are no list": {"op": "subscribe", "ref": 1, "subjects": "repo.1.>"},
    "filters of numbers": {"op": "subscribe", "ref": 1, "subjects": [1, 2]},
    "nested filters": {"op": "subscribe", "ref": 1, "subjects": [["repo.1.>"]]},
    "unsubscribe from nothing": {"op": "unsubscribe", "ref": 1},
    "unsubscribe from the unknown": {"op": "unsubscribe", "ref": 1, "feed": "repo.1.>"},
    "unsubscribe from a list": {"op": "unsubscribe", "ref": 1, "feed": ["repo.1.>"]},
    "an op of the server": {"op": "event", "ref": 1},
}


@pytest.mark.parametrize("op", FOOLISH.values(), ids=FOOLISH.keys())
async def test_foolish_ops_are_errors_that_leave_the_connection_open(gateway: Gateway, op: dict[str, object]) -> None:
    """What makes no sense is an error with its `ref`, code and message; the connection goes on."""
    async with ws_client(gateway.ws_url) as ws:
        error = await ws.request(**op)
        assert error.keys() == {"op", "ref", "code", "message"}
        assert error["op"] == "error"
        assert isinstance(error["code"], str)
        assert isinstance(error["message"], str)
        assert await ws.request(op="ping", ref=2) == {"op": "pong", "ref": 2}


@pytest.mark.parametrize(
    "text", ["", "{", "hello", '"subscribe"', "[1]", "null", '{"op":"ping","ref":NaN}', "[" * 5000]
)
async def test_malformed_json_is_an_error_and_no_close(gateway: Gateway, text: str) -> None:
    """Text that is no JSON object is an error op; the connection goes on."""
    async with ws_client(gateway.ws_url) as ws:
        await ws.connection.send(text)
        assert (await ws.next())["op"] == "error"
        assert await ws.request(op="ping", ref=2) == {"op": "pong", "ref": 2}


async def test_binary_messages_are_an_error_and_no_close(gateway: Gateway) -> None:
    """A binary message is answered by an error op, the connection open, as only text is spoken here."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_frame(BINARY, b'{"op":"ping","ref":1}'))
        assert (await ws.next_op("error"))["code"]
        await ws.ping_op()


async def test_too_many_errors_close_the_connection(start_gateway: StartGateway) -> None:
    """Up to `WS_MAX_ERRORS` errors are forgiven; then the close is 1008, policy."""
    gateway = await start_gateway(WS_MAX_ERRORS=3)
    async with ws_client(gateway.ws_url) as ws:
        for n in range(2):
            await ws.send(op="nonsense", ref=n)
            assert (await ws.next_op("error"))["ref"] == n
        assert await ws.request(op="ping", ref="still") == {"op": "pong", "ref": "still"}
        for n in range(2):
            await ws.send(op="nonsense", ref=n)
        close, ops = await ws.closed()
    assert close is not None
    assert close.code == 1008
    assert "policy" in close.reason or any(op.get("reason") == "policy" for op in ops)
    assert gateway.metrics().total("natsgate_connections_closed_total", transport="ws", reason="policy") == 1


async def test_more_subscriptions_than_allowed_are_an_error(
    start_gateway: StartGateway, nc: Client, own_id: str
) -> None:
    """`MAX_SUBSCRIPTIONS` feeds per WebSocket; one more is an error, and ending one makes room."""
    gateway = await start_gateway(MAX_SUBSCRIPTIONS=2)
    async with ws_client(gateway.ws_url) as ws:
        first = await ws.subscribe(f"repo.{own_id}.1")
        await ws.subscribe(f"repo.{own_id}.2")
        assert (await ws.request(op="subscribe", ref=3, subject=f"repo.{own_id}.3"))["op"] == "error"
        await ws.request(op="unsubscribe", ref=4, feed=first)
        await ws.subscribe(f"repo.{own_id}.3")
        await publish(nc, f"repo.{own_id}.3", "{}")
        assert (await ws.event())["subject"] == f"repo.{own_id}.3"


async def test_many_ops_in_one_segment_are_answered_in_order(gateway: Gateway, own_id: str) -> None:
    """Ops sent back to back are answered one after the other, `subscribed` before `ready`."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(
            encode_op(op="ping", ref=1),
            encode_op(op="subscribe", ref=2, subject=f"repo.{own_id}.>"),
            encode_op(op="unsubscribe", ref=3, feed=f"repo.{own_id}.>"),
            encode_op(op="ping", ref=4),
        )
        refs: list[object] = []
        while not refs or refs[-1] != 4:
            op = (await ws.next_text()).json()
            refs += [op["ref"]] if "ref" in op else []
    assert refs == [1, 2, 3, 4]


async def test_frames_that_come_with_the_handshake_are_not_lost(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A client may send ops in the same segment as its handshake."""
    early = encode_op(op="ping", ref="early") + encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.>")
    async with RawWebSocket(gateway.url, early=early) as ws:
        assert (await ws.next_text()).json()["op"] == "hello"
        assert (await ws.next_text()).json() == {"op": "pong", "ref": "early"}
        assert (await ws.next_text()).json()["op"] == "subscribed"
        assert (await ws.next_text()).json()["op"] == "ready"
        await publish(nc, f"repo.{own_id}.x", "{}")
        assert (await ws.next_text()).json()["op"] == "event"


async def test_half_a_frame_with_the_handshake_is_completed_later(gateway: Gateway) -> None:
    """A frame cut in two by the hand-over is put together."""
    frame = encode_op(op="ping", ref="cut")
    async with RawWebSocket(gateway.url, early=frame[:5]) as ws:
        assert (await ws.next_text()).json()["op"] == "hello"
        await ws.send(frame[5:])
        assert await ws.next_op("pong") == {"op": "pong", "ref": "cut"}


async def test_compression_may_be_offered(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A client that offers permessage-deflate is served, whether it is taken up or not."""
    text = json.dumps({"a": "x" * 5000})
    async with ws_client(gateway.ws_url, compression="deflate") as ws:
        await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", text)
        assert (await ws.event())["event"] == json.loads(text)


async def test_event_frames_are_the_same_bytes_for_every_client(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Two clients of a feed get one and the same frame."""
    async with ws_client(gateway.ws_url) as one, ws_client(gateway.ws_url) as two:
        for ws in (one, two):
            await ws.subscribe(f"repo.{own_id}.>")
        await publish(nc, f"repo.{own_id}.x", '{"n":1}')
        await one.event()
        await two.event()
    assert one.texts[-1] == two.texts[-1]


async def test_a_plain_client_without_subprotocol_is_served(gateway: Gateway) -> None:
    """`/ws` without any subprotocol speaks the same ops, and none is claimed."""
    async with connect(f"{gateway.ws_url}/ws", proxy=None) as connection:
        assert connection.subprotocol is None
        assert json.loads(await connection.recv())["op"] == "hello"


async def test_an_unknown_subprotocol_is_not_chosen(gateway: Gateway) -> None:
    """A server must not pick what was not offered, nor claim what it does not speak."""
    async with RawWebSocket(gateway.url, subprotocol="chat") as ws:
        if ws.status == 101:
            assert "sec-websocket-protocol" not in ws.headers
        else:
            assert ws.status == 400
