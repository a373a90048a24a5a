"""Turns: work that thousands of clients cause in one moment, spread over turns of the loop.

A proxy that dies takes all of its connections with it; a time that is over may be over for a whole herd. What each of
them needs done is little, but all of it at once would hold up everybody else for seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

A_TURN = 100
"""Works that are done before the loop gets to do something else."""


class Turns:
    """A queue of small works, done in order, some in each turn of the loop.

    Args:
        defer: calls a callable in the next turn.
        failed: told of an exception, which must not stop the others' work.
    """

    def __init__(self, defer: Callable[[Callable[[], None]], object], failed: Callable[[Exception], None]) -> None:
        self._defer = defer
        self._failed = failed
        self._works: deque[Callable[[], None]] = deque()

    def __len__(self) -> int:
        return len(self._works)

    def add(self, work: Callable[[], None]) -> None:
        """Do it in one of the next turns."""
        if not self._works:
            self._defer(self._turn)
        self._works.append(work)

    def finish(self) -> None:
        """Do all that is left now: the loop is about to end."""
        while self._works:
            self._do()

    def _turn(self) -> None:
        for _ in range(min(A_TURN, len(self._works))):
            self._do()
        if self._works:
            self._defer(self._turn)

    def _do(self) -> None:
        try:
            self._works.popleft()()
        except Exception as error:  # a fault of ours in one of them; logged, and the others go on
            self._failed(error)
