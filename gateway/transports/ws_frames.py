"""A connection of WebSocket frames, by RFC 6455: a reader without I/O, keep-alive, and what bounds the client."""

from __future__ import annotations

from collections.abc import Callable

from gateway.core import control, frames, ws_reader
from gateway.core.closing import Closing
from gateway.core.dialect import Dialect
from gateway.core.errors import BadRequest, ClientError
from gateway.core.schedule import retry_ms
from gateway.core.ws_reader import Breach, WsReader
from gateway.transports.arrival import Arrival
from gateway.transports.connection import Connection
from gateway.transports.room import Room

UNREAD, UNSTORED, UNKNOWN, TURN_OVER = 1, 2, 4, 8
"""Reasons not to read on: the client does not read our bytes; its messages are not stored yet; we look at its token; it
is others' turn."""

FRAMES_PER_TURN = 16
"""How many frames of one client are looked at in a loop turn: a read brings up to 40,000 of the smallest."""

FRAMES_A_MESSAGE = 64
"""Pongs and fragments are no messages, but each is some work: so many count as one."""

MOST_UNREAD_BYTES = 64 * 2**20
"""What clients together have sent of messages that are not whole, or not stored, yet. Beyond that whoever sends more is
ended: tens of thousands of them with `WS_MAX_MESSAGE_BYTES` each would be gigabytes."""

INBOUND_WINDOW_S = 10.0
"""Over how long `INBOUND_RATE` is an average: a page that comes back asks for all of its feeds at once."""

LINGER_S = 1.0
"""How long a client may take to close its side once both have said their last."""


class FrameConnection(Connection):
    """Hands whole messages to its kind, and answers everything else by itself.

    Args:
        room, arrival, dialect: see `Connection`.

    Attributes:
        unread_bytes: its part of `Room.unread_bytes`.
    """

    __slots__ = ("_errors", "_held", "_incoming", "_pinged_at", "_spent_until", "_waits_for_pong", "unread_bytes")

    transport_name = "ws"

    def __init__(self, room: Room, arrival: Arrival, dialect: Dialect) -> None:
        super().__init__(room, arrival, dialect)
        self._incoming: WsReader | None = WsReader(room.ws_max_message_bytes)  # None: nothing more is listened to
        self._errors = 0
        self._held = 0
        self._spent_until = 0.0
        self.unread_bytes = 0
        self._pinged_at = room.now()
        self._waits_for_pong = False

    # What a kind adds

    def message(self, text: bytes) -> None:
        """A whole text message came, in valid UTF-8.

        Raises:
            ClientError: it cannot be served; the connection stays open.
        """
        raise NotImplementedError

    def binary(self, content: bytes) -> None:
        """A whole binary message came.

        Raises:
            ClientError: it cannot be served; the connection stays open.
        """
        raise BadRequest("Binary messages are not taken; send JSON as text.", code="not_text")

    @property
    def takes_messages(self) -> bool:
        """Whether messages still count. A client may send them until it has answered our close frame."""
        return self.ending is None

    def refuse(self, error: ClientError) -> None:
        """Tell the client what was wrong."""
        raise NotImplementedError

    # Ending

    def farewell(self, why: Closing) -> bytes:
        told = self.dialect.control(None, control.closing(why, retry_ms(self.room.random, why)), {})
        return told + frames.close(why.code, why.reason)

    def finish(self) -> None:
        """The client answers the close frame, then the socket closes; the sweep sees to those that do not."""

    def _hang_up(self) -> None:
        """Both have said their last: close our side, and read away what still comes until the client closes its own.
        On bytes that nobody reads the kernel answers with a reset, which can overtake the close frame."""
        self._stop_listening()
        self._pending = self._outstanding()
        self._deadline = self.room.now() + LINGER_S
        if self.transport is None or self.transport.is_closing():
            return
        self.transport.write_eof()
        self.transport.resume_reading()

    # The clock

    def beat(self, now: float) -> None:
        if self._waits_for_pong:
            if self._held:
                self._pinged_at = now  # its pong may be among what we do not read
            elif now - self._pinged_at >= self.room.ws_pong_timeout_s:
                self.end(Closing.HEARTBEAT_TIMEOUT)
        elif now - self._pinged_at >= self.room.ws_ping_s:
            self._pinged_at = now
            self._waits_for_pong = True
            self.write(frames.PING)

    # What is read, and what is not

    def hold_reading(self, reason: int, held: bool) -> None:
        """Read no further, or (when no reason is left) read on. What is not read is the client's to keep."""
        before = self._held
        self._held = before | reason if held else before & ~reason
        if bool(before) == bool(self._held):
            return
        if before:
            self._read()  # what had come already
            if self._held:
                return
        if self.transport is None or self.transport.is_closing():
            return
        if before:
            self.transport.resume_reading()
        elif self._incoming is not None:
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        super().pause_writing()
        # A client that sends and never reads would have its replies pile up here.
        self.hold_reading(UNREAD, True)

    def resume_writing(self) -> None:
        # A client that was behind may have a ping of before in its backlog: give it the whole time again.
        self._pinged_at = self.room.now()
        super().resume_writing()
        self.hold_reading(UNREAD, False)

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        if self._incoming is not None:
            self._incoming.feed(data)
            self._read()
            if self.unread_bytes and self.room.unread_bytes > MOST_UNREAD_BYTES:
                self.end(Closing.OVERLOADED)
                self._hang_up()

    def _count_unread(self) -> None:
        """What is left of what came counts, until it is read or its connection is gone."""
        left = 0 if self._incoming is None or self.transport is None else self._incoming.held_bytes
        self.room.unread_bytes += left - self.unread_bytes
        self.unread_bytes = left

    def _stop_listening(self) -> None:
        self._incoming = None
        self._count_unread()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.takes_messages:
            self._stop_listening()
        self.hold_reading(UNREAD, False)
        self._count_unread()

    def _read(self) -> None:
        self._read_frames()
        self._count_unread()

    def _read_frames(self) -> None:
        left = FRAMES_PER_TURN
        while self._incoming is not None and not self._held:
            if not left:
                self.hold_reading(TURN_OVER, True)
                self.room.defer(self._next_turn)
                return
            left -= 1
            try:
                frame = self._incoming.next()
            except Breach as breach:
                if self.ending is None:
                    self.refuse(breach)
                    self.end(breach.why)
                self._hang_up()
                return
            if frame is None:
                return
            self._received(*frame)

    def _next_turn(self) -> None:
        self.hold_reading(TURN_OVER, False)

    def _received(self, opcode: int, payload: bytes) -> None:
        if opcode == ws_reader.CLOSE:
            if self.ending is None:
                self._leave(Closing.CLIENT_CLOSED)
                self.write(frames.close_echo(payload))
            self._hang_up()
        elif not self._spend(opcode):
            self.end(Closing.RATE_LIMITED)
            self._hang_up()  # who floods goes on for a while: not worth reading
        elif opcode == ws_reader.PONG:
            self._waits_for_pong = False
        elif opcode == ws_reader.CONTINUATION:
            return  # of a message that goes on
        elif opcode == ws_reader.PING:
            self.write(frames.pong(payload))
        elif self.takes_messages:
            self.take(self.message if opcode == ws_reader.TEXT else self.binary, payload)

    def _spend(self, opcode: int) -> bool:
        """Whether the client may send one more frame now: `INBOUND_RATE` on average over `INBOUND_WINDOW_S`.

        A leaky bucket in one number (GCRA, ITU-T I.371): when the bucket will be empty again.
        """
        rate = self.room.inbound_rate
        if rate:
            now = self.room.now()
            messages = 1 / FRAMES_A_MESSAGE if opcode in (ws_reader.PONG, ws_reader.CONTINUATION) else 1
            self._spent_until = max(self._spent_until, now) + messages / rate
            return self._spent_until - now <= INBOUND_WINDOW_S
        return True

    def take(self, serve: Callable[[bytes], None], content: bytes) -> None:
        """Give a message to the kind of connection; what it cannot serve is told and counted."""
        try:
            serve(content)
        except ClientError as error:
            self._complain(error)

    def _complain(self, error: ClientError) -> None:
        self.refuse(error)
        self._count_error()

    def _count_error(self) -> None:
        self._errors += 1
        if self.room.ws_max_errors and self._errors > self.room.ws_max_errors:
            self.end(Closing.POLICY)
