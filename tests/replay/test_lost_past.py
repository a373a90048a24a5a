"""The stream itself loses its past: it is put back, or sits at the edge of its retention."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

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


async def test_a_stream_that_was_put_back_and_grew_past_the_head_at_once_is_a_gap_too(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: Connect, own_id: str
) -> None:
    """The number at the head is there again, but it is another message: nobody is given half of a forked history."""
    gateway: Gateway = await start_gateway(nats_url=own_nats.url)
    subject = f"repo.{own_id}.x"

    async def store(numbers: range) -> None:
        nc = await connect_nats(own_nats.url)
        for n in numbers:
            await nc.jetstream().publish(subject, b'{"n":%d}' % n)
        await nc.close()

    await store(range(80))
    own_nats.stop()
    shutil.copytree(own_nats.directory, own_nats.directory.with_suffix(".copy"))
    own_nats.start()
    async with SseClient(gateway.url, subject) as sse:
        while (await sse.next_event()).type != "natsgate.ready":
            pass  # NATS has just come back: its state is told first
        await store(range(80, 120))
        assert [(await sse.next_event()).json()["n"] for _ in range(40)] == list(range(80, 120))

        own_nats.stop()
        shutil.rmtree(own_nats.directory)
        shutil.copytree(own_nats.directory.with_suffix(".copy"), own_nats.directory)
        os.kill(gateway.pid, signal.SIGSTOP)  # so that it cannot look before the stream has grown
        own_nats.start()
        await store(range(1000, 1100))
        os.kill(gateway.pid, signal.SIGCONT)
        told = await sse.next_event(timeout_s=30)
        while told.type != "natsgate.gap":
            assert told.type == "natsgate.state", told
            told = await sse.next_event(timeout_s=30)
        assert told.json()["reason"] == "ahead"
        await store(range(2000, 2010))
        got: list[int] = []
        while len(got) < 10:
            event = await sse.next_event(timeout_s=30)
            if event.type == "message":
                got.append(event.json()["n"])
    assert got == list(range(2000, 2010))


async def test_a_snapshot_ends_on_a_stream_that_keeps_one_message_a_subject(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: Connect, own_id: str
) -> None:
    """While subjects change under it, a snapshot of several pages is shown once and ends."""
    nc = await connect_nats(own_nats.url)
    js = nc.jetstream()
    info = await js.stream_info("EVENTS")
    info.config.max_msgs_per_subject = 1
    await js.update_stream(info.config)
    for k in range(600):
        await nc.publish(f"repo.{own_id}.k{k}", b'{"pad":"%b"}' % (b"x" * 1000))
    await nc.flush()
    gateway: Gateway = await start_gateway(nats_url=own_nats.url)
    enough = asyncio.Event()

    async def change() -> None:
        k = 0
        while not enough.is_set():
            await js.publish(f"repo.{own_id}.k{k % 600}", b'{"pad":"%b"}' % (b"y" * 1000))
            k += 1

    changing = asyncio.create_task(change())
    try:
        for _ in range(5):
            async with SseClient(gateway.url, f"repo.{own_id}.>", query={"snapshot": "true"}, keep=False) as sse:
                shown = 0
                while (event := await sse.next_event(timeout_s=20)).type != "natsgate.ready":
                    shown += 1
                assert event.json()["snapshot"] == shown <= 600
    finally:
        enough.set()
        await changing


async def test_many_cursors_ahead_of_the_stream_do_not_hold_up_others(start_gateway: StartGateway, own_id: str) -> None:
    """A herd whose cursors the stream has not reached gets its gaps together, and others are served meanwhile."""
    gateway: Gateway = await start_gateway()
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
