"""Nodes of the cluster die, freeze and restart under a flow of events: everybody gets every event, once, in order."""

from __future__ import annotations

import asyncio

import pytest

from tests.cluster.flow import AcknowledgedFlow
from tests.cluster.watcher import Watcher
from tests.conftest import StartGateway
from tests.support.eventually import eventually
from tests.support.frozen import frozen
from tests.support.nats_cluster import NatsCluster
from tests.support.nats_server import NatsServer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def _grows(flow: AcknowledgedFlow, by: int) -> None:
    """Wait until the stream has stored so many more events."""
    goal = flow.last + by

    async def grown() -> bool:
        return flow.last >= goal

    await eventually(grown, f"the stream stores {by} more events", timeout_s=60)


def _others(cluster: NatsCluster, but: NatsServer) -> list[NatsServer]:
    return [server for server in cluster.servers if server is not but]


@pytest.mark.parametrize("own", ["leader", "follower"])
async def test_the_leader_dies(cluster: NatsCluster, start_gateway: StartGateway, own: str) -> None:
    """The stream's leader is killed, whether or not the gateway is connected to it: everybody goes on without a gap."""
    leader = await cluster.leader()
    first = leader if own == "leader" else _others(cluster, leader)[0]
    urls = ",".join(server.url for server in [first, *_others(cluster, first)])
    gateway = await start_gateway(nats_url=urls)
    async with (
        AcknowledgedFlow(cluster.urls, rate=1000) as flow,
        Watcher(gateway.url) as watcher,
        Watcher(gateway.url) as second,
    ):
        await _grows(flow, 1000)
        await asyncio.to_thread(leader.kill)
        await _grows(flow, 3000)
        await asyncio.to_thread(leader.start, timeout_s=30)
        await cluster.leader()
        await _grows(flow, 1000)
        last = await flow.stop()
        await watcher.reaches(last)
        await second.reaches(last)


@pytest.mark.parametrize("frozen_s", [12, 20])  # the route to it is cut after 10 s; the gateway gives it up after 15
@pytest.mark.parametrize("own", ["leader", "follower"])
async def test_the_gateways_own_node_freezes_while_the_others_go_on(
    cluster: NatsCluster, start_gateway: StartGateway, own: str, frozen_s: float
) -> None:
    """The node that the gateway is connected to stops for less or more than NATS tolerates: clients stay, and get it
    all."""
    leader = await cluster.leader()
    node = leader if own == "leader" else _others(cluster, leader)[0]
    gateway = await start_gateway(nats_url=node.url)
    urls = ",".join(server.url for server in _others(cluster, node))
    async with AcknowledgedFlow(urls, rate=1000) as flow, Watcher(gateway.url) as watcher:
        await _grows(flow, 1000)
        loop = asyncio.get_running_loop()
        thaws_at = loop.time() + frozen_s
        with frozen(node.pid):
            while loop.time() < thaws_at:  # the others elect a leader when they must, and go on
                await _grows(flow, 500)
            beyond = flow.last
        await watcher.reaches(beyond)
        last = await flow.stop()
        await watcher.reaches(last)
        await watcher.hears("down")
        await watcher.hears("up")


async def test_all_nodes_restart_one_after_the_other(cluster: NatsCluster, start_gateway: StartGateway) -> None:
    """A rolling restart of the whole cluster is seen by nobody but in time."""
    gateway = await start_gateway(nats_url=cluster.urls)
    async with AcknowledgedFlow(cluster.urls, rate=1000) as flow, Watcher(gateway.url) as watcher:
        await _grows(flow, 500)
        for server in cluster.servers:
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start, timeout_s=30)
            await cluster.leader()
            await _grows(flow, 1000)
        last = await flow.stop()
        await watcher.reaches(last)
