"""The stream itself loses its past: it is put back, or sits at the edge of its retention."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.sse import SseClient

Connect = Callable[[str], Awaitable[Client]]


async def test_a_stream_that_was_put_back_is_a_gap_for_those_who_were_further(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: Connect, own_id: str
) -> None:
    """After a restore without a new epoch, connected clients get `ahead` and then everything that is stored anew."""
    gateway: Gateway = await start_gateway(nats_url=own_nats.url)
    subject = f"repo.{own_id}.x"

    async def store(numbers: range) -> None:
        nc = await connect_nats(own_nats.url)
        for n in numbers:
            await nc.jetstream().publish(subject, b'{"n":%d}' % n)
        await nc.close()

    await store(range(100))
    own_nats.stop()
    shutil.copytree(own_nats.directory, own_nats.directory.with_suffix(".copy"))
    own_nats.start()
    async with SseClient(gateway.url, subject) as sse:
        while (await sse.next_event()).type != "natsgate.ready":
            pass  # NATS has just come back: its state is told first
        await store(range(100, 150))
        assert [(await sse.next_event()).json()["n"] for _ in range(50)] == list(range(100, 150))

        own_nats.stop()
        shutil.rmtree(own_nats.directory)
        shutil.copytree(own_nats.directory.with_suffix(".copy"), own_nats.directory)
        own_nats.start()
        gap = await sse.next_event(timeout_s=30)
        while gap.type != "natsgate.gap":
            assert gap.type == "natsgate.state", gap
            gap = await sse.next_event(timeout_s=30)
        assert gap.json()["reason"] == "ahead"
        await store(range(1000, 1040))
        got: list[int] = []
        while len(got) < 40:
            event = await sse.next_event(timeout_s=30)
            if event.type == "message":
                got.append(event.json()["n"])
    assert got == list(range(1000, 1040))


async def test_a_stream_at_the_edge_of_its_retention_is_served(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: Connect, own_id: str
) -> None:
    """While the oldest messages go as new ones come, clients are served from what is kept, without a storm of gaps."""
    nc = await connect_nats(own_nats.url)
    js = nc.jetstream()
    info = await js.stream_info("EVENTS")
    info.config.max_msgs = 3000
    await js.update_stream(info.config)
    subject = f"repo.{own_id}.x"
    for n in range(3000):
        await nc.publish(subject, b'{"n":%d}' % n)
    await nc.flush()

    async def full() -> bool:
        return (await js.stream_info("EVENTS")).state.messages == 3000

    await eventually(full, "the stream is full")
    gateway: Gateway = await start_gateway(nats_url=own_nats.url, WARM_S=60)
    async with SseClient(gateway.url, subject, query={"since": "all"}, keep=False) as sse:
        numbers: list[int] = []
        gaps = 0
        published = 3000
        while len(numbers) < 4000:
            if published < 6000:
                await nc.publish(subject, b'{"n":%d}' % published)
                published += 1
            event = await sse.next_event(timeout_s=20)
            if event.type == "natsgate.gap":
                gaps += 1
            elif event.type == "message":
                numbers.append(event.json()["n"])
    assert gaps <= 1
    assert numbers == list(range(numbers[0], numbers[0] + 4000))
