"""Dialects: how a transport spells events and control messages. One instance each, shared by all connections."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import orjson

from gateway.core import frames, sse
from gateway.core.control import Control
from gateway.core.event import Event
from gateway.core.feed import Feed

Transport = Literal["sse", "ws"]


class Dialect(Protocol):
    """What a hub needs to speak to a reader.

    Attributes:
        transport: the label in metrics.
    """

    transport: Transport

    def events(self, feed: Feed, events: list[Event]) -> bytes:
        """The bytes of one or more good events: the same for every reader of the feed in this dialect."""

    def snapshot(self, feed: Feed, events: list[Event]) -> bytes:
        """The bytes of one or more events of a snapshot, which have no cursor; those of a service no subject either."""

    def control(self, feed: Feed | None, message: Control, more: dict[str, Any]) -> bytes:
        """The bytes of a control message, empty where the dialect does not speak it. `more`: further fields."""


class Sse:
    """Server-Sent Events. `named` adds `event: <type>` to events."""

    transport: Transport = "sse"

    def __init__(self, *, named: bool) -> None:
        self._named = named

    def events(self, feed: Feed, events: list[Event]) -> bytes:
        if self._named:
            return sse.chunk(b"".join([event.sse_named() for event in events]))
        return sse.chunk(b"".join([event.sse() for event in events]))

    def snapshot(self, feed: Feed, events: list[Event]) -> bytes:
        return sse.chunk(b"".join([event.sse_unplaced(named=self._named) for event in events]))

    def control(self, feed: Feed | None, message: Control, more: dict[str, Any]) -> bytes:
        name = b"natsgate." + message.name.encode("ascii")
        return sse.chunk(sse.block(name, orjson.dumps(message.fields | more), message.cursor))


class Envelope:
    """The WebSocket subprotocol `natsgate.v1`: every frame is a JSON object with an `op`."""

    transport: Transport = "ws"

    def events(self, feed: Feed, events: list[Event]) -> bytes:
        head = feed.head
        parts: list[bytes] = []
        for event in events:
            tail = event.tail()
            parts += (frames.text_header(len(head) + len(tail)), head, tail)
        return b"".join(parts)

    def snapshot(self, feed: Feed, events: list[Event]) -> bytes:
        head = feed.head
        tails = [
            b'"subject":%b,"snapshot":true,"event":%b}' % (orjson.dumps(event.topic.subject or None), event.data)
            for event in events
        ]
        return b"".join([part for tail in tails for part in (frames.text_header(len(head) + len(tail)), head, tail)])

    def control(self, feed: Feed | None, message: Control, more: dict[str, Any]) -> bytes:
        fields: dict[str, Any] = {"op": message.name}
        if message.of_feed and feed is not None:
            fields["feed"] = feed.name
        return frames.text(orjson.dumps(fields | message.fields | more))


class Raw:
    """Bare events, one a text frame (`natsgate.raw.v1`). `control` adds `{"natsgate":…}` frames in between."""

    transport: Transport = "ws"

    def __init__(self, *, control: bool) -> None:
        self._control = control

    def events(self, feed: Feed, events: list[Event]) -> bytes:
        return b"".join([part for event in events for part in (frames.text_header(len(event.data)), event.data)])

    def snapshot(self, feed: Feed, events: list[Event]) -> bytes:
        return self.events(feed, events)

    def control(self, feed: Feed | None, message: Control, more: dict[str, Any]) -> bytes:
        if not self._control:
            return b""
        return frames.text(orjson.dumps({"natsgate": message.name} | message.fields | more))


SSE, SSE_NAMED = Sse(named=False), Sse(named=True)
ENVELOPE = Envelope()
RAW, RAW_WITH_CONTROL = Raw(control=False), Raw(control=True)
