"""The source: publishes numbered events, acknowledged, whatever happens to NATS, and writes down the truth."""

from __future__ import annotations

import asyncio
from random import Random

from publishers import Ack, Publisher, Settings
from tests.stress.truth import Truth

TICK_S = 0.02
"""How often what the rate asks for is published."""

SUBJECTS = (
    [f"repo.{number}.{tail}" for number in range(6) for tail in ("tick", "done", "task.progress")]
    + [f"task.{number}.{tail}" for number in range(4) for tail in ("tick", "log")]
    + [f"user.{number}.note" for number in range(4)]
)


class Source:
    """One publisher.

    Args:
        nats_urls: comma-separated.
        truth: told of every acknowledgement.
        random: decides subjects and sizes.
        rate: events per second.
    """

    def __init__(self, nats_urls: str, truth: Truth, random: Random, *, rate: float) -> None:
        self._publisher = Publisher(Settings(servers=nats_urls, retry_for_s=110, buffer_bytes=64 * 2**20))
        self._truth = truth
        self._random = random
        self._rate = rate
        self._unsettled: set[asyncio.Future[Ack]] = set()
        self.published = 0

    async def run(self) -> None:
        """Publish at the rate, in uneven bursts, until cancelled."""
        owed = 0.0
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            now = loop.time()
            owed = min(owed + (now - last) * self._rate * self._random.choice((0, 0.5, 1, 2.5)), self._rate)
            last = now
            while owed >= 1:
                owed -= 1
                await self.publish()

    async def publish(self) -> None:
        """Publish one event; its acknowledgement comes when it comes."""
        self.published += 1
        number, subject = self.published, self._random.choice(SUBJECTS)
        size = self._random.choice((20, 200, 200, 1000, 4000))
        event = b'{"n":%d,"type":"stress","pad":"%b"}' % (number, b"x" * size)
        outcome = await self._publisher.enqueue(subject, event, msg_id=f"stress-{number}")
        self._unsettled.add(outcome)

        def settled(future: asyncio.Future[Ack]) -> None:
            self._unsettled.discard(future)
            if not future.cancelled() and future.exception() is None:
                self._truth.stored(number, future.result().sequence, subject)

        outcome.add_done_callback(settled)

    async def settle(self, timeout_s: float) -> None:
        """Wait until everything is acknowledged.

        Raises:
            AssertionError: something was not.
        """
        await self._publisher.flush(timeout_s)
        known = len(self._truth.sequence_of)
        assert known == self.published, f"of {self.published} events {known} were acknowledged"

    async def open(self) -> None:
        await self._publisher.open()
        await self._publisher.wait_connected(10)

    async def close(self) -> None:
        await self._publisher.close()
