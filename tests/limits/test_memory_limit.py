"""Above 90 % of `MEMORY_LIMIT_BYTES` new connections are turned away, and old ones stay."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from gateway.settings import Settings
from tests.conftest import StartGateway
from tests.limits.refusals import Asking, refused
from tests.support.http_reply import fetch_async
from tests.support.producer import publish
from tests.support.raw_ws import RawWebSocket
from tests.support.sse import SseClient


def test_default() -> None:
    """Without a setting it is the cgroup's."""
    assert Settings(auth="none").memory_limit_bytes is None


async def test_when_memory_is_short_nobody_new_comes_in(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """A limit just under what the process holds: who comes is told to come again (`overloaded`), who is inside gets
    every event, health and metrics answer; with more memory the next one is served."""
    gateway = await start_gateway(config="")
    feed = f"repo.{own_id}.>"
    async with SseClient(gateway.url, feed) as page, RawWebSocket(gateway.url) as board:
        await page.ready()
        await board.subscribe(feed)
        limit = gateway.rss_bytes()  # in use: more than 90 % of it
        gateway.config_file.write_text(f"memory_limit_bytes = {limit}\n")
        await asyncio.to_thread(gateway.reload)
        await refused(gateway, Asking(), "overloaded", status=503)
        for n in range(20):
            await publish(nc, f"repo.{own_id}.x", f'{{"n":{n}}}')
            assert (await page.next_event()).json() == {"n": n}
            assert (await board.next_op("event"))["event"] == {"n": n}
        assert (await fetch_async(gateway.host, gateway.port, "/readyz")).status == 200
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.total("natsgate_memory_limit_bytes") == limit
        assert 0.9 * limit < metrics.total("natsgate_memory_used_bytes") < 1.2 * limit
        gateway.config_file.write_text(f"memory_limit_bytes = {2 * limit}\n")
        await asyncio.to_thread(gateway.reload)
        async with SseClient(gateway.url, feed) as other:
            await other.ready()
