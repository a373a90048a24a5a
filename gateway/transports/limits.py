"""Limits of requests: what a client may cost before anybody looks at what it asks for."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from gateway.core.errors import Rejection
from gateway.transports.turns import Turns

MOST_WAITING = 4096
"""Connections whose request is not whole yet. Some 20 KiB each, they take 80 MiB at most."""

MOST_PIPELINED = 16
"""Requests of one connection that wait for the answer to the one before. Some 3 KiB each; browsers send none so."""

EARLY_BYTES = 128 * 1024
"""What a WebSocket client may send before its connection is served: its first frames may come with the handshake."""

MOST_EARLY_BYTES = 64 * 2**20
"""What all of them may have sent so."""

KEEP_ALIVE_S = 5.0
"""How long a connection may wait for its next request."""


class Requesting(Protocol):
    """A connection whose request is not whole yet.

    Attributes:
        due: until when it has to be (monotonic seconds).
        peer: the address that is connected.
    """

    due: float

    @property
    def peer(self) -> str: ...

    def too_late(self) -> None:
        """The time is over: answer, and end."""

    def give_up(self) -> None:
        """End at once, without a word."""


@dataclass
class Limits:
    """What one request may cost. uvicorn and httptools have no such limits. They may change while the server runs.

    Attributes:
        header_bytes: request line, headers, trailers and what frames a body; 0 means no limit.
        request_s: from the connection (or the first byte of a later request) to the whole request; 0 means no limit.
        most_sockets: connections of all kinds that there are file descriptors for; 0 means no limit.
        now: monotonic seconds.
        refused: told of the reason of each refusal, and the address of who is connected.
        turns: spreads refusals that are due at one moment.
        waiting: connections whose request is not whole yet, the first one or the next one; those that have waited the
            longest first. They leave it at once when it is: what held on to them would keep every one of a herd in
            memory.
        open: the sets of all connections, by listening address.
        early_bytes: what WebSocket clients have sent before they are served.
    """

    header_bytes: int
    request_s: float
    most_sockets: int
    now: Callable[[], float]
    refused: Callable[[Rejection, str], None]
    turns: Turns
    waiting: dict[Requesting, None] = field(default_factory=dict)
    open: list[Sized] = field(default_factory=list)
    early_bytes: int = 0

    @property
    def gone(self) -> bool:
        """For the sweep: these limits hold as long as the server runs."""
        return False

    def swept(self, now: float) -> None:
        """For the sweep: requests that are not whole in time end their connections."""
        for each in [each for each in self.waiting if now >= each.due]:
            self.turns.add(partial(self._end, each))

    def _end(self, each: Requesting) -> None:
        if each in self.waiting and self.now() >= each.due:  # it was not whole until now
            del self.waiting[each]
            each.too_late()

    def opened(self, each: Requesting) -> None:
        """A connection was accepted, and waits for its request. Without descriptors nothing works any more, neither
        NATS nor a refusal: before that those that only wait are given up, and if nobody waits the newest is."""
        self.wait_for(each)
        if 0 < self.most_sockets < sum(map(len, self.open)):
            self._give_up_oldest("no_descriptors")

    def wait_for(self, each: Requesting) -> None:
        """A connection begins to wait for a request. Where too many do, the oldest is given up: those who mean it are
        done in no time, and those who only hold the door are the oldest."""
        self.waiting.pop(each, None)
        self.waiting[each] = None
        if len(self.waiting) > MOST_WAITING:
            self._give_up_oldest("too_many_waiting")

    def _give_up_oldest(self, why: Rejection) -> None:
        oldest = next(iter(self.waiting))
        del self.waiting[oldest]
        self.refused(why, oldest.peer)
        oldest.give_up()
