"""Links: the three ways to a gateway, as bytes in and out. They are strict: what is not by the letter raises."""

from __future__ import annotations

import base64
import os
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import orjson

from tests.stress.history import Mark
from tests.support.raw_ws import CLOSE, PING, PONG, TEXT, encode_frame, encode_op
from tests.support.sse import EventStreamParser, events_target, parse_head

COME_BACK = (429, 503)
"""Statuses that ask a client to come back."""


class Refused(Exception):
    """The gateway said no for good; no client of this run may hear that."""


class Heard(NamedTuple):
    """An event: its number, its sequence (0 where it is not told), and the cursor that comes with it."""

    number: int
    sequence: int
    cursor: str


class Told(NamedTuple):
    """A control message, and the cursor that comes with it (empty where none does)."""

    mark: Mark
    cursor: str


class Link(Protocol):
    """One connection's bytes.

    Attributes:
        replies: what is to be sent back; taken by the caller.
    """

    replies: bytearray

    def feed(self, piece: bytes) -> list[Heard | Told]:
        """Read on.

        Raises:
            Refused, Ended: see there.
        """


class Ended(Exception):
    """The gateway ended the connection in good order."""


class SseLink:
    """Server-Sent Events over HTTP/1.1 chunks."""

    def __init__(self, filters: tuple[str, ...], cursor: str, *, since: str) -> None:
        target = events_target(filters, {"since": since} if since else {})
        lines = [f"GET {target} HTTP/1.1", "Host: natsgate", "Accept: text/event-stream"]
        lines += [f"Last-Event-ID: {cursor}"] if cursor else []
        self.replies = bytearray("\r\n".join([*lines, "", ""]).encode())
        self._head = False
        self._buffer = bytearray()
        self._parser = EventStreamParser()

    def feed(self, piece: bytes) -> list[Heard | Told]:
        buffer = self._buffer
        buffer += piece
        if not self._head:
            self._head = _take_head(buffer, 200)
        ended = False
        while self._head and not ended:
            line = buffer.find(b"\r\n")
            if line < 0:
                break
            size = int(buffer[:line], 16)
            if len(buffer) < line + size + 4:
                break
            if buffer[line + 2 + size : line + 4 + size] != b"\r\n":
                raise Refused("a chunk does not end where it should")
            self._parser.feed(bytes(buffer[line + 2 : line + 2 + size]))
            del buffer[: line + size + 4]
            ended = size == 0
        heard = [self._read(event.type, event.data, event.id or "") for event in self._parser.events]
        self._parser.events.clear()
        if ended and not heard:
            raise Ended
        return heard

    def _read(self, kind: str, data: str, cursor: str) -> Heard | Told:
        content = orjson.loads(data)
        if kind == "message":
            return Heard(content["n"], _sequence(cursor), cursor)
        return _told(kind.removeprefix("natsgate."), content, cursor)


class WebSocketLink:
    """`natsgate.v1` with one feed, or a raw route with control frames.

    Args:
        path: `/ws`, or that of the raw route.
        filters: what to subscribe to; empty on a raw route.
    """

    def __init__(self, path: str, filters: tuple[str, ...], cursor: str, *, since: str) -> None:
        self._raw = not filters
        self._subscribe = b""
        query = {"last_event_id": cursor, "since": since}
        if self._raw:
            path += "?control=true" + "".join(f"&{name}={quote(text)}" for name, text in query.items() if text)
        else:
            more = {"cursor": cursor} if cursor else {"since": since} if since else {}
            self._subscribe = encode_op(op="subscribe", ref=1, subjects=list(filters), **more)
        protocol = "natsgate.raw.v1" if self._raw else "natsgate.v1"
        lines = [f"GET {path} HTTP/1.1", "Host: natsgate", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {base64.b64encode(os.urandom(16)).decode()}", "Sec-WebSocket-Version: 13"]
        lines += [f"Sec-WebSocket-Protocol: {protocol}", "", ""]
        self.replies = bytearray("\r\n".join(lines).encode())
        self._head = False
        self._buffer = bytearray()
        self._cursor = ""

    def feed(self, piece: bytes) -> list[Heard | Told]:
        buffer = self._buffer
        buffer += piece
        if not self._head:
            self._head = _take_head(buffer, 101)
            if self._head:
                self.replies += self._subscribe
        heard: list[Heard | Told] = []
        begin = 0
        while self._head:
            place = _payload(buffer, begin)
            if place is None:
                break
            opcode, start, begin = buffer[begin] & 0x0F, *place
            payload = bytes(buffer[start:begin])
            if opcode == TEXT:
                each = self._read(orjson.loads(payload))
                heard += [each] if each is not None else []
            elif opcode == PING:
                self.replies += encode_frame(PONG, payload)
            elif opcode == CLOSE:
                self.replies += encode_frame(CLOSE, payload)
                heard.append(Told(Mark("close", detail=payload[2:].decode()), ""))
                break
        del buffer[:begin]
        return heard

    def _read(self, content: dict[str, Any]) -> Heard | Told | None:
        if self._raw:
            if "natsgate" not in content:
                return Heard(content["n"], 0, "")
            return _told(content["natsgate"], content, content.get("cursor") or content.get("to") or "")
        match content["op"]:
            case "event":
                return Heard(content["event"]["n"], _sequence(content["cursor"]), content["cursor"])
            case "hello" | "subscribed":
                return None
            case "error":
                raise Refused(f"{content}")
        return _told(content["op"], content, content.get("cursor") or content.get("to") or "")


def _told(name: str, content: dict[str, Any], cursor: str) -> Told:
    match name:
        case "gap":
            after = content["from"]
            return Told(Mark(name, _sequence(cursor), _sequence(after) if after else None, content["reason"]), cursor)
        case "ready" | "cursor":
            if content["cursor"] != cursor:
                raise Refused(f"{name} says {content['cursor']}, its id is {cursor}")
            return Told(Mark(name, _sequence(cursor)), cursor)
        case "state":
            return Told(Mark(name, detail=content["upstream"]), "")
        case "closing":
            return Told(Mark(name, detail=content["reason"]), "")
    raise Refused(f"unknown control message {name}: {content}")


def _sequence(cursor: str) -> int:
    return int(cursor.rpartition("-")[2])


def _take_head(buffer: bytearray, wanted: int) -> bool:
    end = buffer.find(b"\r\n\r\n")
    if end < 0:
        return False
    status, _ = parse_head(bytes(buffer[: end + 4]))
    if status in COME_BACK:
        raise Ended
    if status != wanted:
        raise Refused(f"status {status}: {bytes(buffer[end + 4 : end + 400])!r}")
    del buffer[: end + 4]
    return True


def _payload(buffer: bytearray, begin: int) -> tuple[int, int] | None:
    """Where a frame's payload begins and ends; None when it is not whole yet."""
    if len(buffer) < begin + 2:
        return None
    if buffer[begin] & 0x70 or buffer[begin + 1] & 0x80:
        raise Refused("a frame with reserved bits or a mask")
    length = buffer[begin + 1]
    start = begin + 2 + {126: 2, 127: 8}.get(length, 0)
    if length > 125:
        if len(buffer) < start:
            return None
        length = int.from_bytes(buffer[begin + 2 : start], "big")
    return (start, start + length) if len(buffer) >= start + length else None
