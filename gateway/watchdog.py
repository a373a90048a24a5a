"""The watchdog: how late the event loop is, and what holds it up.

Everything runs in one loop: what blocks it blocks every client. A timer in the loop notes how late it is called; a
thread beside it notices while the loop is still blocked, and looks at what it is doing.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from types import FrameType

from gateway.logs import Logger, Seldom

BEAT_S = 0.1
"""How often the loop is asked for a sign of life."""

BLOCKED_S = 0.25
"""The delay from which on the log is told what it is."""

JOIN_S = 1.0
FRAMES = 6
"""Callers that are named, the innermost first."""


class Watchdog:
    """Watches the loop it is started in.

    Args:
        later: the loop's `call_later`.
        observe: told of each beat how late it was, in seconds.
        log: for what blocked; a line every few seconds at most.

    Concurrency: `start` and `stop` are called from the loop; a thread of its own lives between them.
    """

    def __init__(
        self, later: Callable[[float, Callable[[], None]], object], observe: Callable[[float], None], log: Logger
    ) -> None:
        self._later = later
        self._observe = observe
        self._log = log
        self._seldom = Seldom(time.monotonic)
        self._ended = threading.Event()
        self._blamed = 0.0

    def start(self) -> None:
        """Watch from now on."""
        self._watched = threading.get_ident()
        self._due = time.monotonic() + BEAT_S
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()
        self._later(BEAT_S, self._beat)

    def stop(self) -> None:
        """Watch no more."""
        self._ended.set()
        self._thread.join(JOIN_S)  # it may hang in a log that nobody reads; it ends with the process then

    def _beat(self) -> None:
        if self._ended.is_set():
            return
        late_s = max(0.0, time.monotonic() - self._due)
        self._observe(late_s)
        if self._blamed == self._due:
            self._log.warning("event_loop_goes_on", blocked_s=round(late_s, 3))
        self._due = time.monotonic() + BEAT_S
        self._later(BEAT_S, self._beat)

    def _watch(self) -> None:
        looked_at = 0.0
        while not self._ended.wait(BEAT_S):
            due = self._due
            late_s = time.monotonic() - due
            if late_s < BLOCKED_S or due == looked_at:
                continue
            looked_at = due
            at = where(sys._current_frames().get(self._watched))
            held = self._seldom.due("blocked")
            if held is not None and due == self._due:
                self._blamed = due
                self._log.warning("event_loop_blocked", blocked_s=round(late_s, 3), at=at, held_back=held)


def where(frame: FrameType | None) -> list[str]:
    """What a thread is doing: `module:line function`, the innermost first, up to the loop itself. Empty when it is the
    loop that waits: then the whole process was stopped, or had no CPU."""
    found: list[str] = []
    while frame is not None and len(found) < FRAMES:
        module = str(frame.f_globals.get("__name__", "?"))
        if module == "asyncio.runners":
            break
        found.append(f"{module}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return found
