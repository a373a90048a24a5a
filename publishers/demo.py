"""Publishes the samples for ever, at a given rate."""

from __future__ import annotations

import asyncio
import logging
import secrets
import signal
import time
from collections import deque
from collections.abc import Callable

from publishers.errors import FlushTimeout, PublishError
from publishers.outbox import Ack
from publishers.publisher import Publisher
from publishers.samples import Source, samples
from publishers.settings import Settings

_LOOK_S = 0.25
_END_S = 0.2
_UNACKNOWLEDGED = 512


async def run(settings: Settings, *, rate: float, repos: int, seed: int, say: Callable[[str], None]) -> None:
    """Publishes until SIGINT or SIGTERM, then ends within a second, with NATS or without.

    Args:
        settings: where NATS is. Samples wait for NATS and for the stream however long that takes.
        rate: events per second, all samples together.
        repos: how many repositories are analysed.
        seed: the same seed gives the same events.
        say: gets a line when something changes.
    """
    stopped = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stopped.set)
    logging.getLogger("publishers").setLevel(logging.ERROR)  # `say` tells the same in one line
    source = Source(seed, run=secrets.token_hex(4), now_ms=lambda: time.time_ns() // 1_000_000)
    publisher = Publisher(settings)
    await publisher.open()
    work = [
        asyncio.create_task(_publish(publisher, source, say, rate=rate, repos=repos)),
        asyncio.create_task(_tell(publisher, say)),
    ]
    ended = asyncio.create_task(stopped.wait())
    try:
        await asyncio.wait([*work, ended], return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (*work, ended):
            task.cancel()
        outcomes = await asyncio.gather(*work, return_exceptions=True)
        try:
            await publisher.close(_END_S)
        except FlushTimeout as lost:
            say(f"ended with samples that are not stored: {lost}")
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


async def _publish(
    publisher: Publisher, source: Source, say: Callable[[str], None], *, rate: float, repos: int
) -> None:
    loop = asyncio.get_running_loop()
    pending: deque[asyncio.Future[Ack]] = deque()
    next_s = loop.time()
    told = False
    for sample in samples(source, repos):
        try:
            pending.append(await publisher.enqueue(sample.subject, sample.event))
            while len(pending) > _UNACKNOWLEDGED or (pending and pending[0].done()):
                await pending.popleft()
        except PublishError as lost:  # after a long outage; samples are not worth ending for
            if not told:
                say(f"samples are lost, the first: {lost}")
                told = True
        while publisher.trouble is not None:  # noqa: ASYNC110 - samples are not worth piling up
            await asyncio.sleep(_LOOK_S)
        next_s += 1 / rate
        late_s = loop.time() - next_s
        if late_s > 1.0:
            next_s += late_s  # after an outage it goes on at its rate instead of catching up
        await asyncio.sleep(max(0.0, -late_s))


async def _tell(publisher: Publisher, say: Callable[[str], None]) -> None:
    """Says once that nothing moves and why, and once that it moves again."""
    told = before = ""
    acknowledged = 0
    while True:
        await asyncio.sleep(_LOOK_S)
        trouble, stats = publisher.trouble, publisher.stats
        state = before
        if trouble is not None:
            state = "refused" if stats.connected else "away"
        elif stats.acknowledged > acknowledged:
            state = "moving"
        if state == before != told:  # seen twice: the first moment of connecting is no trouble
            if state == "moving":
                told = state
                say("publishing samples")
            elif trouble is not None:
                told = state
                say(f"waiting: {trouble}")
        before, acknowledged = state, stats.acknowledged
