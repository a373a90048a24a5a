"""Those ahead: readers whose cursor, or whose end, the log has not reached yet."""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import count

from gateway.core.reader import Place, Reader


class Ahead:
    """Readers that are WAITING for a sequence."""

    def __init__(self) -> None:
        self._waiting: list[tuple[int, int, Reader]] = []
        self._tie = count()

    def add(self, reader: Reader, sequence: int) -> None:
        """Let a reader wait for a sequence."""
        reader.place = Place.WAITING
        heappush(self._waiting, (sequence, next(self._tie), reader))

    def reached(self, sequence: int) -> Iterator[Reader]:
        """Those that have waited for a sequence up to this one, and wait still."""
        while self._waiting and self._waiting[0][0] <= sequence:
            reader = heappop(self._waiting)[2]
            if reader.place is Place.WAITING:
                yield reader

    def clear(self) -> None:
        """Nobody waits for a sequence any more."""
        self._waiting.clear()
