"""A watcher: one SSE connection to everything, that sees every sequence of the stream or names the hole."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually
from tests.support.sse import SseClient, SseEvent
from tests.support.stored import sequence_of

SILENCE_S = 60.0


class Hole(AssertionError):
    """A sequence was passed over, or came out of order."""


class Watcher:
    """Watches from the moment of its `ready` on, in a task of its own.

    Attributes:
        began: the position it was ready at.
        at: the last sequence it saw.
        states: what it was told of NATS.
    """

    def __init__(self, url: str) -> None:
        self._client = SseClient(url, "repo.>", keep=False)
        self._task: asyncio.Task[None] | None = None
        self.began = 0
        self.at = 0
        self.states: list[str] = []

    async def _watch(self) -> None:
        while True:
            self._take(await self._client.next_event(timeout_s=SILENCE_S))

    def _take(self, event: SseEvent) -> None:
        if event.type == "natsgate.state":
            self.states.append(event.json()["upstream"])
            return
        assert event.type in ("message", "natsgate.cursor"), event
        assert event.id is not None, event
        sequence = sequence_of(event.id)
        if event.type == "natsgate.cursor":
            if sequence != self.at:
                raise Hole(f"the cursor says {sequence} after {self.at}")
        elif sequence != self.at + 1:
            raise Hole(f"{sequence} came after {self.at}")
        self.at = sequence

    async def reaches(self, sequence: int, *, timeout_s: float = 60.0) -> None:
        """Wait until it saw this sequence, and so everything before it."""

        async def reached() -> bool:
            assert self._task is not None
            if self._task.done():
                self._task.result()
            return self.at >= sequence

        await eventually(reached, f"the watcher, at {self.at}, reaches {sequence}", timeout_s=timeout_s)

    async def hears(self, state: str) -> None:
        """Wait until it was told this of NATS."""

        async def heard() -> bool:
            return state in self.states

        await eventually(heard, f"the watcher, told {self.states}, is told {state}")

    async def __aenter__(self) -> Self:
        await self._client.open()
        ready = await self._client.ready(timeout_s=30)
        assert ready.id is not None
        self.began = self.at = sequence_of(ready.id)
        self._task = asyncio.get_running_loop().create_task(self._watch())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._client.close()
