"""Cursors that no gateway handed out: refused or told as a gap, never a fault, never a wider view."""

from __future__ import annotations

import asyncio
from urllib.parse import quote

import pytest
from nats.aio.client import Client

from tests.replay.coming_back import cursor_now, up_to_ready
from tests.support.flow import store
from tests.support.follower import assert_same
from tests.support.gateway import Gateway
from tests.support.raw_ws import RawWebSocket, encode_op
from tests.support.sse import SseClient
from tests.support.stored import moved, stored

SENSELESS = [
    "-",
    "0",
    "-1",
    "abc",
    "abc-",
    "-abc",
    "abc--1",
    "abc-1-2",
    "abc-01",
    "abc-+1",
    "abc- 1",
    " abc-1",
    "abc-1 ",
    "abc-1.5",
    "abc-1e3",
    "abc-0x10",
    "abc-18446744073709551616",
    "abc-" + "9" * 40,
    "a" * 60 + "-12345",
    "x" * 5000,
    "*-1",
    ">-1",
    "repo.>-1",
    "../../etc-1",
    "abc-1\x00",
    "abc-\x7f",
    "é-1",
    "abc-٣",
    "abc-\uff11",
    "ﬀ-1",
    "ABC-1",
    "null",
    "undefined",
    "[object Object]",
    '{"$gt":""}',
    "%00",
    "%2e-1",
    "abc-1\r\nX-Evil: 1",
]


@pytest.mark.parametrize("cursor", SENSELESS)
async def test_refused_in_the_query_and_over_websocket(gateway: Gateway, own_id: str, cursor: str) -> None:
    """What is no cursor is a 400 that says what to send instead; over WebSocket an `error`, the connection stays."""
    target = f"/events?subject=repo.{own_id}.%3E&last_event_id={quote(cursor, safe='')}"
    async with SseClient(gateway.url, target=target) as sse:
        assert sse.status == 400
        assert "cursor" in sse.reply.problem()["detail"]
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.>", cursor=cursor))
        error = await ws.next_op("error")
        assert (error["ref"], error["code"]) == (1, "bad_cursor")
        await ws.ping_op()


@pytest.mark.parametrize("cursor", [7, -1, 1.5, True, [], {}, ["abc-1"]])
async def test_a_cursor_of_another_type_is_refused(gateway: Gateway, own_id: str, cursor: object) -> None:
    """A WebSocket `cursor` that is no string is an `error`."""
    async with RawWebSocket(gateway.url) as ws:
        await ws.send(encode_op(op="subscribe", ref=1, subject=f"repo.{own_id}.>", cursor=cursor))
        assert (await ws.next_op("error"))["ref"] == 1
        await ws.ping_op()


@pytest.mark.parametrize("header", [c for c in SENSELESS if not set(c) & set("\r\n\0") and c == c.strip()])
async def test_refused_in_the_header(gateway: Gateway, own_id: str, header: str) -> None:
    """The same for the `Last-Event-ID` header, whatever bytes it has."""
    sent = {"Last-Event-ID": header.encode().decode("latin-1")}
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers=sent) as sse:
        assert sse.status == 400
        sse.reply.problem()


async def test_given_twice(gateway: Gateway, own_id: str) -> None:
    """Two cursors in one query: 400."""
    target = f"/events?subject=repo.{own_id}.%3E&last_event_id=abc-1&last_event_id=abc-2"
    async with SseClient(gateway.url, target=target) as sse:
        assert sse.status == 400


@pytest.mark.parametrize("cursor", ["abc-1", "0-0", "z" * 32 + "-1", "a-18446744073709551615", "000000000000-5"])
async def test_well_formed_but_never_handed_out(gateway: Gateway, own_id: str, cursor: str) -> None:
    """A cursor of no life of this stream is a gap, and the feed goes on from now."""
    async with SseClient(gateway.url, f"repo.{own_id}.>", headers={"Last-Event-ID": cursor}) as sse:
        gap = await sse.next_event()
        assert (gap.type, gap.json()["reason"], gap.json()["from"]) == ("natsgate.gap", "recreated", None)
        await sse.ready()


async def test_another_feeds_cursor_gives_no_wider_view(gateway: Gateway, nc: Client, own_id: str) -> None:
    """The cursor of one feed used with another filter gives that filter's events, and only those."""
    cursor = await cursor_now(gateway, "repo.*.>")
    await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x", f"user.{own_id}.secret"], 90)
    zero = moved(cursor, lambda _: 0)
    for begin in (cursor, zero):
        async with SseClient(gateway.url, f"task.{own_id}.>", headers={"Last-Event-ID": begin}) as sse:
            events, _ = await up_to_ready(sse)
        assert_same(events, await stored(nc, f"task.{own_id}.>"))


async def test_nothing_of_it_is_a_fault(gateway: Gateway) -> None:
    """After all of this the log has no traceback and the replica works."""
    assert "Traceback" not in gateway.log_text
    assert await asyncio.to_thread(gateway.is_ready)
