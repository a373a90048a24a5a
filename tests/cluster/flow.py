"""A flow of acknowledged events while things break: what the stream says it stored is what everybody has to get."""

from __future__ import annotations

import asyncio
from collections import Counter
from types import TracebackType
from typing import Self

from publishers import Ack, Publisher, Settings
from tests.support.eventually import eventually

TICK_S = 0.02
"""How often what the rate asks for is published."""

SUBJECTS = [f"repo.{number}.tick" for number in range(100)]
PAD = b"x" * 120


class AcknowledgedFlow:
    """Publishes at a rate from entering to leaving the block.

    Attributes:
        sequences: of everything that was acknowledged.
    """

    def __init__(self, nats_urls: str, *, rate: float) -> None:
        self._publisher = Publisher(Settings(servers=nats_urls, retry_for_s=100, ack_wait_s=2, buffer_bytes=2**27))
        self._rate = rate
        self._running: asyncio.Task[None] | None = None
        self._published = 0
        self._failed: Counter[str] = Counter()
        self.sequences: set[int] = set()

    async def _publish(self) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        while True:
            await asyncio.sleep(TICK_S)
            while self._published < (loop.time() - began) * self._rate:
                await self.one()

    async def one(self) -> None:
        """Publish one event."""
        number = self._published + 1
        event = b'{"type":"tick","n":%d,"pad":"%b"}' % (number, PAD)
        outcome = await self._publisher.enqueue(SUBJECTS[number % len(SUBJECTS)], event, msg_id=f"flow-{number}")
        self._published = number
        outcome.add_done_callback(self._settled)

    def _settled(self, outcome: asyncio.Future[Ack]) -> None:
        if outcome.cancelled() or (error := outcome.exception()) is not None:
            self._failed["cancelled" if outcome.cancelled() else repr(error)] += 1
        elif outcome.result().sequence in self.sequences:
            self._failed["acknowledged with the sequence of another one"] += 1
        else:
            self.sequences.add(outcome.result().sequence)

    @property
    def last(self) -> int:
        """The last acknowledged sequence so far."""
        return max(self.sequences, default=0)

    async def stop(self) -> int:
        """Publish no more, wait until all is acknowledged, and return the last sequence."""
        assert self._running is not None
        self._running.cancel()
        await asyncio.wait([self._running])
        await self._publisher.flush(60)

        async def settled() -> bool:
            assert not self._failed, f"{self._published} published, {len(self.sequences)} stored: {self._failed}"
            return len(self.sequences) == self._published

        await eventually(settled, "every outcome is heard")
        return self.last

    async def __aenter__(self) -> Self:
        await self._publisher.open()
        await self._publisher.wait_connected(10)
        self._running = asyncio.get_running_loop().create_task(self._publish())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])
        await self._publisher.close(0.1 if error is not None else None)
