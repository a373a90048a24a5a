"""The journal: a log line when a connection begins and one when it ends, and what was refused, now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gateway.core.closing import Closing
from gateway.core.reader import Tally
from gateway.logs import Logger, Seldom, heard

if TYPE_CHECKING:
    from gateway.transports.connection import Connection


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

    def opened(self, connection: Connection) -> None:
        """A connection begins."""
        if heard("info"):
            self._log.info(
                "connection_opened",
                connection=connection.id,
                transport=connection.transport_name,
                route=connection.route,
                sub=connection.sub,
                remote=connection.remote,
            )

    def closed(self, connection: Connection, why: Closing, tally: Tally) -> None:
        """A connection ends. `tally`: what it was written."""
        if heard("info"):
            self._log.info(
                "connection_closed",
                connection=connection.id,
                transport=connection.transport_name,
                route=connection.route,
                sub=connection.sub,
                remote=connection.remote,
                reason=why.reason,
                seconds=round(self._now() - connection.began_at, 3),
                events=tally.events,
                bytes=tally.bytes,
                replayed=tally.replayed,
                gaps=tally.gaps,
            )

    def rejected(self, reason: str, remote: str) -> None:
        """A request becomes no connection. A herd of them is one line every few seconds, which names the last one."""
        held = self._seldom.due(reason)
        if held is not None:
            self._log.info("request_rejected", reason=reason, remote=remote, held_back=held)
