"""NATS goes away and comes back; replicas freeze and die: nothing lost, nothing twice, connections stay."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.flow import Flow
from tests.support.follower import Follower, assert_same
from tests.support.nats_server import NatsServer
from tests.support.stored import stored

ConnectNats = Callable[[str], Awaitable[Client]]


async def test_nats_killed_and_restarted_in_a_flow(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """nats-server killed and back with its store, three times, while a producer goes on: connections stay,
    heartbeats go on, every stored event arrives once, in order, and nobody is told of a gap."""
    gateway = await start_gateway(nats_url=own_nats.url, HEARTBEAT_S=0.5)
    nc = await connect_nats(own_nats.url)
    filters = [f"repo.{own_id}.>", f"task.{own_id}.>"]
    async with AsyncExitStack() as followers:
        pages = [await followers.enter_async_context(Follower(lambda: gateway.url, f)) for f in filters]
        for page in pages:
            await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"]) as flow:
            for turn in range(3):
                await flow.more(100)
                await asyncio.to_thread(own_nats.restart)
                for page in pages:
                    await page.until_told("state", 2 * turn + 2)
            await flow.more(50)
        for page, subject in zip(pages, filters, strict=True):
            expected = await stored(nc, subject)
            await page.until_heard(len(expected))
            assert_same(page.heard, expected)
            assert page.told_of("gap") == []
            assert page.connects == 1
            states = [each["upstream"] for each in page.told_of("state")]
            assert states == ["down", "up"] * (len(states) // 2)


async def test_events_of_the_outage_that_another_replica_took(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A replica frozen for a moment while the flow goes on catches up on the same connections."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"]) as flow:
            for _ in range(4):
                await flow.more(50)
                os.kill(gateway.pid, signal.SIGSTOP)
                try:
                    await flow.more(100)
                finally:
                    os.kill(gateway.pid, signal.SIGCONT)
        expected = await stored(nc, filters)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)
        assert page.connects == 1
        assert page.told_of("gap") == []


async def test_a_replica_cut_off_by_nats_while_frozen(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Frozen until the server has dropped its connections, with events stored meanwhile: it catches up."""
    gateway = await start_gateway(nats_url=own_nats.url, WARM_S=0, LOG_BYTES=50_000)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"], each=50) as flow:
            os.kill(gateway.pid, signal.SIGSTOP)
            try:
                await flow.more(500)
                await asyncio.to_thread(own_nats.restart)
                await flow.more(1000)
            finally:
                os.kill(gateway.pid, signal.SIGCONT)
            await flow.more(100)
        expected = await stored(nc, filters)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)
        assert page.connects == 1
        assert page.told_of("gap") == []


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_paused_for_longer_than_nats_tolerates(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A replica stopped for 25 s under a flow wakes up, finds its connections stale, and loses nothing."""
    gateway = await start_gateway(nats_url=own_nats.url, WARM_S=0, LOG_BYTES=500_000)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"], each=20) as flow:
            os.kill(gateway.pid, signal.SIGSTOP)
            try:
                await asyncio.sleep(25)  # the pause is the fault itself
            finally:
                os.kill(gateway.pid, signal.SIGCONT)
            await flow.more(100)
        expected = await stored(nc, filters)
        await page.until_heard(len(expected), timeout_s=60)
        assert_same(page.heard, expected)
        assert page.connects == 1
        assert page.told_of("gap") == []


async def test_nats_frozen(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """nats-server frozen and thawed: what was stored around it arrives once, in order."""
    gateway = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"]) as flow:
            await flow.more(50)
            own_nats.pause()
            async with Follower(lambda: gateway.url, filters) as meanwhile:
                await meanwhile.until_ready()
                own_nats.resume()
                await flow.more(50)
        expected = await stored(nc, filters)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)


async def test_a_killed_replicas_clients_resume_on_another(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Replicas SIGKILLed one after the other under a flow: their clients go on elsewhere, each event once."""
    replicas = [await start_gateway(nats_url=own_nats.url, WARM_S=30 * (n % 2)) for n in range(4)]
    nc = await connect_nats(own_nats.url)
    filters = [f"repo.{own_id}.>", f"task.{own_id}.>"]
    where = replicas[0].url
    async with AsyncExitStack() as followers:
        pages = [await followers.enter_async_context(Follower(lambda: where, filters[n % 2])) for n in range(30)]
        for page in pages:
            await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], pause_s=0.005) as flow:
            for killed, following in pairwise(replicas):
                await flow.more(150)
                where = following.url
                await asyncio.to_thread(killed.kill)
            await flow.more(150)
        for n, page in enumerate(pages):
            expected = await stored(nc, filters[n % 2])
            await page.until_heard(len(expected))
            assert_same(page.heard, expected)
            assert page.told_of("gap") == []
            assert page.connects == 4
