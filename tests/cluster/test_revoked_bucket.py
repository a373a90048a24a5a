"""Who is revoked stays known, and can be changed, while nodes of the cluster die."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gateway.core.bucket import BUCKET_SHAPE
from tests.auth.following import Following
from tests.support.command import natsgate
from tests.support.eventually import eventually
from tests.support.nats_cluster import NatsCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


async def _bucket(cluster: NatsCluster) -> dict[str, Any]:
    return await cluster.ask(f"$JS.API.STREAM.INFO.{BUCKET_SHAPE.name}")


async def _run(cluster: NatsCluster, *arguments: str) -> None:
    """A command that has to work in the end: while a leader is elected, JetStream says no for some seconds."""

    async def done() -> bool:
        ended = await asyncio.to_thread(natsgate, *arguments, settings={"NATS_URL": cluster.urls}, timeout_s=40)
        return ended.returncode == 0

    await eventually(done, f"natsgate {' '.join(arguments)} works", timeout_s=60)


async def test_the_buckets_leader_dies(cluster: NatsCluster) -> None:
    """The bucket has as many copies as the stream. Its leader dies, then the next one: what was revoked stays revoked
    all the while, and what is revoked and lifted meanwhile is followed."""
    await _run(cluster, "provision")
    assert (await _bucket(cluster))["config"]["num_replicas"] == 3
    expected = {"forever": 4070908800.0}
    await _run(cluster, "revoke", "forever", "--at", "2099-01-01T00:00:00Z")
    async with Following(cluster.urls) as replica:
        await replica.holds(expected)
        for turn in range(2):

            async def led() -> Any:
                return cluster.by_name((await _bucket(cluster)).get("cluster", {}).get("leader", ""))

            leader = await eventually(led, "the bucket has a leader", timeout_s=40)
            await asyncio.to_thread(leader.kill)
            await _run(cluster, "revoke", f"user-{turn}", "--at", "2026-01-01T00:00:00Z")
            expected[f"user-{turn}"] = 1767225600.0
            await replica.holds(expected, timeout_s=60)
            await asyncio.to_thread(leader.start, timeout_s=30)
            await cluster.leader()
        await _run(cluster, "revoke", "--lift", "user-0")
        del expected["user-0"]
        await replica.holds(expected, timeout_s=60)
        assert replica.lifted == {"user-0"}
