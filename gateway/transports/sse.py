"""An SSE connection: one feed, one reader, and nothing to read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from gateway.core import control, sse
from gateway.core.closing import Closing
from gateway.core.dialect import SSE, SSE_NAMED
from gateway.core.guard import Entry
from gateway.core.reader import Place, Reader
from gateway.core.schedule import retry_ms
from gateway.transports.arrival import Arrival
from gateway.transports.connection import Connection
from gateway.transports.room import Room

MOST_SAID_BYTES = 64 * 1024
"""What an SSE client may send behind its request: the rest of a body, what a careless client pipelines."""


class SseConnection(Connection):
    """Server-Sent Events to one client.

    Args:
        room, arrival: see `Connection`.
        entry: what the client asked for and may have, and where it begins.
        named: whether events carry their type as a name.
        headers: further headers of the response.
    """

    __slots__ = ("_entry", "_headers", "_reader", "_said")

    transport_name = "sse"

    def __init__(
        self,
        room: Room,
        arrival: Arrival,
        entry: Entry,
        *,
        named: bool,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(room, arrival, SSE_NAMED if named else SSE)
        self._entry: Entry | None = entry
        self._headers = b"".join([b"%b: %b\r\n" % header for header in headers])
        self._reader: Reader | None = None
        self._said = 0

    def started(self) -> None:
        entry, self._entry = self._entry, None
        assert self.transport is not None
        assert entry is not None
        wait = sse.retry(retry_ms(self.room.random))
        self.write(sse.RESPONSE_HEAD + self._headers + b"\r\n" + sse.chunk(wait))
        self._headers = b""
        feed = self.room.hub.feeds.acquire(entry.filters)
        # The hot path goes straight to the socket.
        self._reader = Reader(feed, self.dialect, self, self.transport.write, entry.start, entry.opening)
        self.room.hub.join(self._reader)
        self.room.readers_changed()

    def readers(self) -> Iterable[Reader]:
        return () if self._reader is None else (self._reader,)

    @property
    def identity(self) -> dict[str, Any]:
        return {"replica": self.room.replica, "connection": self.id}

    def farewell(self, why: Closing) -> bytes:
        return sse.chunk(farewell_block(why, retry_ms(self.room.random, why))) + sse.LAST_CHUNK

    def beat(self, now: float) -> None:
        reader = self._reader
        if reader is not None and reader.place is Place.LIVE:
            self.touched_at = max(self.touched_at, reader.feed.delivered_at)
            self.checkpoint(reader, now)
        if now - self.touched_at >= self.room.heartbeat_s:
            self.touched_at = now
            self.write(sse.HEARTBEAT)

    def data_received(self, data: bytes) -> None:
        """An EventSource has nothing more to say: what comes is not kept, and who goes on is cut."""
        self._said += len(data)
        if self._said > MOST_SAID_BYTES:
            self.cut(Closing.POLICY)


def farewell_block(why: Closing, wait_ms: int) -> bytes:
    """What ends a stream: when to come back (for EventSource itself), and why it ends (for the page)."""
    message = control.closing(why, wait_ms)
    return sse.retry(wait_ms) + sse.block(b"natsgate.closing", orjson.dumps(message.fields), None)
