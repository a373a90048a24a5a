"""Many come back at once: served from memory, without a read each, while live events flow."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.coming_back import NO_LOG, cursor_now
from tests.support.crowd import Crowd
from tests.support.eventually import eventually
from tests.support.flow import Flow, store
from tests.support.follower import Follower, assert_same
from tests.support.nats_server import NatsServer
from tests.support.stored import moved, sequence_of, stored

ConnectNats = Callable[[str], Awaitable[Client]]


def stream_requests(server: NatsServer) -> int:
    """How many JetStream API requests the server has had."""
    return int(server.monitor("jsz")["api"]["total"])


def messages_to_clients(server: NatsServer) -> int:
    return int(server.monitor("varz")["out_msgs"])


async def test_a_fresh_replica_is_warm(
    own_nats: NatsServer, start_gateway: StartGateway, connect_nats: ConnectNats, own_id: str
) -> None:
    """A replica that has just started serves 300 clients with cursors 50 events back from its log."""
    old = await start_gateway(nats_url=own_nats.url)
    nc = await connect_nats(own_nats.url)
    filters = f"repo.{own_id}.>"
    cursor = await cursor_now(old, filters)
    last = await store(nc, [f"repo.{own_id}.x"], 500)
    back = moved(cursor, lambda _: last - 50)
    fresh = await start_gateway(nats_url=own_nats.url, WARM_S=60)
    before = stream_requests(own_nats), messages_to_clients(own_nats)
    async with Crowd(fresh.url, [(filters, back)] * 300) as crowd:
        await crowd.until_last(last)
        await crowd.until_ready()
        for member in crowd.members:
            assert member.sequences == list(range(last - 49, last + 1))
            assert member.gaps == 0
    metrics = await asyncio.to_thread(fresh.metrics)
    assert metrics.total("natsgate_replays_total", source="log") >= 295
    assert stream_requests(own_nats) - before[0] < 30
    assert messages_to_clients(own_nats) - before[1] < 1500


@pytest.mark.parametrize("settings", [{}, NO_LOG], ids=["log", "stream"])
async def test_a_storm(
    own_nats: NatsServer,
    start_gateway: StartGateway,
    connect_nats: ConnectNats,
    own_id: str,
    settings: dict[str, object],
) -> None:
    """Five hundred clients of fifty feeds come back at once, 50 events behind: caught up in seconds, without one
    read per client, while events flow to others."""
    gateway = await start_gateway(nats_url=own_nats.url, settings=settings)
    nc = await connect_nats(own_nats.url)
    cursor = await cursor_now(gateway, f"user.{own_id}.>")
    last = await store(nc, [f"repo.{own_id}-{k}.x" for k in range(50)], 2500)
    targets = [(f"repo.{own_id}-{n % 50}.>", moved(cursor, lambda _: sequence_of(cursor))) for n in range(500)]
    async with (
        Follower(lambda: gateway.url, f"user.{own_id}.>") as live,
        Flow(nc, [f"user.{own_id}.x"], pause_s=0.005) as flow,
    ):
        await live.until_ready()
        before = stream_requests(own_nats), messages_to_clients(own_nats), len(live.heard)
        loop = asyncio.get_running_loop()
        begin = loop.time()
        async with Crowd(gateway.url, targets) as crowd:
            await crowd.until_ready()
            caught_up = max(member.ready_at or 0 for member in crowd.members) - begin
            spent = stream_requests(own_nats) - before[0]
            heard_meanwhile = len(live.heard) - before[2]
            begin_sequence = sequence_of(cursor)
            for n, member in enumerate(crowd.members):
                assert member.sequences == list(range(begin_sequence + 1 + n % 50, last + 1, 50))
                assert member.gaps == 0
        await flow.stop()
        expected = await stored(nc, f"user.{own_id}.>")

        async def all_heard() -> bool:
            return bool(live.heard) and live.sequences[-1] == expected[-1].sequence

        await eventually(all_heard, "live events arrive")
        assert_same(live.heard, expected[-len(live.heard) :])
    assert caught_up < 10
    assert spent - heard_meanwhile < 250, f"{spent} requests, {heard_meanwhile} of the producer"
    assert heard_meanwhile > 0
