"""Fan-out: each new event, framed once per feed and dialect, written to every live reader as the same bytes."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

from gateway.core.dialect import Transport
from gateway.core.event import Event
from gateway.core.feed import Feed
from gateway.core.index import FilterTree
from gateway.core.log import Log
from gateway.core.reader import Reader


class Delivered:
    """Counts of one transport: events times readers, and their bytes."""

    __slots__ = ("bytes", "events")

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0

    def add(self, events: int, size: int) -> None:
        self.events += events
        self.bytes += size


class FanOut:
    """Writes to live readers. The hot path: per reader one call, and nothing else.

    Args:
        log: pays for the frames that are made.
        tree: knows which feeds want a subject.
        now: monotonic seconds.

    Attributes:
        delivered: counts by transport.
        running: whether it is writing at this moment: then no reader may leave the live set.
        failed: readers to whom it could not write, for a fault of ours.
        fault: the last one.
    """

    def __init__(self, log: Log, tree: FilterTree, now: Callable[[], float]) -> None:
        self._log = log
        self._tree = tree
        self._now = now
        self.delivered: dict[Transport, Delivered] = {each: Delivered() for each in get_args(Transport)}
        self.running = False
        self.failed: list[Reader] = []
        self.fault: Exception | None = None

    def write(self, events: list[Event]) -> bool:
        """Write events to the live readers that want them; whether any does.

        Of those who were to get the same bytes when a write failed nobody knows who has got them: all of them are
        `failed`. The others get theirs.
        """
        wanted: dict[Feed, list[Event]] = {}
        feeds_of = self._tree.feeds_of
        # All of them are checked, also what nobody wants: a producer's mistake is to show before somebody looks.
        for event in self._log.settle(events):
            for feed in feeds_of(event.topic):
                if feed.live:
                    wanted.setdefault(feed, []).append(event)
        if not wanted:
            return False
        now = self._now()
        self.running = True
        try:
            for feed, batch in wanted.items():
                for dialect, audience in feed.live.items():
                    readers = audience.readers
                    if readers:
                        try:
                            data = dialect.events(feed, batch)
                            for reader in readers:
                                reader.write(data)
                        except Exception as error:
                            self.fault = error
                            self.failed += readers
                            continue
                        audience.events += len(batch)
                        audience.bytes += len(data)
                        self.delivered[dialect.transport].add(len(batch) * len(readers), len(data) * len(readers))
                feed.delivered_at = now
                for event in batch:
                    self._log.charge(event)
        finally:
            self.running = False
        return True

    def end_failed(self, leave: Callable[[Reader], None]) -> Exception | None:
        """After a fault of ours, which is returned: those who may lack something are ended before they get what comes
        behind it. They know where they were, and come back there: never a silent hole.

        Args:
            leave: what stops serving a reader that cannot be told either.
        """
        fault, failed = self.fault, self.failed
        if fault is not None:
            self.fault, self.failed = None, []
            for reader in failed:
                try:
                    reader.sink.failed()
                except Exception as error:
                    fault = error
                    leave(reader)
        return fault
