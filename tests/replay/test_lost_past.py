"""The stream itself loses its past: it is put back, or sits at the edge of its retention."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from tests.conftest import StartGateway
from tests.replay.scene import Scene
from tests.support.frozen import frozen
from tests.support.gateway import Gateway
from tests.support.sse import SseClient


class Backup:
    """The state of a scene's server at one moment, as files."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._original = scene.nats.directory
        self._copy = self._original.with_suffix(".copy")

    async def take(self) -> None:
        await asyncio.to_thread(self._scene.nats.stop)
        shutil.copytree(self._original, self._copy)
        await asyncio.to_thread(self._scene.nats.start)
        await self._scene.until_producer_back()

    async def put_back(self) -> None:
        await asyncio.to_thread(self._scene.nats.stop)
        shutil.rmtree(self._original)
        shutil.copytree(self._copy, self._original)
        await asyncio.to_thread(self._scene.nats.start)
        await self._scene.until_producer_back()


async def hear(sse: SseClient, numbers: Sequence[int]) -> None:
    """The next events carry these numbers. Between them it is only told where it stands, and whether NATS is there."""
    got: list[int] = []
    while len(got) < len(numbers):
        event = await sse.next_event(timeout_s=30)
        if event.type == "message":
            got.append(event.json()["n"])
        else:
            assert event.type in ("natsgate.cursor", "natsgate.state"), event
    assert got == list(numbers)


@asynccontextmanager
async def further_than_the_backup(scene: Scene, gateway: Gateway, backup: Backup) -> AsyncIterator[SseClient]:
    """A client that has heard 50 events more than the backup has."""
    await scene.store(100)
    await backup.take()
    async with scene.client(gateway) as sse:
        while (await sse.next_event()).type != "natsgate.ready":
            pass  # NATS has just come back: its state is told first
        await scene.store(50, begin=100)
        await hear(sse, range(100, 150))
        yield sse


async def assert_told_that_it_is_ahead(sse: SseClient) -> None:
    """The next word, but for that NATS went and came, is a gap: the stream has not got as far as the client."""
    told = await sse.next_event(timeout_s=30)
    while told.type != "natsgate.gap":
        assert told.type == "natsgate.state", told
        told = await sse.next_event(timeout_s=30)
    assert told.json()["reason"] == "ahead"


async def test_a_stream_that_was_put_back_is_a_gap_for_those_who_were_further(scene: Scene) -> None:
    """After a restore without a new epoch, connected clients get `ahead` and then everything that is stored anew."""
    gateway, backup = await scene.gateway(), Backup(scene)
    async with further_than_the_backup(scene, gateway, backup) as sse:
        await backup.put_back()
        await assert_told_that_it_is_ahead(sse)
        await scene.store(40, begin=1000)
        await hear(sse, range(1000, 1040))


async def test_a_stream_that_was_put_back_and_grew_past_the_head_at_once_is_a_gap_too(scene: Scene) -> None:
    """The number at the head is there again, but it is another message: nobody is given half of a forked history."""
    gateway, backup = await scene.gateway(), Backup(scene)
    async with further_than_the_backup(scene, gateway, backup) as sse:
        with frozen(gateway.pid):  # so that it cannot look before the stream has grown
            await backup.put_back()
            await scene.store(100, begin=1000)
        await assert_told_that_it_is_ahead(sse)
        await scene.store(10, begin=2000)
        await hear(sse, range(2000, 2010))


async def test_a_stream_at_the_edge_of_its_retention_is_served(scene: Scene) -> None:
    """While the oldest messages go as new ones come, clients are served from what is kept, without a storm of gaps."""
    await scene.reconfigure(max_msgs=3000)
    await scene.store(3000)
    gateway = await scene.gateway(WARM_S=60)
    async with scene.client(gateway, query={"since": "all"}, keep=False) as sse:
        numbers: list[int] = []
        gaps = 0
        published = 3000
        while len(numbers) < 4000:
            if published < 6000:
                await scene.nc.publish(scene.subject, b'{"n":%d}' % published)
                published += 1
            event = await sse.next_event(timeout_s=20)
            if event.type == "natsgate.gap":
                gaps += 1
            elif event.type == "message":
                numbers.append(event.json()["n"])
    assert gaps <= 1
    assert numbers == list(range(numbers[0], numbers[0] + 4000))


async def test_a_snapshot_ends_on_a_stream_that_keeps_one_message_a_subject(scene: Scene) -> None:
    """While subjects change under it, a snapshot of several pages is shown once and ends."""
    await scene.reconfigure(max_msgs_per_subject=1)
    subjects = [f"repo.{scene.id}.k{k}" for k in range(600)]
    await scene.store(600, subjects, pad="x" * 1000)
    gateway = await scene.gateway()
    enough = asyncio.Event()

    async def change() -> None:
        n = 600
        while not enough.is_set():
            await scene.store(1, [subjects[n % 600]], begin=n, pad="y" * 1000)
            n += 1

    changing = asyncio.create_task(change())
    try:
        for _ in range(5):
            async with scene.client(gateway, query={"snapshot": "true"}, keep=False) as sse:
                shown = 0
                while (event := await sse.next_event(timeout_s=20)).type != "natsgate.ready":
                    shown += 1
                assert event.json()["snapshot"] == shown <= 600
    finally:
        enough.set()
        await changing


async def test_many_cursors_ahead_of_the_stream_do_not_hold_up_others(start_gateway: StartGateway, own_id: str) -> None:
    """A herd whose cursors the stream has not reached gets its gaps together, and others are served meanwhile."""
    gateway = await start_gateway()
    async with SseClient(gateway.url, f"repo.{own_id}.>") as first:
        incarnation = (await first.ready()).json()["cursor"].partition("-")[0]
        ahead = {"Last-Event-ID": f"{incarnation}-999999999"}
        async with AsyncExitStack() as herd:
            clients = [SseClient(gateway.url, f"repo.{own_id}-{n}.>", headers=ahead) for n in range(60)]
            await asyncio.gather(*map(herd.enter_async_context, clients))
            async with SseClient(gateway.url, f"repo.{own_id}.>", query={"since": "5m"}) as other:
                await other.ready()
            gaps = await asyncio.gather(*(client.next_event() for client in clients))
    assert {gap.json()["reason"] for gap in gaps} == {"ahead"}
