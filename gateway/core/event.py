"""One event of the stream, as the log keeps it: stored once, framed once per transport, for all its readers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import orjson

from gateway.core.envelope import BadEvent, DropReason, check, event_name

if TYPE_CHECKING:
    from gateway.core.index import Topic

OVERHEAD_BYTES = 400
"""What one event costs beside its bytes: objects and index entries (CPython 3.11, 64 bit, rounded up)."""

VALID, UNCHECKED, DROPPED = 1, 0, -1


class Event:
    """An event at its place in the stream.

    Attributes:
        seq: its stream sequence. Behind `prefix`, it is the cursor of whoever has seen it.
        topic: its subject, with everything that is known about it.
        data: the payload; after `checked`, JSON on one line.
        cost: what it holds in memory now, in bytes.
        paid: how much of that the log has accounted for; -1 once the log let it go.
    """

    __slots__ = ("_name", "_prefix", "_sse", "_state", "_tail", "cost", "data", "paid", "seq", "topic")

    def __init__(self, seq: int, topic: Topic, data: bytes, prefix: bytes) -> None:
        self.seq = seq
        self.topic = topic
        self.data = data
        self._prefix = prefix
        self.cost = len(data) + OVERHEAD_BYTES
        self.paid = 0
        self._state = UNCHECKED
        self._name = b""
        self._sse: bytes | None = None
        self._tail: bytes | None = None

    def checked(self) -> DropReason | None:
        """Check the payload, once, when the first reader wants it.

        Returns:
            None where the event is good or was found bad before; the reason when it is found bad now.
        """
        if self._state == UNCHECKED:
            try:
                self.data, envelope = check(self.data)
                self._name = event_name(envelope, self.topic.subject)
                self._state = VALID
            except BadEvent as bad:
                self.drop()
                return bad.reason
        return None

    def drop(self) -> None:
        """Keep the place in the stream, forget the payload: nobody is to get it."""
        self._state = DROPPED
        self.cost -= len(self.data)
        self.data = b""

    @property
    def good(self) -> bool:
        """Whether readers get it. Meaningful after `checked`."""
        return self._state == VALID

    def sse(self) -> bytes:
        """The SSE block without a name."""
        block = self._sse
        if block is None:
            block = self._sse = b"id: %b%d\ndata: %b\n\n" % (self._prefix, self.seq, self.data)
            self.cost += len(block)
        return block

    def sse_unplaced(self, *, named: bool) -> bytes:
        """The SSE block of a snapshot: without an id, since it moves nobody."""
        name = b"event: %b\n" % self._name if named and self._name else b""
        return b"%bdata: %b\n\n" % (name, self.data)

    def sse_named(self) -> bytes:
        """The SSE block with its `event:` line; rarer, so made anew each time."""
        return b"event: %b\n%b" % (self._name, self.sse()) if self._name else self.sse()

    def tail(self) -> bytes:
        """The part of a `natsgate.v1` event frame behind the feed's name: the same for every feed."""
        tail = self._tail
        if tail is None:
            tail = self._tail = b'"subject":%b,"cursor":"%b%d","event":%b}' % (
                orjson.dumps(self.topic.subject),
                self._prefix,
                self.seq,
                self.data,
            )
            self.cost += len(tail)
        return tail
