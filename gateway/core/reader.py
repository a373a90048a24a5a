"""Readers: a position on the log, and where to write what comes after it. No queue, no task, no timer."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, NamedTuple, Protocol

from gateway.core.closing import Closing
from gateway.core.dialect import Dialect
from gateway.core.feed import Feed
from gateway.core.start import NOW, Start


class Place(Enum):
    """Where a reader stands.

    WAITING  nothing can be said yet: the tap is not open, or the cursor is beyond the head
    BEHIND   in the queue of those that read forward
    READING  the log alone cannot serve it: a read of the stream is under way for it
    STALLED  its socket is full; it keeps its cursor
    LIVE     at the head: each new event is written to it at once
    GONE     left; nothing is written to it any more
    """

    WAITING = auto()
    BEHIND = auto()
    READING = auto()
    STALLED = auto()
    LIVE = auto()
    GONE = auto()


UNPLACED = -1
"""The cursor of a reader whose `start` has not been looked at yet."""

OTHER_LIFE = -2
"""The cursor of a reader that stood in an earlier life of the stream."""


AHEAD = -3
"""The cursor of a reader that stood further than the stream, which was put back to an earlier state, now reaches."""


class Initial(NamedTuple):
    """The present state, as a service shows it.

    Attributes:
        events: JSON objects.
        incarnation, upto: where the stream stood before the service was asked; what came after that follows.
    """

    events: tuple[bytes, ...]
    incarnation: str
    upto: int


class Opening(Protocol):
    """What a reader is shown first, and again after a gap, in place of a snapshot."""

    async def ask(self) -> Initial | Closing:
        """The present state; or why the connection is to end instead. Answered at once the first time.

        Raises:
            UpstreamError: it cannot be had now; worth another try.
        """


class Sink(Protocol):
    """The connection behind a reader.

    Attributes:
        paused: whether the socket's buffers are full: nothing more is to be written.
        identity: further fields of `ready` in this transport.
    """

    @property
    def paused(self) -> bool: ...

    @property
    def identity(self) -> dict[str, Any]: ...

    def gapped(self, reader: Reader) -> None:
        """A gap was told to this reader; a connection that cannot go on with one ends."""

    def failed(self) -> None:
        """What one of its readers asks cannot be served, for a reason that is ours; the connection ends."""

    def end(self, why: Closing) -> None:
        """The connection ends."""

    def reached_head(self, reader: Reader) -> None:
        """A reader that was to end at the head is there."""


def unheard(data: bytes) -> None:
    """The `write` of a reader that is gone."""


class Reader:
    """One feed of one connection.

    Attributes:
        start: what the client asked for.
        opening: what it is shown in place of a snapshot; None: a snapshot of the stream, where `start` wants one.
        cursor: everything up to this sequence was written. Meaningless while LIVE (then it is the hub's
            `flushed`: fan-out touches no reader), and negative where it has none: see UNPLACED, OTHER_LIFE and AHEAD.
        write: takes bytes for the socket; never blocks, never raises.
        announced: whether `ready` was written.
        events, bytes: what was written of events. Without meaning while LIVE: see `Audience`.
        replayed, snapshot: events written by reading forward, and as a snapshot, since the last gap.
        replayed_before: those that were read forward before it.
        shown: where in a snapshot it is: the last sequence shown, and what the snapshot is true for. None: in none.
        refusals: how often the stream refused what only this reader asks.
        gaps: how many were told.
        until: a sequence that has to be reached before `ready`, for readers that end at the head.
        told_at: when the client was last told where it stands by other means than events (monotonic seconds).
    """

    __slots__ = (
        "announced",
        "bytes",
        "cursor",
        "dialect",
        "events",
        "feed",
        "gaps",
        "opening",
        "place",
        "refusals",
        "replayed",
        "replayed_before",
        "shown",
        "sink",
        "snapshot",
        "start",
        "told_at",
        "until",
        "write",
    )

    def __init__(
        self,
        feed: Feed,
        dialect: Dialect,
        sink: Sink,
        write: Callable[[bytes], None],
        start: Start = NOW,
        opening: Opening | None = None,
    ) -> None:
        self.feed = feed
        self.dialect = dialect
        self.sink = sink
        self.write = write
        self.start = start
        self.opening = opening
        self.cursor = UNPLACED
        self.place = Place.WAITING
        self.announced = False
        self.events = 0
        self.bytes = 0
        self.replayed = 0
        self.replayed_before = 0
        self.snapshot = 0
        self.shown: tuple[int, int] | None = None
        self.refusals = 0
        self.gaps = 0
        self.told_at = 0.0
        self.until = 0


class Tally:
    """What one or more readers were written, for the log.

    Attributes:
        events, bytes: of events, by whatever way.
        replayed: how many of the events were read forward.
        gaps: how many were told.
    """

    __slots__ = ("bytes", "events", "gaps", "replayed")

    def __init__(self) -> None:
        self.events = self.bytes = self.replayed = self.gaps = 0

    def add(self, reader: Reader) -> None:
        """Count a reader that has left."""
        self.events += reader.events
        self.bytes += reader.bytes
        self.replayed += reader.replayed + reader.replayed_before
        self.gaps += reader.gaps
