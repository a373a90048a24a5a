"""What NATS's live path drops without a word is noticed, read from the stream, and delivered in order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.flow import Flow, store
from tests.support.follower import Follower, assert_same
from tests.support.gateway import Gateway
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer
from tests.support.stored import stored

ConnectNats = Callable[[str], Awaitable[Client]]


@pytest.fixture
async def proxy(own_nats: NatsServer) -> AsyncIterator[NatsProxy]:
    """A proxy before this test's nats-server."""
    async with NatsProxy(own_nats.port) as running:
        yield running


async def repaired(gateway: Gateway) -> dict[str, float]:
    return (await asyncio.to_thread(gateway.metrics)).by("natsgate_holes_repaired_total", "found_by")


async def test_found_by_sequence(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Single messages and runs of them that vanish on the way are filled in, in order, as soon as the next comes."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        n = 0
        for losing in (1, 1, 3, 50, 1200):
            await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 10, begin=n)
            proxy.losing = losing
            await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], losing + 10, begin=n + 10)
            n += losing + 20
            await page.until_heard(n // 2)
        assert_same(page.heard, await stored(nc, filters))
        assert page.told_of("gap") == []
        assert len(page.told_of("ready")) == 1
    assert proxy.lost == 1255
    assert (await repaired(gateway)).get("sequence", 0) >= 5


async def test_found_by_sequence_in_a_flow(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Holes in a flow that does not pause: nothing lost, nothing twice, in order, on every client."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with (
        Follower(lambda: gateway.url, filters) as one,
        Follower(lambda: gateway.url, f"task.{own_id}.>") as two,
    ):
        await one.until_ready()
        await two.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], pause_s=0.002, each=10) as flow:
            for turn in range(30):
                proxy.losing = 1 + turn * 7 % 40
                await flow.more(60)
        proxy.losing = 0
        await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 2)
        for page, subject in ((one, filters), (two, f"task.{own_id}.>")):
            expected = await stored(nc, subject)
            await page.until_heard(len(expected))
            assert_same(page.heard, expected)
            assert page.told_of("gap") == []
    assert proxy.lost > 100


async def test_a_silent_tail_is_found_by_asking(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """The last messages vanish and nothing follows: asking the leader finds them within seconds."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        proxy.losing = 7
        await store(nc, [f"repo.{own_id}.x"], 7)
        await page.until_heard(7)
        assert_same(page.heard, await stored(nc, filters))
        assert page.told_of("gap") == []
        await store(nc, [f"repo.{own_id}.x"], 5, begin=7)
        await page.until_heard(12)
        assert_same(page.heard, await stored(nc, filters))
    assert proxy.lost == 7
    assert await repaired(gateway) == {"tail": 1}


@pytest.mark.slow
async def test_a_subscription_that_never_delivers(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A live path that loses everything still delivers all of it, by asking: late, but whole and in order."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    proxy.losing = -1
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        await store(nc, [f"repo.{own_id}.x"], 400)
        await page.until_heard(400)
        assert_same(page.heard, await stored(nc, filters))
    assert proxy.passed == 0


async def test_found_by_reconnect(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """The connection to NATS is cut while events are stored: on return all of them come, once, in order."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        n = 0
        for _ in range(4):
            await store(nc, [f"repo.{own_id}.x"], 10, begin=n)
            proxy.hold()
            proxy.cut()
            await store(nc, [f"repo.{own_id}.x"], 50, begin=n + 10)
            proxy.go_on()
            n += 60
            await page.until_heard(n)
        assert_same(page.heard, await stored(nc, filters))
        assert page.told_of("gap") == []
        assert page.connects == 1
    assert (await repaired(gateway)).get("reconnect", 0) >= 1


async def test_a_hole_larger_than_the_log(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """More is missing than the log can take: everybody reads on from the stream, without a gap."""
    gateway = await start_gateway(nats_url=proxy.url, LOG_BYTES=20_000, WARM_S=0)
    nc = await connect_nats(own_nats.url)
    filters = [f"repo.{own_id}.>", f"task.{own_id}.>"]
    async with (
        Follower(lambda: gateway.url, filters[0]) as one,
        Follower(lambda: gateway.url, filters[1]) as two,
    ):
        await one.until_ready()
        await two.until_ready()
        await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 100)
        for losing in (3000, -1):
            proxy.losing = losing
            await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 3000)
            if losing < 0:
                proxy.cut()
                proxy.losing = 0
            await store(nc, [f"repo.{own_id}.x", f"task.{own_id}.x"], 100)
        for page, subject in ((one, filters[0]), (two, filters[1])):
            expected = await stored(nc, subject)
            await page.until_heard(len(expected))
            assert_same(page.heard, expected)
            assert page.told_of("gap") == []


async def test_cut_again_while_a_hole_is_filled(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Connections that break again and again, in the midst of repairs too, lose nothing."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"], pause_s=0.002, each=20) as flow:
            for turn in range(12):
                proxy.losing = 25
                if turn % 2:
                    proxy.cut()
                await flow.more(150)
        proxy.losing = 0

        async def up() -> bool:
            return (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_connected") == 1

        await eventually(up, "NATS is back")
        await store(nc, [f"repo.{own_id}.x"], 1)
        expected = await stored(nc, filters)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)
        assert page.told_of("gap") == []
        assert page.connects == 1


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_connection_that_hangs(
    own_nats: NatsServer, proxy: NatsProxy, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """Nothing passes and nobody hangs up: the gateway finds out by pinging, tells everybody, and catches up."""
    gateway = await start_gateway(nats_url=proxy.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    async with Follower(lambda: gateway.url, filters) as page:
        await page.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"]):
            await page.until_heard(50)
            proxy.hold()
            assert await page.until_told("state", timeout_s=40) == {"upstream": "down"}
            proxy.go_on()
            assert await page.until_told("state", 2, timeout_s=40) == {"upstream": "up"}
        expected = await stored(nc, filters)
        await page.until_heard(len(expected))
        assert_same(page.heard, expected)
        assert page.connects == 1
