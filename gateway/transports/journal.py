"""The journal: a log line when a connection begins and one when it ends, and what was refused, now and then.

Lines are bounded, or whoever connects and vanishes in a loop would fill the disk. What one address has too many of is
held back first, so that the others' lines are not lost in it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from gateway.core.addresses import limit_key
from gateway.core.closing import Closing
from gateway.core.reader import Tally
from gateway.logs import Logger, Seldom, heard

if TYPE_CHECKING:
    from gateway.transports.connection import Connection

WINDOW_S = 10.0
"""Over how long lines are counted."""

LINES, LINES_OF_ONE = 5000, 1000
"""Lines about connections in that time: of all, and of one address (one /64 of IPv6). Some 250 bytes each."""

NAMED = 3
"""Addresses that are named when lines were held back: those with the most of them."""


class Journal:
    """Tells the log who came and went. Never a query, a token or what an event holds.

    Args:
        log: where the lines go.
        now: monotonic seconds.
    """

    def __init__(self, log: Logger, now: Callable[[], float]) -> None:
        self._log = log
        self._now = now
        self._seldom = Seldom(now)
        self._ends_at = now() + WINDOW_S
        self._lines = 0
        self._of: Counter[str] = Counter()  # at most LINES addresses: beyond that none is added
        self._held: Counter[str] = Counter()
        self._held_of_others = 0

    def opened(self, connection: Connection) -> None:
        """A connection begins."""
        if self._may_tell_of(connection):
            self._log.info("connection_opened", **_named(connection))

    def closed(self, connection: Connection, why: Closing, tally: Tally) -> None:
        """A connection ends. `tally`: what it was written."""
        if self._may_tell_of(connection):
            self._log.info(
                "connection_closed",
                **_named(connection),
                reason=why.reason,
                seconds=round(self._now() - connection.began_at, 3),
                events=tally.events,
                bytes=tally.bytes,
                replayed=tally.replayed,
                gaps=tally.gaps,
            )

    def rejected(self, reason: str, remote: str, known: Mapping[str, str]) -> None:
        """A request becomes no connection. A herd of them is one line every few seconds, which names the last one."""
        held = self._seldom.due(reason)
        if held is not None:
            more = {name: value for name, value in known.items() if value}
            self._log.info("request_rejected", reason=reason, remote=remote, **more, held_back=held)

    def _may_tell_of(self, connection: Connection) -> bool:
        """Whether somebody hears it, and there may be one more line about the connection's address now."""
        if not heard("info"):
            return False
        key = limit_key(connection.remote)
        if self._lines < LINES and self._of[key] < LINES_OF_ONE:
            self._lines += 1
            self._of[key] += 1
            return True
        if key in self._of:
            self._held[key] += 1
        else:
            self._held_of_others += 1
        return False

    # For the sweep

    @property
    def gone(self) -> bool:
        """It stays as long as the gateway runs."""
        return False

    def swept(self, now: float) -> None:
        """When the window is over: say what was held back in it, and begin the next one."""
        if now >= self._ends_at:
            self._ends_at = now + WINDOW_S
            self.finish()

    def finish(self) -> None:
        """The window is over, or the gateway ends: a drain brings more lines than a window takes."""
        held = self._held.total() + self._held_of_others
        if held:
            self._log.warning(
                "connection_lines_held_back", lines=held, within_s=WINDOW_S, most_of=dict(self._held.most_common(NAMED))
            )
        self._lines = self._held_of_others = 0
        self._of.clear()
        self._held.clear()


def _named(connection: Connection) -> dict[str, str]:
    """Which connection it is, as fields of a line."""
    return {
        "connection": connection.id,
        "transport": connection.transport_name,
        "route": connection.route,
        "sub": connection.sub,
        "remote": connection.remote,
    }
