"""Crowds: as many connections from one address as the machine gives, and those that come and vanish."""

from __future__ import annotations

import asyncio
import sys

import pytest
from structlog import get_logger

from gateway.descriptors import Descriptors
from gateway.transports.limits import MOST_WAITING
from tests.attacks.conftest import MakeScene
from tests.attacks.flood import connect_and_reset
from tests.attacks.mob import raise_descriptor_limit
from tests.attacks.requests import END, HANDSHAKE, STREAM
from tests.attacks.scene import MIB
from tests.limits.counts import until_counts
from tests.support.eventually import eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

WANTED = 20_000
OWN = 300
"""Descriptors that this process needs for itself."""


def as_many_as_possible() -> int:
    """20,000, or what one process may hold here; the number is printed."""
    count = min(WANTED, raise_descriptor_limit() - OWN)
    print(f"\n{count:,} connections (a process may have {raise_descriptor_limit():,} descriptors)", file=sys.__stderr__)
    return count


async def test_a_crowd_of_one_address(make_scene: MakeScene) -> None:
    """Without a limit per address all of them are inside, as far as `MAX_CONNECTIONS` and the descriptors go, and the
    others are told to come again; then they all go in one moment. A second crowd takes no more than the first."""
    count = as_many_as_possible()
    async with await make_scene(
        "a crowd", rss_mib=110, descriptors=count + 100, lines=8000, left_mib=80, refuses=True
    ) as scene:
        able = Descriptors(raise_descriptor_limit()).most_connections(WANTED, MOST_WAITING, get_logger())
        peaks = []
        for _ in range(2):
            scene.peak = scene.before
            with scene.mob() as mob:
                await asyncio.to_thread(mob.open, count, STREAM + END)
                assert len(mob.sockets) == count

                async def full() -> bool:
                    metrics = await asyncio.to_thread(scene.gateway.metrics)
                    return metrics.total("natsgate_connections") >= min(count, able - 10)  # newcomers may have some

                await eventually(full, "all that there is room for are inside", timeout_s=60, every_s=0.5)
                await asyncio.to_thread(mob.close)
            await until_counts(scene.gateway, 30, open=8)
            peaks.append(scene.peak)
        assert peaks[1].rss_bytes < peaks[0].rss_bytes + 20 * MIB
        scene.peak = peaks[0].and_at_most(peaks[1])


async def test_a_crowd_of_one_address_with_a_limit(make_scene: MakeScene) -> None:
    """With `MAX_CONNECTIONS_PER_IP` a hundred are inside, the others are told to come again, and nobody else
    notices."""
    count = as_many_as_possible()
    async with await make_scene(
        "a crowd, limited", {"MAX_CONNECTIONS_PER_IP": 100}, rss_mib=100, descriptors=5000, lines=1500
    ) as scene:
        with scene.mob() as mob:
            await asyncio.to_thread(mob.open, count, STREAM + END)

            async def refused() -> bool:
                metrics = await asyncio.to_thread(scene.gateway.metrics)
                return metrics.total("natsgate_requests_rejected_total", reason="limit_connections") == count - 100

            await eventually(refused, "all but a hundred are refused", timeout_s=60, every_s=0.5)
            assert await asyncio.to_thread(mob.ended) == count - 100


async def test_connect_and_reset(make_scene: MakeScene) -> None:
    """Connections that are reset at once, behind nothing, a request or a handshake, as fast as one process can."""
    async with await make_scene("connect and reset", rss_mib=40, descriptors=300, lines=2500) as scene:
        address = (scene.gateway.host, scene.gateway.port)
        requests = [b"", STREAM, STREAM + END, HANDSHAKE, HANDSHAKE + END]
        count = await asyncio.to_thread(connect_and_reset, address, requests, seconds=6)
        print(f"{count:,} connections were reset", file=sys.__stderr__)
        assert count > 500
