"""The tap opened cold, again and again, on a node that lags behind the leader: no client ever misses an event."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.flow import AcknowledgedFlow
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.gateway import Gateway
from tests.support.nats_cluster import NatsCluster
from tests.support.sse import SseClient
from tests.support.stored import sequence_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]
TIMES = 500
EVENTS = 20


async def _closed(gateway: Gateway) -> None:
    """Wait until the tap is closed: nothing but answers to reads is subscribed to."""

    async def closed() -> bool:
        page = await asyncio.to_thread(gateway.metrics)
        return page.total("natsgate_connections") == 0 and page.total("natsgate_nats_subscriptions") <= 1

    await eventually(closed, "the tap closes", every_s=0.005)


async def test_no_hole_however_often_the_tap_opens(cluster: NatsCluster, start_gateway: StartGateway) -> None:
    """Under a flow of 2,000 events per second each newcomer opens the tap anew, and gets contiguous events from its
    `ready` on."""
    leader = await cluster.leader()
    follower = next(server for server in cluster.servers if server is not leader)
    gateway = await start_gateway(nats_url=follower.url, LINGER_S=0, WARM_S=0, LOG_LEVEL="debug")
    async with AcknowledgedFlow(leader.url, rate=2000) as flow:
        for _ in range(TIMES):
            async with SseClient(gateway.url, "repo.>", keep=False) as client:
                at = None
                for _ in range(EVENTS):
                    event = await client.next_event()
                    sequence = sequence_of(event.id or "")
                    new = event.type == "message"
                    assert at is None or sequence == at + new, f"after {at} came {event}"
                    at = sequence
            await _closed(gateway)
        await flow.stop()
    assert len(gateway.logs("tap_opened")) == TIMES
