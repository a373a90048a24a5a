"""The intake: what the tap delivers, checked for origin and order, into the log.

The stream republishes each message it stored with the headers `Nats-Stream`, `Nats-Subject`, `Nats-Sequence`,
`Nats-Time-Stamp`, `Nats-Last-Sequence` (NATS ADR-28). A publisher can send headers of these names itself; the genuine
ones are appended behind them, so the last block counts.

Sequences are contiguous, so the next one either is the head's successor or shows a hole: NATS's live path may drop
messages without a word. At a hole the intake holds: what comes is kept aside until the hole was filled from the stream.
"""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

from gateway.core.cursor import LARGEST_SEQUENCE
from gateway.core.envelope import DropReason
from gateway.core.log import Log

HOLD_BYTES = 16 * 1024 * 1024
"""What is kept aside while a hole is filled. Over it the newest are let go, and show as the next hole."""

HELD_OVERHEAD_BYTES = 256
"""What a message that is kept aside takes beside its subject, headers and payload."""

_STAMP = b"\r\nNats-Time-Stamp: "


FoundBy = Literal["sequence", "reconnect", "tail"]
"""What shows a hole: the next message, a reconnect, the leader's last sequence."""

FOUND_BY: tuple[FoundBy, ...] = get_args(FoundBy)


class Hole(NamedTuple):
    """Sequences that the live path has not delivered: everything in (after, before)."""

    after: int
    before: int


class _Live(NamedTuple):
    sequence: int
    subject: bytes
    payload: bytes
    headers: bytes

    @property
    def bytes(self) -> int:
        return len(self.subject) + len(self.payload) + len(self.headers) + HELD_OVERHEAD_BYTES


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
        held_bytes: what is kept aside, at most `HOLD_BYTES`.
        repeated: how many messages came with a sequence that the log already has. A few are usual after a hole was
            filled; a stream that was created anew shows itself by them.
        doubtful: whether one of them was stored later than the log's head, so that it is of another life of the stream
            (or of one that was put back). What comes then is kept aside: the leader is to be asked first.
    """

    def __init__(
        self, log: Log, *, stream: str, live_prefix: str, roots: tuple[str, ...], max_event_bytes: int
    ) -> None:
        self._log = log
        self._stream = stream.encode("utf-8")
        self._prefix = len(live_prefix.encode("utf-8")) + 1
        self.max_event_bytes = max_event_bytes
        self._held: list[_Live] | None = []
        self._newest, self._newest_at = b"", 0
        self.received = {root.encode("ascii"): 0 for root in roots}
        self.held_bytes = 0
        self._letting_go = False  # the bound was reached: what comes now would be one more hole each
        self.repeated = 0
        self.doubtful = False

    # Holding

    @property
    def holding(self) -> bool:
        """Whether live messages are kept aside."""
        return self._held is not None

    def hold(self) -> None:
        """Keep live messages aside from now on."""
        if self._held is None:
            self._held = []

    def forget(self) -> None:
        """Hold, and forget what was kept aside: the tap is closed, or the stream is another one."""
        self._keep([])
        self._newest, self._newest_at = b"", 0
        self.doubtful = False

    def fill(self, sequence: int, subject: bytes, payload: bytes, headers: bytes, *, counted: bool) -> None:
        """Take a message that was read from the stream. What the log has already is passed over.

        Args:
            sequence, subject, payload, headers: the message.
            counted: whether it counts when it is dropped: what merely warms the log was dropped by others before.
        """
        if sequence > self._log.head:
            if not counted and self.max_event_bytes and len(payload) > self.max_event_bytes:
                self._log.append(sequence, subject, None)
                self._newest, self._newest_at = headers, sequence
            elif counted:
                self._append(sequence, subject, payload, headers)
            else:
                event = self._log.append(sequence, subject, payload)
                self._log.check(event)
                self._log.charge(event)
                self._newest, self._newest_at = headers, sequence

    def release(self) -> Hole | None:
        """Take in what was kept aside, and let live messages flow again, unless there is (another) hole: it is
        returned, and the intake goes on holding."""
        held = self._held or []
        self._keep(None)
        for position, each in enumerate(held):
            if each.sequence > self._log.head + 1:
                self._keep(held[position:])
                return Hole(self._log.head, each.sequence)
            if each.sequence == self._log.head + 1:
                self._append(*each)
        return None

    def _keep(self, held: list[_Live] | None) -> None:
        self._held = held
        self.held_bytes = sum([each.bytes for each in held or ()])
        self._letting_go = False

    @property
    def held(self) -> int:
        """How many messages are kept aside."""
        return len(self._held or ())

    def refuse_beyond(self, last: int, among: int) -> None:
        """Drop those of the first `among` messages kept aside whose sequence the stream's leader has not reached:
        they are forged. (Later ones came after the leader was asked.)"""
        genuine = []
        for position, each in enumerate(self._held or []):
            if each.sequence <= last or position >= among:
                genuine.append(each)
            else:
                self._drop("bad_sequence", each.subject)
        if self._held is not None:
            self._keep(genuine)

    # The live path

    def receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> Hole | None:
        """Take one message as the wire brought it. Returns the hole that it reveals, if any; then it is held."""
        block = -1 if headers is None else headers.rfind(b"Nats-Stream: ")
        if headers is None or block < 0 or headers[block + 13 : headers.find(b"\r\n", block)] != self._stream:
            self._drop("not_from_stream", subject)
            return None
        at = headers.find(b"\r\nNats-Sequence: ", block)
        digits = headers[at + 17 : headers.find(b"\r\n", at + 17)] if at > 0 else b""
        sequence = int(digits) if digits.isdigit() and len(digits) <= 20 else 0
        if not 0 < sequence <= LARGEST_SEQUENCE:
            self._drop("bad_sequence", subject)
            return None
        subject = subject[self._prefix :]
        root = subject[: subject.find(b".")]
        if root in self.received:
            self.received[root] += 1
        if self._held is not None:
            live = _Live(sequence, subject, payload, headers)
            self._letting_go = self._letting_go or self.held_bytes + live.bytes > HOLD_BYTES
            if not self._letting_go:
                self._held.append(live)
                self.held_bytes += live.bytes
            return None
        expected = self._log.head + 1
        if sequence == expected:
            self._append(sequence, subject, payload, headers)
            return None
        if sequence < expected:
            self.repeated += 1
            if _later(_stored_at(headers), self.stored_at):
                self.doubtful = True
                self._keep([])
            return None
        self._keep([_Live(sequence, subject, payload, headers)])
        return Hole(expected - 1, sequence)

    def _append(self, sequence: int, subject: bytes, payload: bytes, headers: bytes) -> None:
        self._newest, self._newest_at = headers, sequence
        if self.max_event_bytes and len(payload) > self.max_event_bytes:
            self._drop("too_large", subject)
            self._log.append(sequence, subject, None)
        else:
            self._log.append(sequence, subject, payload)

    def _drop(self, reason: DropReason, subject: bytes) -> None:
        self._log.count_drop(reason, subject.decode("utf-8", "replace"))

    @property
    def stored_at(self) -> str:
        """When the stream stored the message at the head, as the server wrote it (RFC 3339, UTC); empty if unknown, or
        if there is none at the head: it moves over what is not there, and where the log begins anew."""
        return _stored_at(self._newest) if self._newest_at == self._log.head else ""


def _stored_at(headers: bytes) -> str:
    begin = headers.rfind(_STAMP)
    if begin < 0:
        return ""
    return headers[begin + len(_STAMP) :].split(b"\r", 1)[0].decode("ascii", "replace")


def _later(one: str, other: str) -> bool:
    # Fractions of seconds come without zeros at their end, so that all but the Z compares as text.
    return bool(one and other) and one.removesuffix("Z") > other.removesuffix("Z")
