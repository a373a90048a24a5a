"""NATS goes away and comes back; replicas freeze and die: nothing lost, nothing twice, connections stay."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest

from tests.replay.scene import Scene
from tests.support.follower import Follower
from tests.support.frozen import frozen


async def test_nats_killed_and_restarted_in_a_flow(scene: Scene) -> None:
    """nats-server killed and back with its store, three times, while a producer goes on: connections stay,
    heartbeats go on, every stored event arrives once, in order, and nobody is told of a gap."""
    gateway = await scene.gateway(HEARTBEAT_S=0.5)
    async with scene.follower(gateway) as one, scene.follower(gateway, scene.other_feed) as other:
        async with scene.flow(scene.subjects) as flow:
            for turn in range(3):
                await flow.more(100)
                await asyncio.to_thread(scene.nats.restart)
                for page in (one, other):
                    await page.until_told("state", 2 * turn + 2)
            await flow.more(50)
        await scene.assert_whole(one)
        await scene.assert_whole(other, scene.other_feed)
        for page in (one, other):
            states = [each["upstream"] for each in page.told_of("state")]
            assert states == ["down", "up"] * (len(states) // 2)


async def test_events_of_the_outage_that_another_replica_took(scene: Scene) -> None:
    """A replica frozen for a moment while the flow goes on catches up on the same connections."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page:
        async with scene.flow() as flow:
            for _ in range(4):
                await flow.more(50)
                with frozen(gateway.pid):
                    await flow.more(100)
        await scene.assert_whole(page)


async def test_a_replica_cut_off_by_nats_while_frozen(scene: Scene) -> None:
    """Frozen until the server has dropped its connections, with events stored meanwhile: it catches up."""
    gateway = await scene.gateway(WARM_S=0, LOG_BYTES=50_000)
    async with scene.follower(gateway) as page:
        async with scene.flow(each=50) as flow:
            with frozen(gateway.pid):
                await flow.more(500)
                await asyncio.to_thread(scene.nats.restart)
                await flow.more(1000)
            await flow.more(100)
        await scene.assert_whole(page)


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_paused_for_longer_than_nats_tolerates(scene: Scene) -> None:
    """A replica stopped for 25 s under a flow wakes up, finds its connections stale, and loses nothing."""
    gateway = await scene.gateway(WARM_S=0, LOG_BYTES=500_000)
    async with scene.follower(gateway) as page:
        async with scene.flow(each=20) as flow:
            with frozen(gateway.pid):
                await asyncio.sleep(25)  # the pause is the fault itself
            await flow.more(100)
        await scene.assert_whole(page, timeout_s=60)


async def test_nats_frozen(scene: Scene) -> None:
    """nats-server frozen and thawed: what was stored around it arrives once, in order."""
    gateway = await scene.gateway()
    async with scene.follower(gateway) as page:
        async with scene.flow() as flow:
            await flow.more(50)
            async with AsyncExitStack() as meanwhile:
                with frozen(scene.nats.pid):
                    await meanwhile.enter_async_context(scene.follower(gateway))
                await flow.more(50)
        await scene.assert_whole(page)


async def test_a_killed_replicas_clients_resume_on_another(scene: Scene) -> None:
    """Replicas SIGKILLed one after the other under a flow: their clients go on elsewhere, each event once."""
    replicas = [await scene.gateway(WARM_S=30 * (n % 2)) for n in range(4)]
    where = replicas[0].url
    async with AsyncExitStack() as followers:
        feeds = [scene.feed, scene.other_feed] * 15
        pages = [await followers.enter_async_context(Follower(lambda: where, feed)) for feed in feeds]
        for page in pages:
            await page.until_ready()
        async with scene.flow(scene.subjects, pause_s=0.005) as flow:
            for killed, following in pairwise(replicas):
                await flow.more(150)
                where = following.url
                await asyncio.to_thread(killed.kill)
            await flow.more(150)
        for page, feed in zip(pages, feeds, strict=True):
            await scene.assert_whole(page, feed, connects=4)
