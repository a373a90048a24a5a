"""Slow attacks: connections that are held open with as little as possible."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from nats.aio.client import Client

from tests.attacks.conftest import MakeScene
from tests.attacks.mob import Mob
from tests.attacks.requests import END, HANDSHAKE, STREAM
from tests.attacks.scene import MIB
from tests.limits.counts import until_counts
from tests.support.eventually import eventually
from tests.support.metrics import Metrics
from tests.support.producer import burst
from tests.support.raw_ws import TEXT, encode_frame

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

TRICKLE_S = 0.3


def trickle(mob: Mob, byte: bytes, seconds: float) -> None:
    """Each sends a byte now and then."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        mob.send(byte)
        time.sleep(TRICKLE_S)


@pytest.mark.parametrize("head", [STREAM, HANDSHAKE], ids=["headers", "handshake"])
async def test_slow_loris(make_scene: MakeScene, head: bytes) -> None:
    """5,000 requests whose headers trickle in, a byte at a time: each is given up in its time or before, and none
    becomes a connection."""
    settings, bounds = {"REQUEST_TIMEOUT_S": 2}, {"rss_mib": 100, "descriptors": 4500, "lines": 120}
    async with await make_scene("slow-loris", settings, **bounds) as scene:
        with scene.mob() as mob:
            await asyncio.to_thread(mob.open, 5000, head + b"X-Slow: ")
            await asyncio.to_thread(trickle, mob, b"x", 3)
            assert await asyncio.to_thread(mob.until_ended) == len(mob.sockets)
        rejected = scene.gateway.metrics().by("natsgate_requests_rejected_total", "reason")
        assert rejected.keys() == {"request_timeout", "too_many_waiting"}
        assert sum(rejected.values()) == 5000


HALVES = (
    b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /auth/ticket HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
    b"",
)


async def test_half_requests(make_scene: MakeScene) -> None:
    """Three kinds of 2,000: those who say nothing, those whose body does not come, and those who have had an answer
    and keep the connection. None of them is held beyond its time, and a second crowd takes no more than the first."""
    settings, bounds = {"REQUEST_TIMEOUT_S": 2}, {"rss_mib": 120, "descriptors": 4500, "lines": 200, "left_mib": 100}
    async with await make_scene("half requests", settings, **bounds) as scene:
        peaks = []
        for _ in range(2):
            scene.peak = scene.before
            with scene.mob() as mob:
                for first in HALVES:
                    await asyncio.to_thread(mob.open, 2000, first)
                assert await asyncio.to_thread(mob.until_ended) == len(mob.sockets) == 6000
            peaks.append(scene.peak)
        assert peaks[1].rss_bytes < peaks[0].rss_bytes + 20 * MIB
        scene.peak = peaks[0].and_at_most(peaks[1])


async def test_slow_frames(make_scene: MakeScene) -> None:
    """1,500 WebSockets that send all of a 64 KiB message but its last bytes, and those one by one: what has come of
    them is bounded for all together, beyond that they are told to come again, and the memory is had again by those who
    come next."""
    bounds: dict[str, Any] = {"rss_mib": 160, "descriptors": 1600, "lines": 3200, "left_mib": 130}
    async with await make_scene("slow frames", **bounds) as scene:
        # Under this mask the bytes that trickle in are text as well.
        frame = encode_frame(TEXT, b"x" * 60_000, key=bytes(4))
        peaks = []
        for turn in (1, 2):
            scene.peak = scene.before
            with scene.mob() as mob:
                await asyncio.to_thread(mob.open, 1500, HANDSHAKE + END)
                await until_counts(scene.gateway, 30, open=1508)
                for at in range(0, 56_000, 8_000):
                    await asyncio.to_thread(mob.send_whole, frame[at : at + 8_000])
                await asyncio.to_thread(trickle, mob, b"x", 2)

                async def sent_away(turn: int = turn) -> Metrics | None:
                    metrics = await asyncio.to_thread(scene.gateway.metrics)
                    many = metrics.total("natsgate_connections_closed_total", reason="overloaded") > 100 * turn
                    return metrics if many else None

                metrics = await eventually(sent_away, "those beyond the bound are told to come again", timeout_s=20)
                assert 32 * MIB < metrics.total("natsgate_unread_bytes") <= 64 * MIB
                assert metrics.total("natsgate_connections_closed_total", reason="bad_data") == 0
            await until_counts(scene.gateway, 30, open=8)
            peaks.append(scene.peak)
        assert peaks[1].rss_bytes < peaks[0].rss_bytes + 30 * MIB
        scene.peak = peaks[0].and_at_most(peaks[1])


async def test_readers_of_a_byte_a_second(make_scene: MakeScene, nc: Client) -> None:
    """300 clients of a busy feed that read a byte a second: they fall behind, cost what their sockets hold, and are
    closed as `slow` once the kernel takes nothing more from us for `WRITE_TIMEOUT_S`."""
    settings, bounds = {"WRITE_TIMEOUT_S": 4}, {"rss_mib": 110, "descriptors": 350, "lines": 700}
    async with await make_scene("a byte a second", settings, **bounds) as scene:
        with scene.mob() as mob:
            await asyncio.to_thread(mob.open, 300, STREAM + END, receive_buffer_bytes=2048)
            await until_counts(scene.gateway, 30, open=308)

            async def closed() -> bool:
                await burst(nc, "repo.attack.busy", ['{"pad":"%s"}' % ("x" * 2000)] * 50)
                await asyncio.to_thread(mob.read, 1)
                metrics = await asyncio.to_thread(scene.gateway.metrics)
                return metrics.total("natsgate_connections_closed_total", reason="slow") == 300

            await eventually(closed, "all are closed as slow", timeout_s=40, every_s=1)
