"""The hub: moves every reader forward on the log. Live ones by fan-out, all others by reading from their cursor.

Nothing here waits. Fan-out runs once per loop turn and costs, per live reader, one write of bytes that are the same
for all. Reading forward is budgeted per turn, so that a storm of it never holds up live delivery.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import get_args

from gateway.core import control
from gateway.core.ahead import Ahead
from gateway.core.catch_up import CatchUp
from gateway.core.control import Control, GapReason
from gateway.core.fanout import FanOut
from gateway.core.feed import Audience, Feeds
from gateway.core.log import Log
from gateway.core.reader import UNPLACED, Place, Reader, unheard

FLUSH_EVENTS = 512
"""Events per fan-out write: bounds what one write hands to a socket."""

FLUSH_BYTES = 1024 * 1024
"""Bytes of events per fan-out."""


class Hub:
    """All readers of one stream.

    Args:
        log: the shared log.
        feeds: the registry of feeds.
        defer: has a callable called in the loop's next turn.
        now: monotonic seconds.
        uncovered: told of a reader that the log alone cannot serve; it is READING from then on, and whoever was told
            uses `takes`, `give`, `gap`, `show`, `shown` and `brought` on it.
        replay_limit: matching events that a client may replay when it connects; 0 means no limit.

    Attributes:
        open: whether the log is being fed; until then readers wait.
        flushed: everything up to this sequence was handed to the live readers.
        fan_out: writes to the live readers, and counts by transport.
        replayed: events read forward, by source (`log`, `stream`).
        resumed: readers that came with a cursor and were served from the log.
        gaps: gaps told, by reason.
        life: goes up with every `restarted`: what was read of an earlier life is worth nothing.
        on_flush: called after a fan-out that wrote something.
    """

    def __init__(
        self,
        log: Log,
        feeds: Feeds,
        *,
        defer: Callable[[Callable[[], None]], object],
        now: Callable[[], float],
        uncovered: Callable[[Reader], None],
        replay_limit: int = 0,
    ) -> None:
        self.log = log
        self.feeds = feeds
        self.replay_limit = replay_limit
        self.open = False
        self.flushed = 0
        self.fan_out = FanOut(log, feeds.tree, now)
        self.replayed = {"log": 0, "stream": 0}
        self.resumed = 0
        self.gaps: Counter[GapReason] = Counter(dict.fromkeys(get_args(GapReason), 0))
        self.life = 0
        self.on_flush: Callable[[], None] | None = None
        self.readers: set[Reader] = set()
        self._defer = defer
        self._uncovered = uncovered
        self._catch_up = CatchUp(log, self, defer)
        self._ahead = Ahead()
        self._flush_due = False
        self._stalled: list[Reader] = []

    @property
    def behind(self) -> int:
        """How many connections have a reader that is not at the head."""
        return len({id(reader.sink) for reader in self.readers if reader.place is not Place.LIVE})

    # The log's side

    def opened(self) -> None:
        """The log is fed from now on, from its head."""
        self.open = True
        self.flushed = self.log.head
        for reader in self.readers:
            if reader.place is Place.WAITING:
                self._put(reader)

    def closed(self) -> None:
        """The log is not fed any more. Readers that are left wait for `opened`, where they stand."""
        self.flush()
        self.open = False
        for reader in self.readers:
            self._settle(reader)
            reader.place = Place.WAITING
        self._catch_up.clear()
        self._ahead.clear()

    def advanced(self) -> None:
        """The log has grown. Everything that comes in this loop turn leaves in one write."""
        if not self._flush_due:
            self._flush_due = True
            self._defer(self.flush)

    def rebased(self) -> None:
        """The log was begun anew further up in the same life of the stream: everybody reads on from where it is."""
        for reader in self.readers:
            if reader.place is Place.LIVE:
                self._settle(reader)
                self._put(reader)
        self.flushed = self.log.head
        self._wake_ahead()

    def restarted(self, marker: int, *, above: int) -> None:
        """The log was begun anew: in another life of the stream (`OTHER_LIFE`), where no cursor means anything any
        more, or in an earlier state of the same one (`AHEAD`). Cursors higher than `above` become the marker."""
        self.life += 1
        for reader in self.readers:
            self._settle(reader)
            reader.until = 0
            if reader.cursor > above:
                reader.cursor = marker
            if reader.shown is not None:
                reader.shown = None
                reader.cursor = UNPLACED  # its snapshot begins anew
        self.flushed = self.log.head
        self._ahead.clear()
        for reader in self.readers:
            if reader.place in (Place.LIVE, Place.WAITING, Place.BEHIND):
                self._put(reader)

    # The connections' side

    def join(self, reader: Reader) -> None:
        """Begin to serve a reader, where its `start` says."""
        self.readers.add(reader)
        if self.open:
            self._put(reader)

    def leave(self, reader: Reader) -> None:
        """Stop serving a reader. Nothing is written to it afterwards."""
        if reader.place is Place.GONE:
            return
        self._settle(reader)
        reader.place = Place.GONE
        reader.write = unheard  # its socket refers to the connection, and that to the reader
        self.readers.discard(reader)
        self.feeds.release(reader.feed)

    def stall(self, reader: Reader) -> None:
        """The reader's socket is full: it falls behind, keeping its cursor."""
        if self.fan_out.running and reader.place is Place.LIVE:
            self._stalled.append(reader)  # after this flush: all of the flush is written to it
        elif reader.place in (Place.LIVE, Place.BEHIND):
            self._settle(reader)
            reader.place = Place.STALLED

    def resume(self, reader: Reader) -> None:
        """The reader's socket takes bytes again."""
        if reader.place is Place.STALLED:
            self._put(reader)

    def tell(self, reader: Reader, message: Control) -> None:
        """Write a control message to a reader."""
        data = reader.dialect.control(reader.feed, message, reader.sink.identity if message.name == "ready" else {})
        if data:
            reader.write(data)

    def checkpoint(self, reader: Reader) -> None:
        """Tell a live reader where it stands."""
        self.tell(reader, control.cursor(self.log.cursor(self.flushed)))

    # The side of whoever reads the stream

    def takes(self, reader: Reader) -> bool:
        """Whether a reader is still READING and its socket takes bytes. One with a full socket asks again later."""
        if reader.place is Place.READING and reader.sink.paused:
            reader.place = Place.STALLED
        return reader.place is Place.READING

    def give(self, reader: Reader, data: bytes, events: int, upto: int) -> None:
        """Write what was read for a READING reader; it stands at `upto` then."""
        reader.cursor = upto
        if data:
            self.wrote(reader, "stream", events, len(data))
            reader.write(data)

    def show(self, reader: Reader, data: bytes, events: int) -> None:
        """Write a part of a snapshot to a READING reader."""
        reader.snapshot += events
        if data:
            self._written(reader, events, len(data))
            reader.write(data)

    def shown(self, reader: Reader, upto: int) -> None:
        """The snapshot is whole: say so, and go on from what it is true for."""
        reader.shown = None
        self._announce(reader, upto)
        self.brought(reader, upto)

    def gap(self, reader: Reader, reason: GapReason, upto: int, *, snapshot: bool = False) -> None:
        """Tell a READING reader that everything from its cursor to `upto` is gone. `snapshot`: one follows."""
        begin = None
        if reason in ("expired", "too_far") and reader.cursor >= 0:
            begin = self.log.cursor(reader.cursor)
        reader.cursor = upto
        reader.gaps += 1
        reader.replayed_before += reader.replayed
        reader.replayed = reader.snapshot = 0
        self.gaps[reason] += 1
        self.tell(reader, control.gap(reason, begin, self.log.cursor(upto), moves=not snapshot))
        reader.sink.gapped(reader)

    def brought(self, reader: Reader, cursor: int) -> None:
        """A READING reader stands here now, and goes on by itself."""
        if reader.place is Place.READING:
            reader.cursor = cursor
            self._put(reader)

    # The side of those that catch up (see `Course`)

    def hand_on(self, reader: Reader) -> None:
        """The log alone cannot serve this reader."""
        reader.place = Place.READING
        self._uncovered(reader)

    def met_head(self, reader: Reader) -> bool:
        """A reader that catches up has read what it was to read: it goes live, or waits for its end; else False."""
        if reader.cursor < self.flushed:
            return False
        if self.flushed >= reader.until:
            self._go_live(reader)
        else:
            self._ahead.add(reader, reader.until)
        return True

    def wrote(self, reader: Reader, source: str, events: int, size: int) -> None:
        """Count events that a reader read forward, by where from."""
        reader.replayed += events
        self.replayed[source] += events
        self._written(reader, events, size)

    # How readers move

    def _settle(self, reader: Reader) -> None:
        """Take a reader out of the live set, with the cursor that it has reached."""
        if reader.place is Place.LIVE:
            reader.feed.live[reader.dialect].leave(reader)
            reader.cursor = self.flushed

    def _put(self, reader: Reader) -> None:
        if reader.cursor == UNPLACED:
            self._place_first(reader)
        if reader.cursor < 0 or reader.shown is not None:
            self.hand_on(reader)
        elif reader.cursor > self.flushed:
            self._ahead.add(reader, reader.cursor)  # another replica was faster: not a gap, only early
        elif reader.sink.paused:
            reader.place = Place.STALLED
        else:
            self._catch_up.add(reader)

    def _place_first(self, reader: Reader) -> None:
        """Serve from memory what memory can serve; everything else needs to know more of the stream."""
        start = reader.start
        if start.until_head:
            return  # the head is where the leader says it is, not where we are
        if start.cursor is None and start.since is None and not start.snapshot:
            reader.cursor = self.flushed
        elif start.cursor is not None and start.cursor.incarnation == self.log.incarnation:
            sequence = start.cursor.sequence
            near = not self.replay_limit or self.flushed - sequence <= self.replay_limit
            if self.log.base <= sequence <= self.flushed and near:
                reader.cursor = sequence
                self.resumed += 1

    def _go_live(self, reader: Reader) -> None:
        reader.place = Place.LIVE
        live = reader.feed.live
        audience = live.get(reader.dialect)
        if audience is None:
            audience = live[reader.dialect] = Audience()
        audience.join(reader)
        if not reader.announced:
            self._announce(reader, self.flushed)

    def _announce(self, reader: Reader, upto: int) -> None:
        reader.announced = True
        self.tell(reader, control.ready(self.log.cursor(upto), reader.replayed, reader.snapshot))
        if reader.start.until_head:
            reader.sink.reached_head(reader)

    def flush(self) -> None:
        """Fan out what the log has taken in since the last flush."""
        self._flush_due = False
        if not self.open or self.flushed >= self.log.head:
            return
        if self.log.base > self.flushed:
            self._overrun()
        wrote = False
        fault: Exception | None = None
        while self.flushed < self.log.head:
            events, upto = self.log.window(self.flushed, FLUSH_EVENTS, FLUSH_BYTES)
            try:
                wrote = self.fan_out.write(events) or wrote
            except Exception as error:  # who has got what is not known of anybody
                self.fan_out.fault = error
                self.fan_out.failed = [reader for reader in self.readers if reader.place is Place.LIVE]
            # Whatever happens, nobody is written the same twice.
            self.flushed = upto
            for reader in self._stalled:
                self.stall(reader)
            self._stalled.clear()
            fault = self.fan_out.end_failed(self.leave) or fault
        self.log.evict()
        self._wake_ahead()
        if wrote and self.on_flush is not None:
            self.on_flush()
        if fault is not None:
            raise fault

    def _wake_ahead(self) -> None:
        for reader in self._ahead.reached(self.flushed):
            self._put(reader)

    def _overrun(self) -> None:
        """More came in one turn than the log holds: the live readers have to read what it let go."""
        for reader in self.readers:
            if reader.place is Place.LIVE:
                self._settle(reader)
                self._put(reader)
        self.flushed = self.log.base

    def _written(self, reader: Reader, events: int, size: int) -> None:
        reader.events += events
        reader.bytes += size
        self.fan_out.delivered[reader.dialect.transport].add(events, size)
