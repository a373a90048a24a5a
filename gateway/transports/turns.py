"""Turns: work that thousands of clients cause in one moment, spread over turns of the loop.

A proxy that dies takes all of its connections with it; a time that is over may be over for a whole herd; clients that
flood have always more to be read. What each of them needs done is little, but all of it at once would hold up everybody
else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

TURN_S = 0.005
"""For how long works are done before the loop gets to do something else. The last one is let finish."""


class Turns:
    """A queue of small works, done in order, some in each turn of the loop.

    Args:
        defer: calls a callable in the next turn.
        clock: seconds that pass within a turn, too (a loop's own time need not).
        failed: told of an exception, which must not stop the others' work.
    """

    def __init__(
        self,
        defer: Callable[[Callable[[], None]], object],
        clock: Callable[[], float],
        failed: Callable[[Exception], None],
    ) -> None:
        self._defer = defer
        self._clock = clock
        self._failed = failed
        self._works: deque[Callable[[], None]] = deque()
        self._running = False

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Callable[[], None]) -> None:
        """Do it in one of the next turns."""
        self._works.append(work)
        if not self._running:
            self._running = True
            self._defer(self._turn)

    def finish(self) -> None:
        """Do all that is left now: the loop is about to end."""
        while self._works:
            self._do()

    def _turn(self) -> None:
        until = self._clock() + TURN_S
        # What a work adds is for the next turn, so that one that goes on for ever leaves the loop time as well.
        for _ in range(len(self._works)):
            self._do()
            if self._clock() >= until:
                break
        self._running = bool(self._works)
        if self._running:
            self._defer(self._turn)

    def _do(self) -> None:
        try:
            self._works.popleft()()
        except Exception as error:  # a fault of ours in one of them; logged, and the others go on
            self._failed(error)
