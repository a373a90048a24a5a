"""Readers: a position on the log, and where to write what comes after it. No queue, no task, no timer."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto
from typing import Any, Protocol

from gateway.core.dialect import Dialect
from gateway.core.feed import Feed


class Place(Enum):
    """Where a reader stands.

    WAITING  nothing can be said yet: the tap is not open, or the cursor is beyond the head
    BEHIND   in the queue of those that read forward
    READING  before the log's beginning: a read of the stream is under way for it
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


class Reader:
    """One feed of one connection.

    Attributes:
        cursor: everything up to this sequence was written. Meaningless while LIVE (then it is the hub's
            `flushed`: fan-out touches no reader); -1 means "from now" until the reader is placed.
        write: takes bytes for the socket; never blocks, never raises.
        announced: whether `ready` was written.
        replayed: events written by reading forward.
    """

    __slots__ = ("announced", "cursor", "dialect", "feed", "place", "replayed", "sink", "write")

    def __init__(
        self, feed: Feed, dialect: Dialect, sink: Sink, write: Callable[[bytes], None], cursor: int = -1
    ) -> None:
        self.feed = feed
        self.dialect = dialect
        self.sink = sink
        self.write = write
        self.cursor = cursor
        self.place = Place.WAITING
        self.announced = False
        self.replayed = 0
