"""A fleet: hundreds of clients of both transports in one process. Each goes on as a browser's page would: it comes back
when it is told to, with the cursor that it has, and keeps what it saw."""

from __future__ import annotations

import asyncio
import random
import socket
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from tests.support.eventually import eventually
from tests.support.fleet_wire import Heard, SseWire, Wire, WsWire
from tests.support.ports import address_of
from tests.support.stored import StoredEvent, sequence_of

LOST_WAIT_S = (0.2, 0.6)
"""How long a client waits that lost its connection without a word."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How one connection ended.

    Attributes:
        at: the loop's time.
        reason: of `closing`; empty when there was none.
        retry_ms: what `closing` asked for.
        code: the WebSocket close code; 0 for SSE.
        served: whether it was told `ready` or an event; else it was refused, or lost before.
    """

    at: float
    reason: str
    retry_ms: int
    code: int
    served: bool


class Sailor:
    """One client.

    Attributes:
        sequences: of the events it got, in the order in which they came.
        first: where it was when it was told `ready` for the first time; None before that.
        endings: of its connections, in order.
        statuses: what its requests were answered with: an EventSource dies of any but 200.
        gaps: how many it was told.
    """

    def __init__(self, fleet: Fleet, transport: str, subject: str) -> None:
        self._fleet = fleet
        self.transport = transport
        self.subject = subject
        self.cursor = ""
        self.first: int | None = None
        self.sequences: list[int] = []
        self.endings: list[Ending] = []
        self.statuses: Counter[int] = Counter()
        self.gaps = 0
        self.wire: Wire | None = None
        self._served = False

    @property
    def dead(self) -> bool:
        """Whether a browser's client would have given up for good."""
        return any(status not in (200, 101) for status in self.statuses)

    def connect(self) -> None:
        self.wire = (SseWire if self.transport == "sse" else WsWire)(self, self.subject, self.cursor)
        self._served = False
        task = asyncio.get_running_loop().create_task(self._connect(self.wire))
        self._fleet.tasks.add(task)
        task.add_done_callback(self._fleet.tasks.discard)

    async def _connect(self, wire: Wire) -> None:
        loop = asyncio.get_running_loop()
        sock = socket.socket()
        sock.setblocking(False)
        if self._fleet.receive_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._fleet.receive_buffer_bytes)
        try:
            await loop.sock_connect(sock, self._fleet.where())
            await loop.create_connection(lambda: wire, sock=sock)
        except OSError:
            sock.close()
            self.ended("", 0, 0)

    # What the wire tells

    def answered(self, status: int) -> None:
        self.statuses[status] += 1

    def heard(self, what: Heard, cursor: str) -> None:
        self.cursor = cursor or self.cursor
        self._served = True
        if what is Heard.EVENT:
            self.sequences.append(sequence_of(cursor))
        elif what is Heard.GAP:
            self.gaps += 1
        elif what is Heard.READY and self.first is None:
            self.first = sequence_of(cursor)

    def ended(self, reason: str, retry_ms: int, code: int) -> None:
        loop = asyncio.get_running_loop()
        self.endings.append(Ending(loop.time(), reason, retry_ms, code, self._served))
        self.wire = None
        if self._fleet.comes_back and not self.dead:
            wait_s = retry_ms / 1000 if reason else random.uniform(*LOST_WAIT_S)
            loop.call_later(wait_s, self._again)

    def _again(self) -> None:
        if self._fleet.comes_back and self.wire is None:
            self.connect()


class Fleet:
    """Many clients, from `async with` to its end.

    Args:
        where: where to connect at the time, a URL.
        subjects: what they ask for, in turn.
        each: how many there are of each transport.
        comes_back: whether a client whose connection ended comes back.
        receive_buffer_bytes: of their sockets; None: the system's.
    """

    def __init__(
        self,
        where: Callable[[], str],
        subjects: Sequence[str],
        *,
        each: int,
        comes_back: bool = True,
        receive_buffer_bytes: int | None = None,
    ) -> None:
        self._where = where
        self.comes_back = comes_back
        self.receive_buffer_bytes = receive_buffer_bytes
        self.tasks: set[asyncio.Task[None]] = set()
        self.sailors = [
            Sailor(self, transport, subjects[number % len(subjects)])
            for number in range(each)
            for transport in ("sse", "ws")
        ]

    def where(self) -> tuple[str, int]:
        return address_of(self._where())

    def pause(self) -> None:
        """Nobody reads any more."""
        for sailor in self.sailors:
            if sailor.wire is not None:
                sailor.wire.pause()

    def go_on(self) -> None:
        for sailor in self.sailors:
            if sailor.wire is not None:
                sailor.wire.go_on()

    @property
    def endings(self) -> list[Ending]:
        """Of all of them, by time."""
        return sorted((each for sailor in self.sailors for each in sailor.endings), key=lambda each: each.at)

    async def until_ready(self, *, timeout_s: float = 30) -> None:
        async def ready() -> bool:
            return all(sailor.first is not None for sailor in self.sailors)

        await eventually(ready, "everybody was told ready", timeout_s=timeout_s)

    async def until_ended(self, times: int = 1, *, timeout_s: float = 30) -> None:
        """Wait until a connection of each of them has ended so many times."""

        async def ended() -> bool:
            return all(len(sailor.endings) >= times for sailor in self.sailors)

        await eventually(ended, f"everybody was sent away {times} times", timeout_s=timeout_s)

    async def until_last(self, events: Sequence[StoredEvent], *, timeout_s: float = 60) -> None:
        """Wait until everybody has got the last of these events that it asked for."""
        last = {
            sailor.subject: max(each.sequence for each in events if _wanted(sailor.subject, each))
            for sailor in self.sailors
        }

        async def there() -> bool:
            return all(sailor.sequences and sailor.sequences[-1] >= last[sailor.subject] for sailor in self.sailors)

        await eventually(there, "everybody got the last event", timeout_s=timeout_s)

    def assert_whole(self, events: Sequence[StoredEvent]) -> None:
        """Everybody is alive and got each of these events that came after its first `ready` once, in order, without a
        gap."""
        lost = doubled = disordered = 0
        for sailor in self.sailors:
            assert not sailor.dead, f"a {sailor.transport} client was answered {dict(sailor.statuses)}"
            assert sailor.first is not None
            wanted = [e.sequence for e in events if e.sequence > sailor.first and _wanted(sailor.subject, e)]
            lost += len(set(wanted) - set(sailor.sequences))
            doubled += len(sailor.sequences) - len(set(sailor.sequences))
            disordered += sailor.sequences != sorted(sailor.sequences)
            assert set(sailor.sequences) <= set(wanted)
        assert (lost, doubled, disordered) == (0, 0, 0), f"{lost} lost, {doubled} twice, {disordered} out of order"
        assert sum(sailor.gaps for sailor in self.sailors) == 0

    async def __aenter__(self) -> Self:
        for sailor in self.sailors:
            sailor.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.comes_back = False
        if self.tasks:
            await asyncio.wait(self.tasks, timeout=10)
        for sailor in self.sailors:
            if sailor.wire is not None:
                sailor.wire.abort()

        async def gone() -> bool:
            return all(sailor.wire is None or sailor.wire.transport is None for sailor in self.sailors)

        await eventually(gone, "everybody's connection has ended")


def _wanted(subject: str, event: StoredEvent) -> bool:
    assert subject.endswith(".>")
    return event.subject.startswith(subject.removesuffix(">"))


def histogram(endings: Sequence[Ending], begin: float, width_s: float) -> str:
    """How many ended when, as lines of text."""
    counts = Counter(int((each.at - begin) // width_s) for each in endings)
    if not counts:
        return "(nobody)"
    return "\n".join(
        f"{number * width_s:5.1f} s {counts[number]:4d} {'#' * counts[number]}" for number in range(max(counts) + 1)
    )
