"""A WebSocket connection: frames in by a reader without I/O, ops answered at once, events out as shared bytes.

Two kinds share it: `natsgate.v1` (ops and feeds) and raw (bare events of one route, bare messages back).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from gateway.core import control, frames, ws_reader
from gateway.core.closing import Closing
from gateway.core.dialect import Dialect
from gateway.core.errors import BadRequest, ClientError
from gateway.core.reader import Place, Reader
from gateway.core.schedule import retry_ms
from gateway.core.start import Start
from gateway.core.subjects import Filter, feed_name
from gateway.core.ws_reader import Breach, WsReader
from gateway.transports.connection import Connection
from gateway.transports.room import Room

UNREAD, UNSTORED, TURN_OVER = 1, 2, 4
"""Reasons not to read on: the client does not read our bytes; its messages are not stored yet; it is others' turn."""

FRAMES_PER_TURN = 64
"""How many frames of one client are looked at in a loop turn: a read brings up to 40,000 of the smallest."""

LINGER_S = 1.0
"""How long a client may take to close its side once both have said their last."""


class WebSocketConnection(Connection):
    """What both kinds have in common: RFC 6455, keep-alive, readers, errors.

    Args:
        room: what all connections share.
        route: the label of the route.
        dialect: how it speaks.
    """

    __slots__ = ("_errors", "_held", "_incoming", "_pinged_at", "_waits_for_pong", "feeds")

    transport_name = "ws"

    def __init__(self, room: Room, route: str, dialect: Dialect) -> None:
        super().__init__(room, route, dialect)
        self.feeds: dict[str, Reader] = {}
        self._incoming: WsReader | None = WsReader(room.ws_max_message_bytes)  # None: nothing more is listened to
        self._errors = 0
        self._held = 0
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

    # Feeds

    def subscribe(self, filters: Sequence[Filter], start: Start) -> None:
        """Begin to serve a feed of these filters, at `start`.

        Raises:
            BadRequest: the connection has this feed already.
        """
        assert self.transport is not None
        name = feed_name(filters)
        if name in self.feeds:
            raise BadRequest(f"The feed {name} is subscribed to already.", code="already_subscribed")
        self.subscribing(name)
        feed = self.room.hub.feeds.acquire(filters)
        reader = Reader(feed, self.dialect, self, self.transport.write, start)
        self.feeds[feed.name] = reader
        self.room.hub.join(reader)
        self.room.readers_changed()

    def subscribing(self, name: str) -> None:
        """A feed is about to begin: the place for a reply."""

    def unsubscribe(self, name: str) -> None:
        """Stop serving a feed. No event of it is written afterwards."""
        self.room.hub.leave(self.feeds.pop(name))
        self.room.readers_changed()

    def readers(self) -> Iterable[Reader]:
        return self.feeds.values()

    # Ending

    def farewell(self, why: Closing) -> bytes:
        told = self.dialect.control(None, control.closing(why, retry_ms(self.room.random)), {})
        return told + frames.close(why.code, why.reason)

    def finish(self) -> None:
        """The client answers the close frame, then the socket closes; the sweep sees to those that do not."""

    def _hang_up(self) -> None:
        """Both have said their last: close our side, and read away what still comes until the client closes its own.
        On bytes that nobody reads the kernel answers with a reset, which can overtake the close frame."""
        self._incoming = None
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
        for reader in self.feeds.values():
            if reader.place is Place.LIVE:
                self.checkpoint(reader, now)

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

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if not self.takes_messages:
            self._incoming = None
        self.hold_reading(UNREAD, False)

    def _read(self) -> None:
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
        if opcode == ws_reader.PONG:
            self._waits_for_pong = False
        elif opcode == ws_reader.PING:
            self.write(frames.pong(payload))
        elif opcode == ws_reader.CLOSE:
            if self.ending is None:
                self._leave(Closing.CLIENT_CLOSED)
                self.write(frames.close_echo(payload))
            self._hang_up()
        elif opcode != ws_reader.CONTINUATION and self.takes_messages:
            self.take(self.message if opcode == ws_reader.TEXT else self.binary, payload)

    def take(self, serve: Callable[[bytes], None], content: bytes) -> None:
        """Give a message to the kind of connection; what it cannot serve is told and counted."""
        try:
            serve(content)
        except ClientError as error:
            self._complain(error)

    def _complain(self, error: ClientError) -> None:
        self.refuse(error)
        self._errors += 1
        if self.room.ws_max_errors and self._errors > self.room.ws_max_errors:
            self.end(Closing.POLICY)
