"""The log: a line when a connection begins and one when it ends, never one per event, never what is secret."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable
from typing import Any

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.flow import store
from tests.support.gateway import Gateway, routes
from tests.support.http_reply import fetch_async
from tests.support.nats_server import NatsServer
from tests.support.producer import flood, publish
from tests.support.sse import SseClient
from tests.support.stored import moved
from tests.support.tokens import JWT, bearer, token
from tests.support.ws import ws_client

ConnectNats = Callable[[str], Awaitable[Client]]

OPENED = {"event", "level", "timestamp", "connection", "transport", "route", "sub", "remote"}
CLOSED = OPENED | {"reason", "seconds", "events", "bytes", "replayed", "gaps"}


async def closed(gateway: Gateway, count: int) -> list[dict[str, Any]]:
    """The lines of connections that ended, once there are so many."""

    async def lines() -> list[dict[str, Any]] | None:
        found = gateway.logs("connection_closed")
        return found if len(found) >= count else None

    return await eventually(lines, f"{count} connections ended in the log")


async def test_a_line_begins_and_a_line_ends_a_connection(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Both name connection, transport, route, whose it is and where from; the last one why it ended, after how long,
    and what the client was written: events, their bytes, how many were replayed, gaps."""
    gateway = await start_gateway(
        config=routes(('name = "mine"', 'path = "/mine/{id}"', 'transports = ["sse"]', 'subjects = ["repo.{id}.>"]'))
    )
    async with SseClient(gateway.url, f"repo.{own_id}.>") as first:
        cursor = (await first.ready()).id or ""
        last = await store(nc, [f"repo.{own_id}.x"], 10)
        back = moved(cursor, lambda _: last - 10)
        async with SseClient(gateway.url, target=f"/mine/{own_id}", headers={"Last-Event-ID": back}) as page:
            for _ in range(10):
                await page.next_message()
            connection = (await page.ready()).json()["connection"]
            await store(nc, [f"repo.{own_id}.x"], 5, begin=10)
            for _ in range(5):
                await page.next_message()
            begin = page.tcp.raw.find(b"id: ")
        (line,) = await closed(gateway, 1)
    assert line.keys() == CLOSED
    assert (line["connection"], line["transport"], line["route"]) == (connection, "sse", "mine")
    assert (line["sub"], line["remote"], line["reason"]) == ("", "127.0.0.1", "client_closed")
    assert (line["events"], line["replayed"], line["gaps"]) == (15, 10, 0)
    assert begin > 0
    assert 15 * len(b'id: -1\ndata: {"n": 1}\n\n') < line["bytes"] < 15 * 100
    assert 0 < line["seconds"] < 60
    (other,) = [each for each in gateway.logs("connection_opened") if each["connection"] == connection]
    assert other.keys() == OPENED
    assert {name: other[name] for name in ("transport", "route", "remote")} == {
        "transport": "sse",
        "route": "mine",
        "remote": "127.0.0.1",
    }
    assert other["level"] == line["level"] == "info"


async def test_all_feeds_of_a_websocket_count(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Events of a feed that was given up meanwhile are counted, those that came after that are not."""
    gateway = await start_gateway()
    async with ws_client(gateway.ws_url) as ws:
        await ws.subscribe(f"repo.{own_id}.>")
        feed = await ws.subscribe(f"task.{own_id}.>", ref="two")
        await publish(nc, f"repo.{own_id}.x", "{}")
        await publish(nc, f"task.{own_id}.x", "{}")
        for _ in range(2):
            await ws.event()
        await ws.request(op="unsubscribe", ref="three", feed=feed)
        await publish(nc, f"task.{own_id}.x", "{}")
        await publish(nc, f"repo.{own_id}.x", "{}")
        await ws.event()
    (line,) = await closed(gateway, 1)
    assert line.keys() == CLOSED
    assert (line["transport"], line["route"], line["events"]) == ("ws", "events", 3)


async def test_what_lines_say_is_what_the_metrics_say(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Clients of one feed that came at different times, some of which stalled: what was written to each of them,
    counted without a count per delivery, is together what `/metrics` counts."""
    gateway = await start_gateway()
    subject = f"repo.{own_id}.>"
    async with Crowd(gateway.url, [(subject, "")] * 5) as early:
        await early.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 20)
        async with Crowd(gateway.url, [(subject, "")] * 5, receive_buffer_bytes=4096) as late:
            await late.until_ready()
            late.pause()
            await flood(nc, f"repo.{own_id}.x", [json.dumps({"pad": "x" * 4000})] * 300)
            last = await store(nc, [f"repo.{own_id}.x"], 1)

            async def behind() -> bool:
                return (await asyncio.to_thread(gateway.metrics)).total("natsgate_connections_behind") == 5

            await eventually(behind, "those that do not read are behind")
            late.go_on()
            await early.until_last(last)
            await late.until_last(last)
            got = [len(member.sequences) for member in (*early.members, *late.members)]
    lines = await closed(gateway, 10)
    metrics = await asyncio.to_thread(gateway.metrics)
    assert sorted(line["events"] for line in lines) == sorted(got) == [301] * 5 + [321] * 5
    assert sum(line["bytes"] for line in lines) == metrics.total("natsgate_sent_bytes_total")
    assert sum(line["events"] for line in lines) == metrics.total("natsgate_deliveries_total")


async def test_nothing_secret_and_no_event_is_logged(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """No query, header, cursor or payload gets into the log, however loud it is; nor a line per event."""
    gateway = await start_gateway(LOG_LEVEL="debug")
    headers = {"Authorization": "Bearer sesame", "Cookie": "natsgate_token=sesame"}
    query = {"access_token": "sesame", "ticket": "sesame"}
    async with (
        SseClient(gateway.url, f"repo.{own_id}.>", headers=headers, query=query) as page,
        ws_client(gateway.ws_url, "/ws?access_token=sesame") as ws,
    ):
        await page.ready()
        await ws.subscribe(f"repo.{own_id}.>")
        before = len(gateway.logs())
        for _ in range(20):
            await publish(nc, f"repo.{own_id}.x", '{"word":"sesame"}')
            await page.next_message()
            await ws.event()
        assert len(gateway.logs()) == before
        await fetch_async(gateway.host, gateway.port, "/events?subject=sesame&access_token=sesame", headers=headers)
    await closed(gateway, 2)
    assert "sesame" not in gateway.log_text
    assert own_id not in gateway.log_text


async def test_a_quiet_log_has_no_connections(start_gateway: StartGateway, own_id: str) -> None:
    """With `LOG_LEVEL=warning` connections come and go without a line."""
    gateway = await start_gateway(config="")
    quiet = routes(('name = "quiet"', 'path = "/quiet"', 'transports = ["ws"]', 'subjects = ["repo.1.>"]'))
    gateway.config_file.write_text(f'log_level = "warning"\n{quiet}')
    os.kill(gateway.pid, signal.SIGHUP)

    async def reloaded() -> bool:
        return (await fetch_async(gateway.host, gateway.port, "/quiet")).status == 400  # the route is there

    await eventually(reloaded, "the new settings hold")
    before = gateway.logs()
    async with SseClient(gateway.url, f"repo.{own_id}.>") as page:
        await page.ready()

    async def gone() -> bool:
        return (await asyncio.to_thread(gateway.metrics)).total("natsgate_connections_closed_total") == 1

    await eventually(gone, "the connection ended")
    assert gateway.logs() == before


async def test_refused_requests_are_told_of_now_and_then(start_gateway: StartGateway) -> None:
    """Two hundred refusals of one kind are a line or two, which say how many there were."""
    gateway = await start_gateway()
    for _ in range(200):
        await fetch_async(gateway.host, gateway.port, "/events?subject=planet.1.%3E")
    lines = gateway.logs("request_rejected")
    assert 1 <= len(lines) <= 10
    assert {line["reason"] for line in lines} == {"bad_request"}
    assert lines[0]["held_back"] == 0


async def test_a_refusal_says_who_and_why(start_gateway: StartGateway, own_id: str) -> None:
    """What became no connection is logged with its route, its user as far as one is known, and the cause of a 401."""
    config = routes(['name = "repo"', 'path = "/repos/{id}/events"', 'subjects = ["repo.{id}.>"]'])
    gateway = await start_gateway(config=config, settings=JWT)
    path, mine = f"/repos/{own_id}/events", token(sub="alice", subscribe=["repo.other.>"])
    refusals: list[tuple[str, dict[str, str]]] = [
        (path, bearer(mine)),
        (path, bearer(token(sub="alice", ttl_s=-60))),
        ("/nothing", {}),
    ]
    for target, headers in refusals:
        await fetch_async(gateway.host, gateway.port, target, headers=headers)
    known = ("reason", "route", "sub", "cause")
    assert [{name: line[name] for name in known if name in line} for line in gateway.logs("request_rejected")] == [
        {"reason": "forbidden", "route": "repo", "sub": "alice"},
        {"reason": "unauthorized", "route": "repo", "cause": "expired"},
        {"reason": "not_found"},
    ]


async def test_nats_going_and_coming_is_logged(own_nats: NatsServer, start_gateway: StartGateway) -> None:
    """One line when NATS goes, one when it is back; and the reconnect is counted."""
    gateway = await start_gateway(nats_url=own_nats.url)
    assert len(gateway.logs("nats_connected")) == 1
    await asyncio.to_thread(own_nats.restart)

    async def back() -> bool:
        return len(gateway.logs("nats_connected")) == 2

    await eventually(back, "NATS is back", timeout_s=20)
    assert len(gateway.logs("nats_disconnected")) == 1
    assert (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_reconnects_total") == 1
