"""Feeds: as many as are allowed, and those that are asked for and given up as fast as a client can."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from contextlib import AsyncExitStack

import pytest
from nats.aio.client import Client

from tests.attacks.conftest import MakeScene
from tests.support.eventually import eventually
from tests.support.producer import burst
from tests.support.raw_ws import CLOSE, Ended, RawWebSocket, encode_op
from tests.support.stored import sequence_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(150)]

CONNECTIONS, FEEDS, FILTERS = 8, 125, 32
"""1,000 feeds with `MAX_FILTERS` each."""

EVENTS = 20


async def test_a_thousand_feeds_with_the_most_filters(make_scene: MakeScene, nc: Client) -> None:
    """Each has 32 filters, half of them with wildcards, one of which wants what all the others want: every event of
    that is written a thousand times, in order, and the others get theirs."""
    settings, bounds = {"INBOUND_RATE": 0}, {"rss_mib": 120, "descriptors": 40, "lines": 100, "left_mib": 80}
    async with await make_scene("1,000 feeds", settings, **bounds) as scene, AsyncExitStack() as stack:
        boards = []
        for number in range(CONNECTIONS):
            board = await stack.enter_async_context(RawWebSocket(scene.gateway.url, keep=False))
            boards.append(board)
            for feed in range(FEEDS):
                # As short as they can be: the filters of a connection are bounded in bytes.
                some = [f"task.{number:x}{feed:x}.{n:x}" for n in range(FILTERS // 2)]
                wild = [f"task.{number:x}{feed:x}.*.{n:x}" for n in range(FILTERS // 2 - 1)]
                await board.send(encode_op(op="subscribe", ref=feed, subjects=[*some, *wild, "ci.attack.*"]))

        async def subscribed() -> bool:
            metrics = await asyncio.to_thread(scene.gateway.metrics)
            return metrics.total("natsgate_feeds") >= CONNECTIONS * FEEDS + 8

        await eventually(subscribed, "a thousand feeds are served", timeout_s=30)
        readings = [asyncio.create_task(read_events(board, FEEDS * EVENTS)) for board in boards]
        for _ in range(EVENTS):
            await burst(nc, "ci.attack.x", ["{}"])
            await asyncio.sleep(0.1)  # the rhythm of the events; nothing waits for it
        await asyncio.wait_for(asyncio.gather(*readings), 60)


async def read_events(board: RawWebSocket, count: int) -> None:
    """Read until so many events came; each feed's are in order."""
    last: dict[str, int] = {}
    for _ in range(count):
        event = await board.next_op("event", timeout_s=30)
        sequence = sequence_of(event["cursor"])
        assert last.get(event["feed"], 0) < sequence
        last[event["feed"]] = sequence


@pytest.mark.parametrize("rate", [20, 0], ids=["limited", "unlimited"])
async def test_subscribing_and_unsubscribing_as_fast_as_possible(make_scene: MakeScene, rate: int) -> None:
    """Twelve clients, some with snapshots and with all that the stream has. With `INBOUND_RATE` they are told to come
    again, and do; without it each gets its share of the loop's turns and no more."""
    name = f"subscribe and unsubscribe, rate {rate or 'unlimited'}"
    async with await make_scene(
        name, {"INBOUND_RATE": rate}, rss_mib=120, descriptors=40, lines=1500, left_mib=80
    ) as scene:
        kinds: list[dict[str, object]] = [{}, {"snapshot": True}, {"since": "all"}]
        churns = [Churn(scene.gateway.url, number, kinds[number % 3]) for number in range(12)]
        await asyncio.gather(*(each.run(6) for each in churns))
        done = sum(each.answered for each in churns)
        told = sum(each.told for each in churns)
        print(f"\n{done:,} answers, {told} times told to come again", file=sys.__stderr__)
        assert done > 100
        assert (told > 0) == (rate > 0)


class Churn:
    """A client that asks for feeds and gives them up; when it is closed it comes again.

    Attributes:
        answered: replies that it got.
        told: how often it was told `rate_limited`.
    """

    def __init__(self, url: str, number: int, more: dict[str, object]) -> None:
        self._url = url
        feed = f"repo.churn-{number}.>" if not more else "repo.>"
        self._frames = b"".join(
            encode_op(op="subscribe", ref=n, subject=feed, **more) + encode_op(op="unsubscribe", ref=n, feed=feed)
            for n in range(20)
        )
        self.answered = 0
        self.told = 0

    async def run(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    with contextlib.suppress(ConnectionError):
                        await self._once()

    async def _once(self) -> None:
        async with RawWebSocket(self._url, keep=False) as board:
            reading = asyncio.create_task(self._read(board))
            try:
                while not reading.done():
                    await board.send(self._frames)
                    await asyncio.sleep(0.005)  # the rate of the flood
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _read(self, board: RawWebSocket) -> None:
        with contextlib.suppress(Ended):
            while True:
                frame = await board.next_frame(timeout_s=60)
                self.told += frame.opcode == CLOSE and frame.payload[2:] == b"rate_limited"
                self.answered += frame.payload.startswith((b'{"op":"subscribed"', b'{"op":"unsubscribed"'))
