"""The sweep: one timer for the heartbeats and deadlines of all connections."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

SLICES = 8
"""Into how many parts a round over all connections is cut, so that no loop turn looks at all of them."""


class Swept(Protocol):
    """What the sweep looks at."""

    @property
    def gone(self) -> bool:
        """Whether it can be forgotten."""

    def swept(self, now: float) -> None:
        """Look at the clock: send what is due, end what is overdue."""


class Sweep:
    """Visits every connection once per period.

    Args:
        period_s: the time of a round; deadlines are met to within it.
        now: monotonic seconds.
        later: calls a callable after some seconds.
        failed: told of an exception, which must not stop the others' heartbeats.
    """

    def __init__(
        self,
        period_s: float,
        *,
        now: Callable[[], float],
        later: Callable[[float, Callable[[], None]], object],
        failed: Callable[[Exception], None],
    ) -> None:
        self._tick_s = period_s / SLICES
        self._now = now
        self._later = later
        self._failed = failed
        self._ring: list[Swept] = []
        self._at = 0
        self._running = False

    def __len__(self) -> int:
        return len(self._ring)

    def __iter__(self) -> Iterator[Swept]:
        return (each for each in list(self._ring) if not each.gone)

    @property
    def period_s(self) -> float:
        """The time of a round. It may change between two."""
        return self._tick_s * SLICES

    @period_s.setter
    def period_s(self, period_s: float) -> None:
        self._tick_s = period_s / SLICES

    def add(self, each: Swept) -> None:
        """Visit it from now on, until it is gone. Starts the timer; it stops by itself when nothing is left."""
        self._ring.append(each)
        if not self._running:
            self._running = True
            self._later(self._tick_s, self._tick)

    def round(self) -> None:
        """Visit everybody now."""
        now = self._now()
        for each in self:
            self._visit(each, now)

    def _visit(self, each: Swept, now: float) -> None:
        try:
            each.swept(now)
        except Exception as error:  # one connection's fault; logged, and the sweep goes on
            self._failed(error)

    def _tick(self) -> None:
        ring = self._ring
        now = self._now()
        for _ in range(-(-len(ring) // SLICES)):
            while ring:
                if self._at >= len(ring):
                    self._at = 0
                each = ring[self._at]
                if not each.gone:
                    break
                last = ring.pop()
                if last is not each:
                    ring[self._at] = last
            if not ring:
                break
            self._at += 1
            self._visit(each, now)
        if ring:
            self._later(self._tick_s, self._tick)
        else:
            self._running = False
