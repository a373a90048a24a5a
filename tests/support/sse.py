"""A strict SSE client on a bare socket: HTTP/1.1 chunks and event-stream text by the letter."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from tests.support.http_reply import HttpReply
from tests.support.lifetime import Opened
from tests.support.ports import address_of
from tests.support.tcp import TcpStream

PATIENCE_S = 10.0


@dataclass(frozen=True, slots=True)
class SseEvent:
    """One dispatched event: `type` is `message` when unnamed, `id` is None when the block had none."""

    type: str
    data: str
    id: str | None
    last_event_id: str

    def json(self) -> Any:
        return json.loads(self.data)


class Violation(AssertionError):
    """What came is no event stream in the narrow sense: unknown field, broken chunk, not UTF-8."""


class EventStreamParser:
    """Event-stream text (WHATWG HTML, section 9.2) to events, comments and `retry:`."""

    def __init__(self) -> None:
        self.events: deque[SseEvent] = deque()
        self.comments: list[str] = []
        self.retry_ms: int | None = None
        self.last_event_id = ""
        self._text = bytearray()
        self._data: list[str] = []
        self._type = ""
        self._id: str | None = None

    def feed(self, piece: bytes) -> None:
        self._text += piece
        start = 0
        text = self._text
        while True:
            newline, carriage = text.find(b"\n", start), text.find(b"\r", start)
            if newline < 0 and carriage < 0:
                break
            end = min(position for position in (newline, carriage) if position >= 0)
            following = end + 1
            if text[end] == 0x0D:
                if following == len(text):
                    break  # a LF may follow in the next piece
                following += text[following] == 0x0A
            self._line(text[start:end].decode("utf-8", "strict"))
            start = following
        del text[:start]

    def _line(self, line: str) -> None:
        if line == "":
            self._dispatch()
            return
        if line.startswith(":"):
            self.comments.append(line[1:].removeprefix(" "))
            return
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._type = value
        elif name == "id":
            if "\0" in value:
                raise Violation(f"NUL in an id: {line!r}")
            self._id = value
        elif name == "retry":
            if not (value.isascii() and value.isdigit()):
                raise Violation(f"retry is no number: {line!r}")
            self.retry_ms = int(value)
        else:
            raise Violation(f"unknown field: {line!r}")

    def _dispatch(self) -> None:
        if self._id is not None:
            self.last_event_id = self._id
        if self._data:
            self.events.append(SseEvent(self._type or "message", "\n".join(self._data), self._id, self.last_event_id))
        elif self._id is not None:
            raise Violation("an id without data: Firefox forgets it")
        self._data, self._type, self._id = [], "", None


class SseClient(Opened):
    """One GET and its event stream.

    Nothing is read in the background: a client that awaits nothing is a stalled reader.

    Args:
        url: the gateway, e.g. `http://127.0.0.1:8080`.
        subjects: filters for `/events`, put into the query properly encoded.
        target: the request target instead, sent byte for byte (`/api/…?…`).
    """

    def __init__(
        self,
        url: str,
        *subjects: str,
        target: str | None = None,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        receive_buffer_bytes: int | None = None,
        keep: bool = True,
    ) -> None:
        host, port = address_of(url)
        self._host = f"{host}:{port}"
        self.tcp = TcpStream(host, port, receive_buffer_bytes=receive_buffer_bytes, keep=keep)
        self._target = target or events_target(subjects, query or {})
        self._headers = {"Accept": "text/event-stream", **(headers or {})}
        self._parser = EventStreamParser()
        self._comments_taken = 0
        self.status = 0
        self.headers: dict[str, str] = {}
        self.head = b""
        self.chunks = 0
        self.body = b""
        self.ended = False

    @property
    def comments(self) -> list[str]:
        return self._parser.comments

    @property
    def retry_ms(self) -> int | None:
        return self._parser.retry_ms

    @property
    def last_event_id(self) -> str:
        return self._parser.last_event_id

    @property
    def raw(self) -> bytes:
        """Every byte read so far, head and chunk framing included."""
        return bytes(self.tcp.raw)

    async def open(self, *, timeout_s: float = PATIENCE_S) -> None:
        """Connect, send the request, read status and headers; a refusal's body too."""
        async with asyncio.timeout(timeout_s):
            await self.tcp.open()
            lines = [f"GET {self._target} HTTP/1.1", f"Host: {self._host}"]
            lines += [f"{name}: {value}" for name, value in self._headers.items()]
            await self.tcp.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
            self.head = await self.tcp.read_until(b"\r\n\r\n")
            self.status, self.headers = parse_head(self.head)
            if not self.is_event_stream:
                self.body = await read_body(self.tcp, self.headers)
            elif "content-length" in self.headers:  # a proxy's, for lack of a gateway
                self._parser.feed(await read_body(self.tcp, self.headers))
                self.ended = True

    @property
    def is_event_stream(self) -> bool:
        return self.status == 200 and self.headers.get("content-type", "").startswith("text/event-stream")

    @property
    def reply(self) -> HttpReply:
        """A refusal as a whole answer."""
        return HttpReply(self.status, self.headers, self.body)

    async def next_event(self, *, timeout_s: float = PATIENCE_S) -> SseEvent:
        """The next event of any name.

        Raises:
            EOFError: the stream ended.
            TimeoutError: nothing came in time.
        """
        events = self._parser.events
        async with asyncio.timeout(timeout_s):
            while not events:
                await self._read_chunk()
        return events.popleft()

    async def next_message(self, *, timeout_s: float = PATIENCE_S) -> SseEvent:
        """The next event that is not one of natsgate's own."""
        while True:
            event = await self.next_event(timeout_s=timeout_s)
            if not event.type.startswith("natsgate."):
                return event

    async def ready(self, *, timeout_s: float = PATIENCE_S) -> SseEvent:
        """The `natsgate.ready` event, which has to be the next one."""
        event = await self.next_event(timeout_s=timeout_s)
        assert event.type == "natsgate.ready", event
        return event

    async def next_comment(self, *, timeout_s: float = PATIENCE_S) -> str:
        """The next comment line not returned before; events met meanwhile stay for `next_event`."""
        async with asyncio.timeout(timeout_s):
            while len(self.comments) == self._comments_taken:
                await self._read_chunk()
        self._comments_taken += 1
        return self.comments[self._comments_taken - 1]

    async def rest(self, *, timeout_s: float = PATIENCE_S) -> list[SseEvent]:
        """Every event up to the end of the stream."""
        events: list[SseEvent] = []
        try:
            while True:
                events.append(await self.next_event(timeout_s=timeout_s))
        except EOFError:
            return events

    async def _read_chunk(self) -> None:
        if self.ended:
            raise EOFError("the stream ended")
        size = await self.tcp.read_until(b"\r\n")
        try:
            length = int(size[:-2], 16)
        except ValueError:
            raise Violation(f"no chunk size: {size!r}") from None
        framed = await self.tcp.read_exactly(length + 2)
        if framed[-2:] != b"\r\n":
            raise Violation(f"a chunk of {length} bytes is followed by {framed[-2:]!r}")
        if length == 0:
            self.ended = True
            return
        self.chunks += 1
        self._parser.feed(framed[:-2])

    def close(self) -> None:
        self.tcp.close()


def events_target(subjects: Iterable[str], query: Mapping[str, str]) -> str:
    """The target of `/events` for these filters; everything but letters, digits and `-_.~` is encoded."""
    pairs = [("subject", subject) for subject in subjects] + list(query.items())
    return "/events" + ("?" if pairs else "") + "&".join(f"{name}={quote(value, safe='')}" for name, value in pairs)


def parse_head(head: bytes) -> tuple[int, dict[str, str]]:
    """Status and headers (lower-case names) of an HTTP/1.1 response; a repeated header fails."""
    status_line, *lines = head.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    version, status, *_ = status_line.split(" ", 2)
    if version != "HTTP/1.1":
        raise Violation(f"not HTTP/1.1: {status_line!r}")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or name.lower() in headers:
            raise Violation(f"bad or repeated header: {line!r}")
        headers[name.lower()] = value.strip()
    return int(status), headers


async def read_body(tcp: TcpStream, headers: Mapping[str, str]) -> bytes:
    """The body of an ordinary response: by length, else by chunks, else to the end."""
    if "content-length" in headers:
        return await tcp.read_exactly(int(headers["content-length"]))
    if headers.get("transfer-encoding") != "chunked":
        return await tcp.read_to_end()
    body = b""
    while size := int(await tcp.read_until(b"\r\n"), 16):
        body += (await tcp.read_exactly(size + 2))[:-2]
    return body
