"""An EventSource as browsers have it: reads in the background, and comes back with its last id."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

from tests.support.eventually import eventually
from tests.support.http_reply import HttpReply
from tests.support.sse import SseClient, SseEvent
from tests.support.stored import StoredEvent, sequence_of


class Follower:
    """Follows filters on whatever gateway `where` names at the time, from `async with` to its end. Any status but 200
    ends it for good.

    Args:
        headers: what a browser sends along with each request, as it is then: its cookies.

    Attributes:
        refused: the answer that ended it; None while it lives.
        heard: the events, in the order in which they came.
        told: natsgate's own events.
        connects: how often it connected.
    """

    def __init__(
        self,
        where: Callable[[], str],
        *subjects: str,
        query: Mapping[str, str] | None = None,
        headers: Callable[[], Mapping[str, str]] = dict,
    ) -> None:
        self._where = where
        self._subjects = subjects
        self._query = dict(query or {})
        self._headers = headers
        self.refused: HttpReply | None = None
        self._task: asyncio.Task[None] | None = None
        self._client: SseClient | None = None
        self.last_event_id = ""
        self.heard: list[SseEvent] = []
        self.told: list[SseEvent] = []
        self.connects = 0

    async def _run(self) -> None:
        while True:
            headers = dict(self._headers()) | ({"Last-Event-ID": self.last_event_id} if self.last_event_id else {})
            client = SseClient(self._where(), *self._subjects, query=self._query, headers=headers, keep=False)
            with contextlib.suppress(OSError, EOFError):
                try:
                    await client.open()
                    if client.status != 200:
                        self.refused = client.reply
                        return
                    self.connects += 1
                    self._client = client
                    await self._read(client)
                finally:
                    client.close()
            await asyncio.sleep(0.1)  # as EventSource waits before it comes back

    async def _read(self, client: SseClient) -> None:
        while True:
            event = await client.next_event(timeout_s=120)
            self.last_event_id = event.last_event_id or self.last_event_id
            (self.told if event.type.startswith("natsgate.") else self.heard).append(event)

    def cut(self) -> None:
        """Lose the connection, without a word to the gateway but a reset."""
        if self._client is not None:
            self._client.tcp.abort()

    def told_of(self, name: str) -> list[Any]:
        """The data of natsgate's own events of a name."""
        return [event.json() for event in self.told if event.type == f"natsgate.{name}"]

    @property
    def sequences(self) -> list[int]:
        return [sequence_of(event.id) for event in self.heard]

    async def until_ready(self, times: int = 1, *, timeout_s: float = 15) -> None:
        async def ready() -> bool:
            self._check()
            return len(self.told_of("ready")) >= times

        await eventually(ready, f"told ready {times} times", timeout_s=timeout_s)

    async def until_told(self, name: str, times: int = 1, *, timeout_s: float = 15) -> Any:
        """Wait for natsgate's own event of a name; returns the data of the last one."""

        async def told() -> list[Any]:
            self._check()
            found = self.told_of(name)
            return found if len(found) >= times else []

        return (await eventually(told, f"told {name} {times} times", timeout_s=timeout_s))[-1]

    async def until_heard(self, count: int, *, timeout_s: float = 30) -> None:
        async def enough() -> bool:
            self._check()
            return len(self.heard) >= count

        await eventually(enough, f"{count} events heard", timeout_s=timeout_s)

    async def until_refused(self, *, timeout_s: float = 15) -> HttpReply:
        """Wait for the answer that ends it."""

        async def refused() -> HttpReply | None:
            return self.refused

        return await eventually(refused, "refused", timeout_s=timeout_s)

    def _check(self) -> None:
        assert self.refused is None, self.refused
        if self._task is not None and self._task.done():
            self._task.result()

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task


def assert_same(heard: list[SseEvent], expected: list[StoredEvent]) -> None:
    """Exactly these events, once each, in order: says what is lost, doubled or out of order when not."""
    got = [sequence_of(event.id) for event in heard]
    wanted = [event.sequence for event in expected]
    if got != wanted:
        counts = Counter(got)
        lost = sorted(set(wanted) - set(got))
        doubled = sorted(sequence for sequence, times in counts.items() if times > 1)
        extra = sorted(set(got) - set(wanted))
        disordered = sum(1 for one, two in pairwise(got) if two <= one)
        raise AssertionError(
            f"heard {len(got)} of {len(wanted)}; lost {len(lost)} {lost[:5]}, doubled {len(doubled)} {doubled[:5]}, "
            f"unexpected {len(extra)} {extra[:5]}, {disordered} steps back"
        )
    assert [event.data for event in heard] == [event.text for event in expected]
