"""Beginning in the past, and ending at the head."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.coming_back import NO_LOG, cursor_now, up_to_ready
from tests.support.flow import store
from tests.support.follower import assert_same
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import sequence_of, stored


@pytest.mark.parametrize(
    "since", ["all", "1h", "1h30m", "2d", "time", "1970-01-01T00:00:00Z", "1815-12-10T12:00:00+01:00"]
)
async def test_since(gateway: Gateway, nc: Client, own_id: str, since: str) -> None:
    """`since` as `all`, a duration or a time begins with the first event stored then, and goes on live."""
    if since == "time":
        since = (datetime.now(UTC) - timedelta(hours=1)).isoformat().replace("+00:00", "Z")
    await store(nc, [f"repo.{own_id}.x"], 30)
    expected = await stored(nc, f"repo.{own_id}.>")
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"since": since}) as sse:
        events, _ = await up_to_ready(sse, upto=expected[-1].sequence)
        assert_same(events, expected)
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'


async def test_since_divides_by_the_time_of_storing(gateway: Gateway, nc: Client, own_id: str) -> None:
    """A time between two events brings the second only; one in the future none; offsets are understood."""
    js = nc.jetstream()
    await js.publish(f"repo.{own_id}.x", b'{"n":1}')
    second = await js.publish(f"repo.{own_id}.x", b'{"n":2}')
    raw = await js.get_msg("EVENTS", second.seq)
    assert raw.time is not None
    stamp = raw.time
    east = stamp.astimezone(UTC) + timedelta(hours=2)
    spellings = [
        stamp.isoformat().replace("+00:00", "Z"),
        east.isoformat().replace("+00:00", "+02:00"),
    ]
    for spelling in spellings:
        async with SseClient(gateway.url, f"repo.{own_id}.>", query={"since": spelling}) as sse:
            events, _ = await up_to_ready(sse, upto=second.seq)
        assert [event.data for event in events][-1:] == ['{"n":2}'], spelling
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"since": "2199-01-01T00:00:00Z"}) as sse:
        assert (await sse.ready()).json()["replayed"] == 0
        await publish(nc, f"repo.{own_id}.x", '{"n":"live"}')
        assert (await sse.next_event()).data == '{"n":"live"}'


@pytest.mark.parametrize(
    "since",
    [
        "",
        "yesterday",
        "15",
        "-5m",
        "5m ",
        "1y",
        "2030-13-01T00:00:00Z",
        "2262-01-01T00:00:00Z",
        "2030-01-01",
        "٣m",
        "9" * 70 + "s",
    ],
)
async def test_a_senseless_since_is_refused(gateway: Gateway, own_id: str, since: str) -> None:
    """What is no time is a 400 that says what would be one."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"since": since}) as sse:
        assert sse.status == 400
        assert "since" in sse.reply.problem()["detail"]


async def test_since_over_websocket(gateway: Gateway, nc: Client, own_id: str) -> None:
    """`since` in `subscribe` replays, with cursors."""
    await store(nc, [f"repo.{own_id}.x"], 30)
    expected = await stored(nc, f"repo.{own_id}.>")
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.>", since="all"))
        ops = [await ws.next_op("event") for _ in expected]
        assert [sequence_of(op["cursor"]) for op in ops] == [each.sequence for each in expected]


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_until_head_ends(
    start_gateway: StartGateway, nc: Client, own_id: str, settings: dict[str, object]
) -> None:
    """`until=head` gives everything, whatever `REPLAY_LIMIT`, then `ready`, then `closing` with `done`, then ends."""
    replica = await start_gateway(settings=settings, REPLAY_LIMIT=100)
    await store(nc, [f"repo.{own_id}.x"], 2500)
    expected = await stored(nc, f"repo.{own_id}.>")
    async with SseClient(replica.url, f"repo.{own_id}.>", query={"since": "all", "until": "head"}) as sse:
        events, ready = await up_to_ready(sse)
        assert_same(events, expected)
        assert ready.json()["replayed"] == 2500
        [closing] = await sse.rest()
        assert closing.type == "natsgate.closing"
        assert (closing.json()["reason"], closing.json()["reconnect"]) == ("done", False)
        assert sse.ended


async def test_until_head_of_a_websocket_route(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A route takes the same query by WebSocket: what is stored, then `ready`, then `closing` and 1000 with `done`."""
    table = ['name = "w"', 'path = "/w/{id}"', 'transports = ["ws"]', 'subjects = ["repo.{id}.>"]']
    gateway = await start_gateway(config=routes(table))
    await store(nc, [f"repo.{own_id}.x"], 3)
    async with RawWebSocket(gateway.url, f"/w/{own_id}?since=all&until=head") as board:
        ops = [(await board.next_text()).json() for _ in range(7)]
        assert [op["op"] for op in ops] == ["hello", "subscribed", "event", "event", "event", "ready", "closing"]
        assert (ops[6]["reason"], ops[6]["reconnect"]) == ("done", False)
        assert (await board.close_frame()).close_code == 1000


async def test_until_head_with_a_cursor(gateway: Gateway, nc: Client, own_id: str) -> None:
    """With a cursor `until=head` gives what came after it."""
    cursor = await cursor_now(gateway, f"repo.{own_id}.>")
    await store(nc, [f"repo.{own_id}.x"], 7)
    query = {"until": "head", "last_event_id": cursor}
    async with SseClient(gateway.url, f"repo.{own_id}.>", query=query) as sse:
        events, _ = await up_to_ready(sse)
        assert_same(events, await stored(nc, f"repo.{own_id}.>"))
        assert [event.type for event in await sse.rest()] == ["natsgate.closing"]


async def test_until_head_from_now_is_empty(gateway: Gateway, nc: Client, own_id: str) -> None:
    """Without `since` a feed begins now, so `until=head` has nothing to give: `ready`, `closing`, end."""
    await store(nc, [f"repo.{own_id}.x"], 7)
    async with SseClient(gateway.url, f"repo.{own_id}.>", query={"until": "head"}) as sse:
        assert [event.type for event in await sse.rest()] == ["natsgate.ready", "natsgate.closing"]


async def test_until_head_has_all_that_was_acknowledged(gateway: Gateway, nc: Client, own_id: str) -> None:
    """What the stream acknowledged before the request is in the answer, also while the tap is open."""
    async with SseClient(gateway.url, f"user.{own_id}.>") as opened:
        await opened.ready()
        js = nc.jetstream()
        cursor = await cursor_now(gateway, f"repo.{own_id}.>")
        for n in range(100):
            acks = [await js.publish_async(f"repo.{own_id}.x", b'{"pad":"%b"}' % (b"x" * 2000)) for _ in range(10)]
            last = (await acks[-1]).seq
            query = {"until": "head"} | ({"last_event_id": cursor} if n % 2 else {"since": "all"})
            reply = await fetch_async(
                gateway.host,
                gateway.port,
                f"/events?subject=repo.{own_id}.%3E&" + "&".join(f"{name}={value}" for name, value in query.items()),
            )
            heard = [line for line in reply.body.decode().splitlines() if line.startswith("id: ")]
            assert any(sequence_of(line) == last for line in heard), f"round {n}: {query}"
