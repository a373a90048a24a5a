"""Clients slower than the flow: beyond the log they read the stream; they cost little, and lose nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.replay.scene import Scene
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.follower import assert_same
from tests.support.gateway import Gateway
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseEvent
from tests.support.stored import sequence_of

SMALL = 4096


async def closed(gateway: Gateway, reason: str) -> float:
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.total("natsgate_connections_closed_total", reason=reason)


async def test_far_behind_the_log(scene: Scene) -> None:
    """Stalled while ten times the log goes by, both transports catch up from the stream, in order, once."""
    gateway = await scene.gateway(LOG_BYTES=300_000, WRITE_TIMEOUT_S=60)
    async with (
        scene.client(gateway, receive_buffer_bytes=SMALL, keep=False) as page,
        RawWebSocket(gateway.url, receive_buffer_bytes=SMALL, keep=False) as board,
    ):
        await page.ready()
        await board.subscribe(scene.feed)
        await scene.store(3000, scene.subjects, pad="x" * 1000)
        expected = await scene.stored()
        events: list[SseEvent] = [await page.next_event() for _ in expected]
        assert_same(events, expected)
        for each in expected:
            assert sequence_of((await board.next_op("event"))["cursor"]) == each.sequence
        await scene.publish('{"n":"live"}')
        assert (await page.next_message()).data == '{"n":"live"}'
        assert (await board.next_op("event"))["event"] == {"n": "live"}
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_replayed_events_total", source="stream") > 0


@pytest.mark.slow
@pytest.mark.timeout(240)
async def test_two_hundred_stalled_clients(scene: Scene) -> None:
    """Two hundred clients stall while 50 MB go by: memory stays bounded, and each gets all of it when it reads."""
    log_bytes = 8 * 2**20
    gateway = await scene.gateway(LOG_BYTES=log_bytes, WRITE_TIMEOUT_S=200, HEARTBEAT_S=60)
    async with Crowd(gateway.url, [(scene.feed, "")] * 200, receive_buffer_bytes=SMALL) as crowd:
        await crowd.until_ready()
        crowd.pause()
        resident = gateway.rss_bytes()
        last = await scene.store(10_000, pad="x" * 5000)
        grown = gateway.rss_bytes() - resident
        assert grown < 3 * log_bytes + 200 * 256 * 1024, f"{grown / 2**20:.0f} MB"
        # One in ten reads on: reading all of it by all of them would be 10 GB.
        for member in crowd.members[20:]:
            assert member.transport is not None
            member.transport.abort()
        crowd.members = crowd.members[:20]
        crowd.go_on()
        await crowd.until_last(last, timeout_s=150)
        for member in crowd.members:
            assert member.sequences == list(range(1, last + 1))
            assert member.gaps == 0
        assert gateway.rss_bytes() - resident < 3 * log_bytes + 200 * 256 * 1024
    assert await closed(gateway, "slow") == 0


@pytest.mark.slow
async def test_readers_of_all_speeds(scene: Scene) -> None:
    """Forty clients that stall and read on at random, beyond the log, get each event once, in order."""
    gateway = await scene.gateway(LOG_BYTES=100_000, WARM_S=0, WRITE_TIMEOUT_S=60)
    async with Crowd(gateway.url, [(scene.feed, "")] * 40, receive_buffer_bytes=SMALL) as crowd:
        await crowd.until_ready()
        storing = asyncio.create_task(scene.store(6000, pad="x" * 500))
        turn = 0
        while not storing.done() or turn < 40:
            turn += 1
            for number, member in enumerate(crowd.members):
                assert member.transport is not None
                if (number * 7 + turn) % 3:
                    member.transport.pause_reading()
                else:
                    member.transport.resume_reading()
            await asyncio.sleep(0.02)  # the rhythm of the stalls; nothing waits for it
        last = await storing
        crowd.go_on()
        await crowd.until_last(last, timeout_s=40)
        for member in crowd.members:
            assert member.sequences == list(range(1, last + 1))
            assert member.gaps == 0


@pytest.mark.slow
async def test_a_trickling_reader_is_not_closed(scene: Scene) -> None:
    """A client that takes 5 KB ten times a second, for several times `WRITE_TIMEOUT_S`, is slow but not gone: the
    kernel accepts its bytes all the while, though never as much as would make the gateway's socket writable."""
    gateway = await scene.gateway(WRITE_TIMEOUT_S=1)
    async with scene.client(gateway, receive_buffer_bytes=SMALL, keep=False) as page:
        await page.ready()
        storing = asyncio.create_task(scene.store(3000, pad="x" * 1000))
        loop = asyncio.get_running_loop()
        end = loop.time() + 6
        taken = 0
        while loop.time() < end and await closed(gateway, "slow") == 0:
            taken += len(await page.tcp.receive(5000))
            await asyncio.sleep(0.1)  # the client's slowness
        await storing
        assert await closed(gateway, "slow") == 0, f"closed after {taken} bytes"
        assert taken < 1_000_000, "it was behind all the time"


async def test_one_that_takes_nothing_is_closed(scene: Scene) -> None:
    """After `WRITE_TIMEOUT_S` without one byte accepted it is closed as `slow`, and resumes with its cursor."""
    gateway = await scene.gateway(WRITE_TIMEOUT_S=1, LOG_BYTES=100_000)
    heard: list[SseEvent] = []
    async with scene.client(gateway, receive_buffer_bytes=SMALL, keep=False) as page:
        await page.ready()
        await scene.store(2000, pad="x" * 1000)

        async def gone() -> bool:
            return await closed(gateway, "slow") == 1

        await eventually(gone, "it is closed as slow")
        try:
            while True:
                heard.append(await page.next_event())
        except (OSError, EOFError):
            pass
    expected = await scene.stored()
    assert 0 < len(heard) < len(expected)
    async with scene.client(gateway, heard[-1].last_event_id) as page:
        while (event := await page.next_event()).type == "message":
            heard.append(event)
    assert_same(heard, expected)


async def test_half_open_peers_are_found(scene: Scene) -> None:
    """TCP keep-alive is on for every client's socket: the kernel's table shows its timer on a quiet one."""
    gateway = await scene.gateway(HEARTBEAT_S=60)
    async with scene.client(gateway) as sse:
        await sse.ready()

        async def keepalive() -> bool:
            table = await asyncio.to_thread(Path("/proc/net/tcp").read_text)
            lines = [line.split() for line in table.splitlines()[1:]]
            ours = [line for line in lines if line[1].endswith(f":{gateway.port:04X}") and line[3] == "01"]
            assert len(ours) == 1
            return ours[0][5].startswith("02:")

        await eventually(keepalive, "the keep-alive timer runs", timeout_s=3)
