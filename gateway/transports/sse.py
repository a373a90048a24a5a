"""An SSE connection: one feed, one reader, and nothing to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from gateway.core import control, sse
from gateway.core.closing import Closing
from gateway.core.dialect import SSE, SSE_NAMED
from gateway.core.reader import Place, Reader
from gateway.core.schedule import retry_ms
from gateway.core.start import Start
from gateway.core.subjects import Filter
from gateway.transports.connection import Connection
from gateway.transports.room import Room


class SseConnection(Connection):
    """Server-Sent Events to one client.

    Args:
        room: what all connections share.
        route: the label of the route.
        filters: what the client asked for and may have.
        start: where it begins.
        named: whether events carry their type as a name.
    """

    __slots__ = ("_filters", "_reader", "_start")

    transport_name = "sse"

    def __init__(self, room: Room, route: str, filters: Sequence[Filter], start: Start, *, named: bool) -> None:
        super().__init__(room, route, SSE_NAMED if named else SSE)
        self._start = start
        self._filters = filters
        self._reader: Reader | None = None

    def started(self) -> None:
        assert self.transport is not None
        wait = sse.retry(retry_ms(self.room.random))
        self.write(sse.RESPONSE_HEAD + b"\r\n" + sse.chunk(wait))
        feed = self.room.hub.feeds.acquire(self._filters)
        self._filters = ()
        # The hot path goes straight to the socket.
        self._reader = Reader(feed, self.dialect, self, self.transport.write, self._start)
        self.room.hub.join(self._reader)
        self.room.readers_changed()

    def readers(self) -> Iterable[Reader]:
        return () if self._reader is None else (self._reader,)

    @property
    def identity(self) -> dict[str, Any]:
        return {"replica": self.room.replica, "connection": self.id}

    def farewell(self, why: Closing) -> bytes:
        return farewell(why, retry_ms(self.room.random, why)) + sse.LAST_CHUNK

    def beat(self, now: float) -> None:
        reader = self._reader
        if reader is not None and reader.place is Place.LIVE:
            self.touched_at = max(self.touched_at, reader.feed.delivered_at)
            self.checkpoint(reader, now)
        if now - self.touched_at >= self.room.heartbeat_s:
            self.touched_at = now
            self.write(sse.HEARTBEAT)

    def reached_head(self, reader: Reader) -> None:
        self.end(Closing.DONE)

    def data_received(self, data: bytes) -> None:
        """An EventSource has nothing more to say: what comes is not kept."""


def farewell(why: Closing, wait_ms: int) -> bytes:
    """The chunk that ends a stream: when to come back (for EventSource itself), and why it ends (for the page)."""
    return sse.chunk(sse.retry(wait_ms)) + SSE.control(None, control.closing(why, wait_ms), {})
