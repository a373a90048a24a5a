"""A producer that does not stop: numbered events, acknowledged, repeated through outages until they are stored."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import nats.errors
import nats.js.errors
from nats.aio.client import Client

_ACK_S = 1.0


async def store(nc: Client, subjects: Sequence[str], count: int, *, begin: int = 0, pad: str = "") -> int:
    """Store `count` numbered events, in turn on these subjects, and return the sequence of the last one."""
    js = nc.jetstream()
    last = 0
    for start in range(begin, begin + count, 200):
        numbers = range(start, min(start + 200, begin + count))
        acks = await asyncio.gather(
            *(
                js.publish(
                    subjects[n % len(subjects)],
                    json.dumps({"n": n, "pad": pad} if pad else {"n": n}).encode(),
                    timeout=20,
                )
                for n in numbers
            )
        )
        last = max(ack.seq for ack in acks)
    return last


class Flow:
    """Publishes in the background, from `async with` to its end.

    Each event is stored exactly once: it carries an id and is sent again until the stream has acknowledged it.

    Args:
        pause_s: the time between two rounds.
        each: events a round.

    Attributes:
        stored: how many were acknowledged.
    """

    def __init__(self, nc: Client, subjects: Sequence[str], *, pause_s: float = 0.01, each: int = 5) -> None:
        self._nc = nc
        self._subjects = subjects
        self._pause_s = pause_s
        self._each = each
        self._name = uuid.uuid4().hex
        self._ended = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._progress = asyncio.Condition()
        self.stored = 0

    async def _run(self) -> None:
        while not self._ended.is_set():
            await asyncio.gather(*(self._one(self.stored + offset) for offset in range(self._each)))
            async with self._progress:
                self.stored += self._each
                self._progress.notify_all()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), self._pause_s)

    async def _one(self, n: int) -> None:
        js = self._nc.jetstream()
        while True:
            try:
                await js.publish(
                    self._subjects[n % len(self._subjects)],
                    json.dumps({"n": n}).encode(),
                    timeout=_ACK_S,
                    headers={"Nats-Msg-Id": f"{self._name}-{n}"},
                )
            except (TimeoutError, nats.errors.Error, nats.js.errors.Error):
                await asyncio.sleep(0.1)  # NATS is away: the time between two attempts
            else:
                return

    async def more(self, count: int, *, timeout_s: float = 30.0) -> None:
        """Wait until so many more are stored than now."""
        target = self.stored + count
        async with asyncio.timeout(timeout_s), self._progress:
            await self._progress.wait_for(lambda: self.stored >= target)

    async def stop(self) -> None:
        """Let the last round be stored, then end."""
        self._ended.set()
        if self._task is not None:
            await self._task

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
