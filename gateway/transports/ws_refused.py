"""A WebSocket that is accepted only to say why not: a page cannot see the status of a handshake, but a close code."""

from __future__ import annotations

from collections.abc import Iterable

from gateway.core import control, frames
from gateway.core.closing import Closing
from gateway.core.dialect import ENVELOPE, Dialect
from gateway.core.errors import ClientError, ComeBack
from gateway.core.ops import error_reply, hello
from gateway.core.reader import Reader
from gateway.core.schedule import retry_ms
from gateway.transports.arrival import Arrival
from gateway.transports.connection import Connection
from gateway.transports.room import Room


class RefusedConnection(Connection):
    """Says `closing`, where its dialect has a word for it, and closes.

    Args:
        room, arrival, dialect: see `Connection`.
        error: what it is closed for; its `closing` is the reason.
    """

    __slots__ = ("_error",)

    transport_name = "ws"

    def __init__(self, room: Room, arrival: Arrival, dialect: Dialect, error: ClientError) -> None:
        super().__init__(room, arrival, dialect)
        self._error = error

    def admitted(self) -> Closing | None:
        """It never is: it counts as a refused request."""
        return None

    def started(self) -> None:
        if self.dialect is ENVELOPE:
            self.write(hello(self.id, self.room.replica, authenticated=False))  # the first word, to everybody
            if not isinstance(self._error, ComeBack):  # which is nothing that the client could mend
                self.write(error_reply(self._error, None))
        assert self._error.closing is not None
        self.end(self._error.closing)

    def finish(self) -> None:
        """Close our side. The client answers the close frame and closes its own; what it sends is read away, since on
        unread bytes the kernel answers with a reset, which can overtake ours. The sweep sees to those that stay."""
        if self.transport is not None:
            self.transport.write_eof()

    def readers(self) -> Iterable[Reader]:
        return ()

    def farewell(self, why: Closing) -> bytes:
        told = self.dialect.control(None, control.closing(why, retry_ms(self.room.random, why)), {})
        return told + frames.close(why.code, why.reason)

    def beat(self, now: float) -> None:
        """Nothing is due to it."""

    def data_received(self, data: bytes) -> None:
        """Whatever it says, it is not served."""
