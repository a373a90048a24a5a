"""The log: the newest events of the whole stream, contiguous by sequence, bounded in bytes.

It serves everybody who stands somewhere and moves forward: live readers, readers that fell behind, readers that came
back with a cursor. Positions are stream sequences. Everything in (base, head] can be read from here; what lies at or
below `base` is only in the stream.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple, get_args

from gateway.core.envelope import DropReason
from gateway.core.event import Event
from gateway.core.feed import Feed
from gateway.core.index import FilterTree, Run, SubjectIndex

SCAN_EVENTS = 2048
"""How many events one read looks at: what keeps a read of a long log from holding up the loop."""

SELECT_TOPICS = 512
"""How many places of the subject index one read visits before it scans instead."""


class Slice(NamedTuple):
    """What one read brought.

    Attributes:
        events: what the feed wants, ascending.
        upto: everything up to this sequence has been looked at; read on from here.
        looked_at: how many events it took.
    """

    events: list[Event]
    upto: int
    looked_at: int


class Log:
    """A bounded window on the end of the stream.

    Args:
        limit_bytes: the most it may hold, frames and objects included; the newest event always stays.
        tree: the filters of all feeds.

    Attributes:
        incarnation: the life of the stream that the sequences belong to; empty before `reset`.
        prefix: what stands before the sequence in its cursors.
        base, head: see the module.
        bytes: what it holds.
        dropped: messages that nobody gets, by reason.
        on_drop: told of each: the reason and the subject.
        on_fault: told of an exception in checking an event, which is dropped then.
    """

    def __init__(self, limit_bytes: int, tree: FilterTree) -> None:
        self.limit_bytes = limit_bytes
        self.tree = tree
        self.incarnation = ""
        self.dropped: Counter[DropReason] = Counter(dict.fromkeys(get_args(DropReason), 0))
        self.on_drop: Callable[[str, str], None] | None = None
        self.on_fault: Callable[[Exception, Event], None] = _raised
        self.prefix = b""
        self.reset("", 0)

    def __len__(self) -> int:
        return len(self._run)

    def reset(self, incarnation: str, base: int) -> None:
        """Begin anew, empty, at a position of this life of the stream."""
        self.incarnation = incarnation
        self.prefix = incarnation.encode("ascii") + b"-"
        self.base = base
        self.head = base
        self.bytes = 0
        self._run = Run()
        self._index = SubjectIndex()

    def cursor(self, sequence: int) -> bytes:
        """The cursor of a position in this life of the stream."""
        return b"%b%d" % (self.prefix, sequence)

    def append(self, sequence: int, subject: bytes, payload: bytes | None) -> Event:
        """Take the next event. `payload` None: it is not to be delivered, but its place is kept.

        Raises:
            ValueError: the sequence is not above the head. (What lies between must be known to be empty: the
                caller has seen to that.)
        """
        if sequence <= self.head:
            raise ValueError(f"sequence {sequence} is not above the head {self.head}")
        topic = self._index.topic(subject)
        if topic.run.empty:
            self.bytes += topic.cost
        event = Event(sequence, topic, payload or b"", self.prefix)
        if payload is None:
            event.drop()
        topic.run.append(event)
        self._run.append(event)
        self.head = sequence
        self.charge(event)
        if self.bytes > self.limit_bytes:
            self.evict()
        return event

    def skip(self, upto: int) -> None:
        """Move the head over sequences that hold nothing."""
        self.head = max(self.head, upto)

    def evict(self) -> None:
        """Let the oldest go until the limit holds again. The newest stays, whatever its size."""
        while self.bytes > self.limit_bytes and len(self._run) > 1:
            event = self._run.popleft()
            topic = event.topic
            topic.run.popleft()
            self.base = event.seq
            self.bytes -= event.paid
            event.paid = -1
            if topic.run.empty:
                self.bytes -= topic.cost
                self._index.prune(topic)

    def charge(self, event: Event) -> None:
        """Account for what the event costs now: its frames are made when the first reader needs them."""
        if event.paid >= 0:
            self.bytes += event.cost - event.paid
            event.paid = event.cost

    def check(self, event: Event) -> DropReason | None:
        """Check an event. A fault of ours in that drops it: it would stop whatever comes behind, again and again."""
        try:
            return event.checked()
        except Exception as error:
            event.drop()
            self.on_fault(error, event)
            return "fault"

    def settle(self, events: list[Event]) -> list[Event]:
        """Those of these events that are good; the bad ones are counted, once."""
        good = []
        for event in events:
            reason = self.check(event)
            if reason is not None:
                self.charge(event)
                self.count_drop(reason, event.topic.subject)
            if event.good:
                good.append(event)
        return good

    def count_drop(self, reason: DropReason, subject: str) -> None:
        """Count a message that nobody gets."""
        self.dropped[reason] += 1
        if self.on_drop is not None:
            self.on_drop(reason, subject)

    def window(self, after: int, most: int, limit_bytes: int) -> tuple[list[Event], int]:
        """Events of all subjects behind a position: at most `most`, and so many bytes (or one); and where they end."""
        events = self._run.after(after, most)
        taken = 0
        for position, event in enumerate(events):
            taken += len(event.data)
            if taken > limit_bytes and position:
                return events[:position], events[position - 1].seq
        return events, events[-1].seq if len(events) == most else self.head

    def read(self, feed: Feed, after: int, limit_bytes: int) -> Slice:
        """The next events that a feed wants behind a position that is not below `base`.

        It costs what matches, or a bounded scan, whichever is less. `upto` is the head when nothing is left.
        """
        behind = self._run.count_after(after)
        if behind > SCAN_EVENTS:
            selected = self._select(feed, after)
            if selected is not None:
                return self._within(selected, self.head, limit_bytes, len(selected))
        scanned = self._run.after(after, SCAN_EVENTS)
        wanted = [event for event in scanned if feed in self.tree.feeds_of(event.topic)]
        upto = self.head if behind <= SCAN_EVENTS else scanned[-1].seq
        return self._within(wanted, upto, limit_bytes, len(scanned))

    def _select(self, feed: Feed, after: int) -> list[Event] | None:
        runs: dict[int, Run] = {}
        for each in feed.filters:
            topics = self._index.select(each.tokens, SELECT_TOPICS)
            if topics is None:
                return None
            runs.update((id(topic), topic.run) for topic in topics)
        if sum(run.count_after(after) for run in runs.values()) > SCAN_EVENTS:
            return None
        found = [event for run in runs.values() for event in run.after(after, SCAN_EVENTS)]
        found.sort(key=lambda event: event.seq)
        return found

    def _within(self, events: list[Event], upto: int, limit_bytes: int, looked_at: int) -> Slice:
        taken = 0
        for position, event in enumerate(events):
            taken += len(event.data)
            if taken > limit_bytes and position:
                return Slice(self.settle(events[:position]), events[position - 1].seq, looked_at)
        return Slice(self.settle(events), upto, looked_at)

    @property
    def topics(self) -> int:
        """How many distinct subjects it holds."""
        return len(self._index)


def _raised(error: Exception, event: Event) -> None:
    raise error
