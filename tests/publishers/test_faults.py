"""`Publisher` while its nats-server is killed, frozen and started again."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from types import SimpleNamespace, TracebackType
from typing import Self

import pytest

from publishers import Ack, BufferFull, Publisher, PublishTimeout, Settings, delivery
from tests.publishers.broker import Broker
from tests.publishers.test_publisher import until
from tests.support.frozen import frozen

SUBJECTS = [f"repo.{n}.x" for n in range(20)]


class Flood:
    """Publishes numbered events round robin, from `async with` to its end; keeps what was acknowledged."""

    def __init__(self, publisher: Publisher) -> None:
        self.taken = 0
        self.futures: list[tuple[str, int, asyncio.Future[Ack]]] = []
        self.most_bytes = 0
        self._publisher = publisher
        self._stop = asyncio.Event()
        self._running: asyncio.Task[None] | None = None

    async def _run(self) -> None:
        while not self._stop.is_set():
            subject = SUBJECTS[self.taken % len(SUBJECTS)]
            try:
                future = await self._publisher.enqueue(subject, {"n": self.taken})
            except BufferFull:
                await self._publisher.wait_connected()
                continue
            self.futures.append((subject, self.taken, future))
            self.taken += 1
            self.most_bytes = max(self.most_bytes, self._publisher.stats.buffered_bytes)
            if self.taken % 20 == 0:
                await asyncio.sleep(0.002)  # the rate of the flood

    async def more(self, count: int) -> None:
        """Wait until so many more are acknowledged than now."""
        goal = self._publisher.stats.acknowledged + count
        await until(lambda: self._publisher.stats.acknowledged >= goal)

    async def end(self) -> None:
        """Publish no more, and wait until all of it is acknowledged."""
        assert self._running is not None
        self._stop.set()
        await self._publisher.flush(20)
        await self._running

    async def __aenter__(self) -> Self:
        self._running = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._running is not None
        if error is None:
            await self.end()
        self._running.cancel()
        await asyncio.wait([self._running])

    async def check(self, broker: Broker) -> None:
        """All acknowledged events are in the stream where the acknowledgement says, once, in order."""
        stored = await broker.stored()
        numbers = [(subject, json.loads(data)["n"]) for subject, data, _ in stored]
        assert [what for what, count in Counter(numbers).items() if count > 1] == []
        assert len(self.futures) == len(numbers)
        for subject, number, future in self.futures:
            assert numbers[future.result().sequence - 1] == (subject, number)
        for subject in SUBJECTS:
            of_subject = [number for name, number in numbers if name == subject]
            assert of_subject == sorted(of_subject)


async def test_kills(broker: Broker) -> None:
    """Through kill -9 and restarts: nothing acknowledged is missing, nothing twice, order holds, memory too."""
    settings = Settings(servers=broker.url, buffer_bytes=500_000, backoff_max_s=0.2)
    async with Publisher(settings) as publisher, Flood(publisher) as flood:
        for _ in range(4):
            await flood.more(300)
            broker.kill()
            await until(lambda: not publisher.stats.connected)
            broker.start()
        await flood.more(300)
    await flood.check(broker)
    assert flood.most_bytes <= 500_000


async def test_short_freezes(broker: Broker) -> None:
    """A server that freezes longer than `ack_wait_s` gets events again, and stores them once and in order."""
    settings = Settings(servers=broker.url, ack_wait_s=0.1, backoff_max_s=0.1)
    async with Publisher(settings) as publisher, Flood(publisher) as flood:
        for _ in range(3):
            await flood.more(200)
            with frozen(broker.pid):
                repeated = publisher.stats.retries + 40
                await until(lambda repeated=repeated: publisher.stats.retries >= repeated)  # type: ignore[misc]
        await flood.end()
        assert publisher.stats.connected
    await flood.check(broker)


async def test_long_freeze(broker: Broker) -> None:
    """A server frozen for longer than the pings allow is left, found again, and holds everything once."""
    settings = Settings(
        servers=broker.url, ping_interval_s=0.1, connect_timeout_s=0.5, backoff_max_s=0.1, buffer_bytes=400_000
    )
    async with Publisher(settings) as publisher, Flood(publisher) as flood:
        await flood.more(200)
        with frozen(broker.pid):
            await until(lambda: not publisher.stats.connected)
        await flood.more(300)
    await flood.check(broker)
    assert flood.most_bytes <= 400_000


async def test_after_the_duplicate_window(broker: Broker) -> None:
    """An event of unknown outcome is not sent again once the duplicate window is over: it fails and says so."""
    settings = Settings(
        servers=broker.url,
        duplicate_window_s=0.1,  # shorter than the three pings that find the freeze
        ping_interval_s=0.1,
        connect_timeout_s=0.5,
        backoff_max_s=0.1,
    )
    async with Publisher(settings) as publisher:
        await publisher.wait_connected(5)
        with frozen(broker.pid):
            future = await publisher.enqueue("repo.1.x", {"n": 1})
            await until(lambda: not publisher.stats.connected)
            later = await publisher.enqueue("repo.1.x", {"n": 2})
        with pytest.raises(PublishTimeout, match="duplicate window") as failure:
            await future
        assert failure.value.outcome_unknown
        await later
    # Whether the first arrived is exactly what could not be known.
    assert [json.loads(data)["n"] for _, data, _ in await broker.stored()] in ([1, 2], [2])


async def test_after_a_suspend(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that was suspended meanwhile counts as well, though the loop's clock has stood still: the wall clock
    says how long ago the event of unknown outcome was sent."""
    settings = Settings(servers=broker.url, ping_interval_s=0.1, connect_timeout_s=0.5, backoff_max_s=0.1)
    async with Publisher(settings) as publisher:
        await publisher.wait_connected(5)
        with frozen(broker.pid):
            future = await publisher.enqueue("repo.1.x", {"n": 1})
            await until(lambda: not publisher.stats.connected)
            awake = time.time() + settings.duplicate_window_s
            monkeypatch.setattr(delivery, "time", SimpleNamespace(time=lambda: awake))
        with pytest.raises(PublishTimeout, match="duplicate window") as failure:
            await future
        assert failure.value.outcome_unknown
