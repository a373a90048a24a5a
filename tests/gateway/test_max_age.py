"""`MAX_AGE_S`: long-lived connections are spread over the replicas anew."""

from __future__ import annotations

import asyncio

from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.support.fleet import Fleet, histogram
from tests.support.flow import Flow
from tests.support.stored import stored


async def test_nobody_grows_older(start_gateway: StartGateway, nc: Client, own_id: str) -> None:
    """Each connection ends at 80 to 100 % of `MAX_AGE_S`, those that came together not together; it is told `max_age`
    (4200) and to come back at once, and misses nothing by it, time after time."""
    gateway = await start_gateway(MAX_AGE_S=2, HEARTBEAT_S=0.5)
    loop = asyncio.get_running_loop()
    async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=25) as fleet:
        begin = loop.time()
        await fleet.until_ready()
        async with Flow(nc, [f"repo.{own_id}.x"], pause_s=0.02, each=1):
            await fleet.until_ended(times=2)
        events = await stored(nc, f"repo.{own_id}.>")
        await fleet.until_last(events)
        ends = [sailor.endings[0] for sailor in fleet.sailors]
        fleet.assert_whole(events)
    shown = histogram(ends, begin, 0.25)
    assert {end.reason for end in ends} == {"max_age"}, shown
    assert {end.code for end in ends} == {0, 4200}
    assert all(0 < end.retry_ms <= 500 for end in ends)
    assert min(end.at for end in ends) - begin >= 1.6, shown
    assert max(end.at for end in ends) - min(end.at for end in ends) > 0.15, shown
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.total("natsgate_connections_closed_total", reason="max_age") >= 100


async def test_without_it_nobody_is_sent_away(start_gateway: StartGateway, own_id: str) -> None:
    """By default a connection may grow as old as it likes: after a reload that takes the limit away, newcomers stay."""
    gateway = await start_gateway(config="max_age_s = 1\n", HEARTBEAT_S=0.4)
    async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=3, comes_back=False) as young:
        await young.until_ready()
        gateway.config_file.write_text("")
        await asyncio.to_thread(gateway.reload)
        async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=3, comes_back=False) as old:
            await old.until_ready()
            await young.until_ended()
            async with Fleet(lambda: gateway.url, [f"repo.{own_id}.>"], each=1, comes_back=False) as last:
                await last.until_ready()
            assert old.endings == []
