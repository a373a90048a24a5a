"""Five hundred clients of both transports behind nginx while replicas are restarted: nobody loses an event, gets one
twice, or is given an answer that a browser does not come back from."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from nats.aio.client import Client

from tests.rolling.pair import DRAIN, ENDS_WITHIN_S, Pair, assert_spread
from tests.support.eventually import eventually
from tests.support.fleet import Fleet, histogram
from tests.support.flow import Flow
from tests.support.nats_server import NatsServer
from tests.support.producer import flood
from tests.support.stored import stored

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ConnectNats = Callable[[str], Awaitable[Client]]
EACH = 250
"""Clients of each transport."""


def feeds(own_id: str) -> list[str]:
    return [f"repo.{own_id}-{number}.>" for number in range(10)]


def flow(nc: Client, own_id: str) -> Flow:
    """Fifty events a second, in turn on the subjects of all feeds."""
    return Flow(nc, [f"repo.{own_id}-{number}.x" for number in range(10)], pause_s=0.1, each=5)


async def assert_all_there(fleet: Fleet, nc: Client) -> None:
    """Everybody has got everything once, now that the flow has ended."""
    events = await stored(nc, "repo.>")
    await fleet.until_last(events)
    fleet.assert_whole(events)


async def test_replicas_are_restarted(
    tmp_path: Path, own_nats: NatsServer, connect_nats: ConnectNats, own_id: str
) -> None:
    """One replica after the other, three times, under a steady flow: 0 lost, 0 twice, no client dead; each connection
    is told why it ends, and the ends are spread over `DRAIN_S`."""
    nc = await connect_nats(own_nats.url)
    async with Pair(tmp_path, own_nats, {**DRAIN}) as pair, Fleet(lambda: pair.url, feeds(own_id), each=EACH) as fleet:
        await fleet.until_ready()
        async with flow(nc, own_id) as events:
            for turn in range(1, 4):
                for number in range(2):
                    span = await pair.end(number)
                    await pair.start(number)
                    assert_spread(fleet, span, f"restart {turn} of replica {number}")
            await events.more(100)
        await assert_all_there(fleet, nc)
        print(f"{events.stored} events, {sum(len(sailor.sequences) for sailor in fleet.sailors)} deliveries")
        assert sum(each.served for each in fleet.endings) > 5 * EACH


async def test_connections_grow_old(
    tmp_path: Path, own_nats: NatsServer, connect_nats: ConnectNats, own_id: str
) -> None:
    """With `MAX_AGE_S` a replica that comes late gets its share of the clients, and in a minute of it, in which every
    client is sent away a dozen times, nobody misses anything."""
    nc = await connect_nats(own_nats.url)
    loop = asyncio.get_running_loop()
    async with (
        Pair(tmp_path, own_nats, {**DRAIN, "MAX_AGE_S": 5}, running=1) as pair,
        Fleet(lambda: pair.url, feeds(own_id), each=EACH) as fleet,
    ):
        begin = loop.time()
        await fleet.until_ready()
        async with flow(nc, own_id):
            await pair.start(1)
            await fleet.until_ended(times=12, timeout_s=150)

            async def shared() -> list[float] | None:
                pages = [await asyncio.to_thread(each.metrics) for each in pair.replicas]
                shares = [page.total("natsgate_connections") for page in pages]
                return shares if min(shares) > EACH / 2 else None

            shares = await eventually(shared, "each replica has a good part of the clients", timeout_s=30)
        await assert_all_there(fleet, nc)
    first = [sailor.endings[0] for sailor in fleet.sailors]
    print(f"first ends, s since the start\n{histogram(first, begin, 0.5)}\nconnections of each replica: {shares}")
    assert {each.reason for each in fleet.endings} == {"max_age"}


async def test_clients_stall_meanwhile(
    tmp_path: Path, own_nats: NatsServer, connect_nats: ConnectNats, own_id: str
) -> None:
    """Clients that read nothing while a replica goes do not hold it up, and get the rest when they read again."""
    nc = await connect_nats(own_nats.url)
    async with (
        Pair(tmp_path, own_nats, {**DRAIN}) as pair,
        Fleet(lambda: pair.url, feeds(own_id), each=EACH - 25) as fleet,
        Fleet(lambda: pair.url, [f"repo.{own_id}-big.>"], each=25, receive_buffer_bytes=8192) as stalled,
    ):
        await fleet.until_ready()
        await stalled.until_ready()

        async def all_behind() -> bool:
            pages = [await asyncio.to_thread(each.metrics) for each in pair.replicas]
            return sum(page.total("natsgate_connections_behind") for page in pages) >= 50

        async with flow(nc, own_id):
            stalled.pause()
            await flood(nc, f"repo.{own_id}-big.x", [json.dumps({"pad": "x" * 8000})] * 400)
            await eventually(all_behind, "those that do not read are behind", timeout_s=20)
            span = await pair.end(0)
            assert span.end - span.begin < ENDS_WITHIN_S + 3
            assert_spread(fleet, span, "with 50 stalled clients")
            await pair.start(0)
            stalled.go_on()
            await flood(nc, f"repo.{own_id}-big.x", ["{}"])
        await assert_all_there(fleet, nc)
        await assert_all_there(stalled, nc)


async def test_nats_is_away_meanwhile(
    tmp_path: Path, own_nats: NatsServer, connect_nats: ConnectNats, own_id: str
) -> None:
    """NATS is killed while a replica goes, and comes back when that has ended: clients wait on the other one, and what
    producers store then reaches everybody once."""
    nc = await connect_nats(own_nats.url)
    async with Pair(tmp_path, own_nats, {**DRAIN}) as pair, Fleet(lambda: pair.url, feeds(own_id), each=EACH) as fleet:
        await fleet.until_ready()
        async with flow(nc, own_id) as events:
            await events.more(50)
            ending = asyncio.create_task(pair.end(0))
            await asyncio.to_thread(own_nats.kill)
            span = await ending
            assert span.end - span.begin < ENDS_WITHIN_S + 3
            assert_spread(fleet, span, "without NATS")
            await asyncio.to_thread(own_nats.start)
            await pair.start(0)
            await events.more(100)
        await assert_all_there(fleet, nc)
