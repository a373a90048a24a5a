"""Catching up: readers behind the head read forward on the log, each a slice at a time, within a budget per turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from gateway.core.log import Log
from gateway.core.reader import Place, Reader

SLICE_BYTES = 64 * 1024
"""What one reader is given before the next one has its turn."""

TURN_BYTES = 512 * 1024
"""What is read forward, for all readers together, before the loop gets to do something else."""

TURN_COST, SCAN_COST = 256, 32
"""What a turn, and looking at an event, costs of that budget beside the bytes written."""


class Course(Protocol):
    """Where readers that catch up come from and go to."""

    def flush(self) -> None:
        """Let the live readers have what the log has taken in: they come first."""

    def hand_on(self, reader: Reader) -> None:
        """The log does not reach back to where the reader stands."""

    def wrote(self, reader: Reader, source: str, events: int, size: int) -> None:
        """Events read forward are about to be written to a reader: count them."""

    def met_head(self, reader: Reader) -> bool:
        """Take a reader that has nothing left to read; whether it is one."""


class CatchUp:
    """The queue of those that are BEHIND.

    Args:
        log: the shared log.
        course: where they go on.
        defer: has a callable called in the loop's next turn.
    """

    def __init__(self, log: Log, course: Course, defer: Callable[[Callable[[], None]], object]) -> None:
        self._log = log
        self._course = course
        self._defer = defer
        self._queue: deque[Reader] = deque()
        self._due = False

    def add(self, reader: Reader) -> None:
        """A reader has something to read."""
        reader.place = Place.BEHIND
        self._queue.append(reader)
        self._soon()

    def clear(self) -> None:
        """Nobody reads on."""
        self._queue.clear()

    def _soon(self) -> None:
        if not self._due:
            self._due = True
            self._defer(self._turn)

    def _turn(self) -> None:
        self._due = False
        try:
            self._course.flush()
            self._read_on()
        finally:
            if self._queue:
                self._soon()

    def _read_on(self) -> None:
        budget = TURN_BYTES
        turns = len(self._queue)
        while turns and budget > 0:
            turns -= 1
            reader = self._queue.popleft()
            if reader.place is not Place.BEHIND:
                continue
            try:
                budget -= self._read(reader)
            except Exception:  # a fault of ours, which the loop logs: its client comes back where it was
                reader.sink.failed()
                raise

    def _read(self, reader: Reader) -> int:
        """Let a reader read a slice; what that cost of the turn's budget."""
        if reader.cursor < self._log.base:
            self._course.hand_on(reader)
            return TURN_COST
        taken = self._log.read(reader.feed, reader.cursor, SLICE_BYTES)
        reader.cursor = taken.upto
        cost = TURN_COST + SCAN_COST * taken.looked_at
        if taken.events:
            data = reader.dialect.events(reader.feed, taken.events)
            for event in taken.events:
                self._log.charge(event)
            self._log.evict()
            cost += len(data)
            self._course.wrote(reader, "log", len(taken.events), len(data))
            reader.write(data)
        # A write may have filled the socket: then it is STALLED, and no longer ours.
        if reader.place is Place.BEHIND and not self._course.met_head(reader):
            self._queue.append(reader)
        return cost
