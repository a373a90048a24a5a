"""What NATS's live path drops without a word is noticed, read from the stream, and delivered in order."""

from __future__ import annotations

import asyncio

import pytest

from tests.replay.scene import Scene
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.nats_proxy import NatsProxy


async def repaired(gateway: Gateway) -> dict[str, float]:
    return (await asyncio.to_thread(gateway.metrics)).by("natsgate_holes_repaired_total", "found_by")


async def test_found_by_sequence(scene: Scene, proxy: NatsProxy) -> None:
    """Single messages and runs of them that vanish on the way are filled in, in order, as soon as the next comes."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as page:
        n = 0
        for losing in (1, 1, 3, 50, 1200):
            await scene.store(10, scene.subjects, begin=n)
            proxy.losing = losing
            await scene.store(losing + 10, scene.subjects, begin=n + 10)
            n += losing + 20
            await page.until_heard(n // 2)
        await scene.assert_whole(page)
        assert len(page.told_of("ready")) == 1
    assert proxy.lost == 1255
    assert (await repaired(gateway)).get("sequence", 0) >= 5


async def test_found_by_sequence_in_a_flow(scene: Scene, proxy: NatsProxy) -> None:
    """Holes in a flow that does not pause: nothing lost, nothing twice, in order, on every client."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as one, scene.follower(gateway, scene.other_feed) as other:
        async with scene.flow(scene.subjects, pause_s=0.002, each=10) as flow:
            for turn in range(30):
                proxy.losing = 1 + turn * 7 % 40
                await flow.more(60)
        proxy.losing = 0
        await scene.store(2, scene.subjects)
        await scene.assert_whole(one)
        await scene.assert_whole(other, scene.other_feed)
    assert proxy.lost > 100


async def test_a_silent_tail_is_found_by_asking(scene: Scene, proxy: NatsProxy) -> None:
    """The last messages vanish and nothing follows: asking the leader finds them within seconds."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as page:
        proxy.losing = 7
        await scene.store(7)
        await scene.assert_whole(page)
        await scene.store(5, begin=7)
        await scene.assert_whole(page)
    assert proxy.lost == 7
    assert await repaired(gateway) == {"tail": 1}


@pytest.mark.slow
async def test_a_subscription_that_never_delivers(scene: Scene, proxy: NatsProxy) -> None:
    """A live path that loses everything still delivers all of it, by asking: late, but whole and in order."""
    gateway = await scene.gateway(proxy.url)
    proxy.losing = -1
    async with scene.follower(gateway) as page:
        await scene.store(400)
        await scene.assert_whole(page)
    assert proxy.passed == 0


async def test_found_by_reconnect(scene: Scene, proxy: NatsProxy) -> None:
    """The connection to NATS is cut while events are stored: on return all of them come, once, in order."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as page:
        for n in range(0, 240, 60):
            await scene.store(10, begin=n)
            proxy.hold()
            proxy.cut()
            await scene.store(50, begin=n + 10)
            proxy.go_on()
            await page.until_heard(n + 60)
        await scene.assert_whole(page)
    assert (await repaired(gateway)).get("reconnect", 0) >= 1


async def test_a_hole_larger_than_the_log(scene: Scene, proxy: NatsProxy) -> None:
    """More is missing than the log can take: everybody reads on from the stream, without a gap."""
    gateway = await scene.gateway(proxy.url, LOG_BYTES=20_000, WARM_S=0)
    async with scene.follower(gateway) as one, scene.follower(gateway, scene.other_feed) as other:
        await scene.store(100, scene.subjects)
        for losing in (3000, -1):
            proxy.losing = losing
            await scene.store(3000, scene.subjects)
            if losing < 0:
                proxy.cut()
                proxy.losing = 0
            await scene.store(100, scene.subjects)
        await scene.assert_whole(one)
        await scene.assert_whole(other, scene.other_feed)


async def test_cut_again_while_a_hole_is_filled(scene: Scene, proxy: NatsProxy) -> None:
    """Connections that break again and again, in the midst of repairs too, lose nothing."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as page:
        async with scene.flow(pause_s=0.002, each=20) as flow:
            for turn in range(12):
                proxy.losing = 25
                if turn % 2:
                    proxy.cut()
                await flow.more(150)
        proxy.losing = 0

        async def up() -> bool:
            return (await asyncio.to_thread(gateway.metrics)).total("natsgate_nats_connected") == 1

        await eventually(up, "NATS is back")
        await scene.store(1)
        await scene.assert_whole(page)


@pytest.mark.slow
@pytest.mark.timeout(120)
async def test_a_connection_that_hangs(scene: Scene, proxy: NatsProxy) -> None:
    """Nothing passes and nobody hangs up: the gateway finds out by pinging, tells everybody, and catches up."""
    gateway = await scene.gateway(proxy.url)
    async with scene.follower(gateway) as page:
        async with scene.flow():
            await page.until_heard(50)
            proxy.hold()
            assert await page.until_told("state", timeout_s=40) == {"upstream": "down"}
            proxy.go_on()
            assert await page.until_told("state", 2, timeout_s=40) == {"upstream": "up"}
        await scene.assert_whole(page)
