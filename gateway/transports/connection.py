"""A connection: the protocol object that holds the socket once the request is over. No task, no queue, no timer."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from gateway.core import control
from gateway.core.closing import Closing
from gateway.core.dialect import Dialect
from gateway.core.guard import Guard
from gateway.core.reader import Reader, Tally
from gateway.core.schedule import lifetime_s
from gateway.transports.arrival import Arrival
from gateway.transports.sockets import unacknowledged

if TYPE_CHECKING:
    from gateway.transports.room import Room

HIGH_WATER_BYTES = 64 * 1024
"""What may wait in the process for one socket before its connection counts as full."""

LOW_WATER_BYTES = 16 * 1024
CURSOR_HEARTBEATS = 4
"""After how many heartbeats' time without an event a client is told its cursor."""

PUT_OFF_S = 5.0
"""Over how long the questions that were due while NATS was away are spread."""

CLOSE_TIMEOUT_S = 5.0
"""How long a connection that is ending may take to send its last bytes (and to answer a close frame)."""


class Connection(asyncio.Protocol):
    """What SSE and WebSocket connections have in common.

    Concurrency: everything runs in the loop's callbacks; nothing waits.

    Args:
        room: what all connections share.
        arrival: how its client came.
        dialect: how it speaks.

    Attributes:
        id: the connection's name, for clients and logs.
        route, guard, remote: see `Arrival`. The guard changes when the client says anew who it is.
        paused: whether the socket's buffers are full.
        ending: why it is being ended by us; None while it is served.
        began_at, ends_at: when it was taken over, and when it is sent away for its age (monotonic seconds).
    """

    __slots__ = (
        "_connections",
        "_counted",
        "_deadline",
        "_pending",
        "_told_up",
        "began_at",
        "dialect",
        "ending",
        "ends_at",
        "guard",
        "id",
        "paused",
        "remote",
        "room",
        "route",
        "touched_at",
        "transport",
    )

    transport_name = ""

    def __init__(self, room: Room, arrival: Arrival, dialect: Dialect) -> None:
        self.room = room
        self.route, self.guard, self.remote = arrival
        self.dialect = dialect
        self._told_up = True
        self.id = room.new_id()
        self.transport: asyncio.Transport | None = None
        self.paused = False
        self.ending: Closing | None = None
        self.touched_at = self.began_at = room.now()
        self.ends_at = self.began_at + lifetime_s(room.random, room.max_age_s)
        self._deadline = 0.0
        self._pending = 0
        self._counted: str | None = None  # as whose connection; None: not at all
        self._connections: set[object] | None = None

    # What a kind of connection adds

    def started(self) -> None:
        """The socket is ours: say the first words."""
        raise NotImplementedError

    def readers(self) -> Iterable[Reader]:
        """Its readers."""
        raise NotImplementedError

    def farewell(self, why: Closing) -> bytes:
        """The last bytes for a client that is to be told why."""
        raise NotImplementedError

    def beat(self, now: float) -> None:
        """The connection can take bytes; send what is due by the clock."""
        raise NotImplementedError

    @property
    def identity(self) -> dict[str, Any]:
        """Further fields of `ready` in this transport."""
        return {}

    @property
    def sub(self) -> str:
        """Who it is, for the log; empty for nobody in particular."""
        return "" if self.guard is None or self.guard.principal is None else self.guard.principal.sub

    def before(self) -> Tally:
        """What readers were written that are its readers no more."""
        return Tally()

    # Life

    def gapped(self, reader: Reader) -> None:
        """A gap was told. Most connections go on."""

    def failed(self) -> None:
        """What one of its readers asks cannot be served."""
        self.end(Closing.INTERNAL_ERROR)

    def reached_head(self, reader: Reader) -> None:
        """A reader that was to end at the head is there, and with it the connection."""
        self.end(Closing.DONE)

    def checkpoint(self, reader: Reader, now: float) -> None:
        """Tell a live reader where it stands when nothing came for a while, so that its cursor does not age out."""
        if now - max(reader.told_at, reader.feed.delivered_at) >= CURSOR_HEARTBEATS * self.room.heartbeat_s:
            if reader.told_at:
                self.touched_at = now
                self.room.hub.checkpoint(reader)
            reader.told_at = now

    def attach(self, transport: asyncio.Transport, connections: set[object]) -> None:
        """Take the socket over. `connections`: the server's set, which it waits for when it shuts down."""
        self.transport = transport
        self._connections = connections
        connections.add(self)
        transport.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)
        self.room.sweep.add(self)
        crowded = self.admitted()
        self.started()
        # What was so when its token was looked at may not be so any more: a service may have taken seconds to answer.
        # Nothing was written to its readers yet: they are served from the next turn on.
        why = crowded or self.over(self.room.now())
        if why is not None:
            self.end(why)

    def admitted(self) -> Closing | None:
        """It is a connection from now on: count it, and say so. Why it has to go again, if it has to."""
        key = (self.transport_name, self.route)
        self.room.opened[key] += 1
        self.room.current[key] += 1
        self._counted = ""
        crowded = self.room.admission.entered(self.remote)
        crowded = self.named() or crowded
        self.room.journal.opened(self)
        return crowded

    def named(self) -> Closing | None:
        """It is known whose connection it is: count it as theirs. Why it has to go, if it has to."""
        self._counted = self.sub
        return self.room.admission.named(self.sub) if self.sub else None

    def write(self, data: bytes) -> None:
        """Hand bytes to the socket."""
        if self.transport is not None:
            self.transport.write(data)

    def end(self, why: Closing) -> None:
        """End the connection, telling the client why where that can still be told."""
        if self.ending is not None or self.transport is None:
            return
        self._leave(why)
        self._pending = self._outstanding()
        self._deadline = self.room.now() + CLOSE_TIMEOUT_S
        self.write(self.farewell(why))
        self.finish()

    def finish(self) -> None:
        """The last bytes are written: close once they are sent."""
        if self.transport is not None:
            self.transport.close()

    def cut(self, why: Closing) -> None:
        """End the connection now; what was not sent is not sent."""
        if self.ending is None:
            self._leave(why)
        if self.transport is not None:
            self.transport.abort()

    def shutdown(self) -> None:
        """uvicorn's contract: the server is going."""
        self.end(Closing.DRAINING)

    def _leave(self, why: Closing) -> None:
        self.ending = why
        tally = self.before()
        for reader in list(self.readers()):
            self.room.hub.leave(reader)
            tally.add(reader)
        self.room.readers_changed()
        if self._counted is not None:
            # A proxy that dies takes thousands with it in one turn of the loop.
            self.room.turns.add(partial(self._left, why, tally))

    def _left(self, why: Closing, tally: Tally) -> None:
        room = self.room
        room.current[(self.transport_name, self.route)] -= 1
        room.closed[(self.transport_name, why.reason)] += 1
        room.journal.closed(self, why, tally)

    @property
    def gone(self) -> bool:
        return self.transport is None

    # asyncio.Protocol

    def connection_lost(self, exc: Exception | None) -> None:
        if self.transport is None:
            return
        self.transport = None
        if self._connections is not None:
            self._connections.discard(self)
        if self.ending is None:
            self._leave(Closing.CLIENT_CLOSED)
        if self._counted is not None:
            # Against the limits it counts until here: whoever takes the last bytes slowly holds a socket and memory.
            self.room.turns.add(partial(self.room.admission.left, self.remote, self._counted))

    def eof_received(self) -> bool | None:
        return None  # the client is done: close

    def pause_writing(self) -> None:
        self.paused = True
        if self.ending is None:
            self._pending = -1
            self._deadline = 0.0
        for reader in self.readers():
            self.room.hub.stall(reader)

    def resume_writing(self) -> None:
        self.paused = False
        self.touched_at = self.room.now()
        if self.ending is None:
            for reader in self.readers():
                self.room.hub.resume(reader)

    # The sweep

    def swept(self, now: float) -> None:
        """Heartbeats and deadlines."""
        if self.ending is not None:
            if now >= self._deadline:
                self._finish_or_cut(now)
            return
        why = self.over(now)
        if why is not None:
            self.end(why)
            return
        self._ask_when_due(now)
        if self.paused:
            self._watch_progress(now)
        else:
            if self._told_up is not self.room.upstream_up():
                self._tell_state()
            self.beat(now)

    def over(self, now: float) -> Closing | None:
        """Why its time is over, if it is."""
        guard = self.guard
        # Revocations are looked up here and nowhere else: whatever a connection was waiting for when one came, and
        # whoever let it in meanwhile, it ends when it is let in, or with the next round.
        if guard is not None and guard.principal is not None and self.room.revoked(guard.principal):
            return Closing.REVOKED
        if guard is not None and now >= guard.ends_at:
            return guard.why
        return Closing.MAX_AGE if now >= self.ends_at else None

    def _ask_when_due(self, now: float) -> None:
        # Of those with a full socket too: one that reads a little at a time is not to go on for ever unasked.
        guard = self.guard
        if guard is None or now < guard.ask_at:
            return
        if not self.room.upstream_up():
            # Put off, each for itself: when NATS is back, the service is not to hear from everybody at once.
            guard.ask_at = now + self.room.random.uniform(0, PUT_OFF_S)
            return
        guard.ask_at = float("inf")
        self.room.spawn(self._ask_again(guard))

    async def _ask_again(self, guard: Guard) -> None:
        """Ask the service that let this connection in whether it still may. While NATS is away it cannot be asked, and
        nothing comes that would need its word."""
        assert guard.ask is not None
        try:
            answer = await guard.ask()
        except Exception:  # a fault of ours: who was not asked for does not stay, and the loop logs it
            self.failed()
            raise
        if self.guard is not guard:
            return  # its client has a new token, for which the service is asked anew
        if isinstance(answer, Closing):
            self.end(answer)
        elif answer is not None:
            guard.ask_at = self.room.now() + lifetime_s(self.room.random, answer)

    def _tell_state(self) -> None:
        """NATS went, or came back. The sweep tells everybody within a round, not all in one turn."""
        self._told_up = not self._told_up
        data = self.dialect.control(None, control.state(self._told_up), {})
        if data:
            self.touched_at = self.room.now()
            self.write(data)

    def _finish_or_cut(self, now: float) -> None:
        # One that still takes its last bytes, however slowly, is let finish.
        pending = self._outstanding()
        if 0 < pending < self._pending:
            self._pending = pending
            self._deadline = now + CLOSE_TIMEOUT_S
        elif self.ending is not None:
            self.cut(self.ending)

    def _outstanding(self) -> int:
        """Bytes that the peer has not acknowledged, in the process and in the kernel."""
        if self.transport is None:
            return 0
        return self.transport.get_write_buffer_size() + unacknowledged(self.transport)

    def _watch_progress(self, now: float) -> None:
        # A full socket is written to by nobody, so what waits in it can only become less.
        pending = self._outstanding()
        if pending != self._pending:
            self._pending = pending
            self._deadline = now + self.room.write_timeout_s
        elif self.room.write_timeout_s and now >= self._deadline:
            self.cut(Closing.SLOW)
