"""Reading Server-Sent Events: the bytes of a stream to events, as the standard says (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re
from typing import NamedTuple

from gateway.core.errors import GatewayError

LARGEST_BLOCK_BYTES = 64 * 2**20
"""More bytes than this without a blank line are no event stream that anybody meant."""

UNNAMED = "message"
"""What an event without a name is called."""

_LINE_END = re.compile(rb"[\r\n]")
_BOM = b"\xef\xbb\xbf"
_DIGITS = re.compile(r"[0-9]{1,18}")


class NotAnEventStream(GatewayError):
    """A block without end: larger than any event."""


class SseEvent(NamedTuple):
    """One event.

    Attributes:
        name: its `event:`; `UNNAMED` where there is none.
        data: its `data:` lines, joined by line feeds.
        id: its own `id:`; None where it has none.
    """

    name: str
    data: str
    id: str | None


class SseReader:
    """Reads one stream. How the bytes are cut into pieces changes nothing but when events come out.

    Attributes:
        last_event_id: what a client sends as `Last-Event-ID` when it comes back.
        retry_ms: the latest `retry:`; None while there was none.
    """

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry_ms: int | None = None
        self._line = bytearray()
        self._block_bytes = 0
        self._first = True
        self._after_cr = False
        self._data: list[str] = []
        self._name = ""
        self._id: str | None = None

    def feed(self, piece: bytes) -> list[SseEvent]:
        """Take the next bytes.

        Returns:
            the events that are complete now.

        Raises:
            NotAnEventStream: a block grew beyond all measure.
        """
        events: list[SseEvent] = []
        start = 0
        if self._after_cr and piece:
            self._after_cr = False
            start = int(piece[0] == 0x0A)  # the second half of a CR LF
        while (found := _LINE_END.search(piece, start)) is not None:
            end = found.start()
            line = bytes(self._line) + piece[start:end]
            self._line.clear()
            start = end + 1
            if piece[end] == 0x0D:
                if start == len(piece):
                    self._after_cr = True
                elif piece[start] == 0x0A:
                    start += 1
            self._count(len(line))
            event = self._take(line)
            if event is not None:
                events.append(event)
        self._line += piece[start:]
        self._count(len(self._line), keep=False)
        return events

    def _count(self, size: int, *, keep: bool = True) -> None:
        if self._block_bytes + size > LARGEST_BLOCK_BYTES:
            raise NotAnEventStream(f"an event of more than {LARGEST_BLOCK_BYTES} bytes: this is no event stream")
        self._block_bytes += size if keep else 0

    def _take(self, line: bytes) -> SseEvent | None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            return self._dispatch()
        name, _, rest = line.decode("utf-8", "replace").partition(":")
        value = rest.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._name = value
        elif name == "id":
            if "\0" not in value:
                self._id = value
        elif name == "retry" and _DIGITS.fullmatch(value):
            self.retry_ms = int(value)
        return None

    def _dispatch(self) -> SseEvent | None:
        if self._id is not None:
            self.last_event_id = self._id
        event = SseEvent(self._name or UNNAMED, "\n".join(self._data), self._id) if self._data else None
        self._data, self._name, self._id, self._block_bytes = [], "", None, 0
        return event
