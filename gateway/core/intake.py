"""The intake: what the tap delivers, checked for origin and order, into the log.

The stream republishes each message it stored with the headers `Nats-Stream`, `Nats-Subject`, `Nats-Sequence`,
`Nats-Time-Stamp`, `Nats-Last-Sequence` (NATS ADR-28). A publisher can send headers of these names itself; the genuine
ones are appended behind them, so the last block counts.
"""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.log import Log

OPENING_BYTES = 16 * 1024 * 1024
"""What is kept of live messages while the tap opens and the log's beginning is not known yet."""


_STAMP = b"\r\nNats-Time-Stamp: "


class Hole(NamedTuple):
    """Sequences that the live path never delivered: everything in (after, before)."""

    after: int
    before: int


class Intake:
    """Feeds a log from the republished stream.

    Args:
        log: where events go.
        stream: the stream's name; messages that claim another one are not its.
        live_prefix: the prefix of republished subjects.
        roots: the first tokens that are counted by name.
        max_event_bytes: larger payloads are not delivered; 0 means no limit.

    Attributes:
        received: messages by root.
        holes: how many holes were seen.
        last_stamp: the headers of the newest message from its sequence on.
    """

    def __init__(
        self, log: Log, *, stream: str, live_prefix: str, roots: tuple[str, ...], max_event_bytes: int
    ) -> None:
        self._log = log
        self._stream = stream.encode("utf-8")
        self._prefix = len(live_prefix.encode("utf-8")) + 1
        self._max_event_bytes = max_event_bytes
        self._opening: list[tuple[bytes, bytes, bytes]] | None = []
        self._opening_bytes = 0
        self.received = {root.encode("ascii"): 0 for root in roots}
        self.holes = 0
        self.last_stamp = b""

    def opening(self) -> None:
        """A tap is being opened: hold what it delivers until `begin` says where the log begins."""
        self._opening = []
        self._opening_bytes = 0

    def begin(self, incarnation: str, base: int) -> list[Hole]:
        """The log begins behind `base`; take in what came meanwhile. Returns the holes in it."""
        held, self._opening = self._opening or [], None
        self._log.reset(incarnation, base)
        return [hole for each in held if (hole := self._take(*each)) is not None]

    def receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> Hole | None:
        """Take one message as the wire brought it. Returns the hole that it revealed, if any."""
        if headers is None:
            self._drop("not_from_stream", subject)
            return None
        if self._opening is not None:
            # Over the bound the newest are let go: the first message after `begin` then shows the hole.
            self._opening_bytes += len(payload) + len(headers) + len(subject) + 200
            if self._opening_bytes <= OPENING_BYTES:
                self._opening.append((subject, headers, payload))
            return None
        return self._take(subject, headers, payload)

    def _take(self, subject: bytes, headers: bytes, payload: bytes) -> Hole | None:
        block = headers.rfind(b"\r\nNats-Stream: ")
        if block < 0 or headers[block + 15 : headers.find(b"\r\n", block + 15)] != self._stream:
            self._drop("not_from_stream", subject)
            return None
        at = headers.find(b"\r\nNats-Sequence: ", block)
        digits = headers[at + 17 : headers.find(b"\r\n", at + 17)] if at > 0 else b""
        if not digits.isdigit():
            self._drop("bad_sequence", subject)
            return None
        sequence = int(digits)
        log = self._log
        head = log.head
        if sequence <= head:
            return None  # seen before: routes and reconnects may deliver twice, the log takes it once
        subject = subject[self._prefix :]
        root = subject[: subject.find(b".")]
        if root in self.received:
            self.received[root] += 1
        hole = None
        if sequence != head + 1:
            self.holes += 1
            hole = Hole(head, sequence)
        if self._max_event_bytes and len(payload) > self._max_event_bytes:
            self._drop("too_large", subject)
            log.append(sequence, subject, None)
        else:
            log.append(sequence, subject, payload)
        self.last_stamp = headers[at + 17 :]
        return hole

    def _drop(self, reason: str, subject: bytes) -> None:
        self._log.count_drop(reason, subject.decode("utf-8", "replace"))

    @property
    def stored_at(self) -> str:
        """When the stream stored the newest message, as the server wrote it (RFC 3339, UTC); empty if unknown."""
        _, found, rest = self.last_stamp.partition(_STAMP)
        return rest.split(b"\r", 1)[0].decode("ascii", "replace") if found else ""
