"""Replay: serves readers that the log alone cannot serve, from the stream.

They come because their cursor lies before the log's beginning, is of another life of the stream, or far back; or
because they asked for a time or a snapshot. All that wait are taken together: what the leader says of the stream is
asked once for all of them, equal questions are asked once, and where reading the whole range once costs less than a
filtered read for each feed, it is read once and handed out here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import NamedTuple, get_args

from gateway.core.closing import Closing
from gateway.core.control import GapReason
from gateway.core.errors import UpstreamAway, UpstreamError, UpstreamRefused
from gateway.core.hub import Hub
from gateway.core.reader import AHEAD, OTHER_LIFE, UNPLACED, Opening, Place, Reader
from gateway.core.stream import StreamState
from gateway.logs import Logger, Seldom
from gateway.upstream.answers import Answers
from gateway.upstream.past_events import PastEvents
from gateway.upstream.ranges import PAUSE_EVERY, Ranges, ReplayOutcome
from gateway.upstream.reads import Lagging, Stored, StreamReads

JOBS = 3
"""Groups of readers that are served at a time."""

RETRY_S = 0.5
"""How long readers wait when NATS did not answer."""

FEW = 64
"""Readers that have gone and are not looked for yet."""

REFUSALS = 20
"""How often what one reader asks may be refused before its connection is ended."""


class Missing(NamedTuple):
    """What is gone for a reader: everything from `cursor`, where it stands, up to `upto`, for this reason.

    It is no reader's cursor before it is told: one that stalls or fails until then is looked at anew, as it came.
    """

    reason: GapReason
    cursor: int
    upto: int


class Replay:
    """Serves READING readers.

    Concurrency: one task runs `run`, which has at most `JOBS` tasks of its own; `take` returns at once.

    Args:
        hub: whose readers they are.
        reads: the stream, on a connection of its own.
        usable: set while NATS and the stream can be used.
        snapshot_limit: the most subjects in a snapshot.
        max_event_bytes: larger payloads are not delivered; 0 means no limit.
        log: for faults.

    Attributes:
        past: makes events of what was read.
        outcomes: how readers were served from the stream.
    """

    def __init__(
        self,
        hub: Hub,
        reads: StreamReads,
        usable: asyncio.Event,
        *,
        snapshot_limit: int,
        max_event_bytes: int,
        log: Logger,
    ) -> None:
        self._hub = hub
        self._reads = reads
        self._usable = usable
        self.snapshot_limit = snapshot_limit
        self.past = PastEvents(hub.log, max_event_bytes)
        self._log = log
        self._seldom = Seldom(asyncio.get_running_loop().time)
        self._waiting: set[Reader] = set()
        self._busy: set[Reader] = set()
        self._asking: set[Reader] = set()
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(JOBS)
        self.outcomes: Counter[ReplayOutcome] = Counter(dict.fromkeys(get_args(ReplayOutcome), 0))
        self._ranges = Ranges(hub, reads, self.past, self.outcomes)

    def take(self, reader: Reader) -> None:
        """A reader has become READING."""
        # It is in one job at a time: one that stalled and came back is looked at when its job, or the service that is
        # asked for it, let it go. Until then it is not among those that wait: each that wakes us is to find few there.
        if reader not in self._busy and reader not in self._asking:
            self._waiting.add(reader)
            self._wake.set()
            if len(self._waiting) > 2 * len(self._hub.readers) + FEW:
                # While NATS is away nobody takes them out: those that went meanwhile are not to pile up.
                self._waiting = {each for each in self._waiting if each.place is Place.READING}

    async def run(self) -> None:
        """Serve readers until cancelled.

        Cancellation: ends the jobs; their readers stay READING.
        """
        async with asyncio.TaskGroup() as jobs:
            self._jobs = jobs
            while True:
                await self._wake.wait()
                await self._usable.wait()
                await self._slots.acquire()
                self._wake.clear()
                readers = [reader for reader in self._waiting if reader.place is Place.READING]
                self._waiting.clear()
                if readers:
                    self._busy.update(readers)
                    jobs.create_task(self._job(readers))
                else:
                    self._slots.release()

    async def _job(self, readers: list[Reader]) -> None:
        try:
            await self._serve(readers, self._hub.life)
        except UpstreamError as error:
            self._delayed(readers, error)
            await asyncio.sleep(RETRY_S)
        except Exception as error:  # a fault of ours: said loudly, and tried again
            self._log.error("replay_failed", exc_info=error)
            await asyncio.sleep(RETRY_S)
        finally:
            self._slots.release()
            self._busy.difference_update(readers)
            # Whoever was not brought to an end (NATS went, the stream began anew) is looked at again.
            self._take_again(readers)

    def _take_again(self, readers: list[Reader]) -> None:
        for reader in readers:
            if reader.place is Place.READING:
                self.take(reader)

    def _delayed(self, readers: list[Reader], error: UpstreamError) -> None:
        self.outcomes["retried"] += len(readers)
        held = self._seldom.due("replay")
        if held is not None:
            self._log.warning("replay_delayed", error=str(error), readers=len(readers), held_back=held)

    async def _serve(self, readers: list[Reader], life: int) -> None:
        hub = self._hub
        state = await self._reads.api.info()
        if state.incarnation != hub.log.incarnation:
            raise UpstreamAway("the stream began anew")  # the tap finds out by itself, and everybody is told
        answers = Answers(self._reads, state, snapshot_limit=self.snapshot_limit)
        reading: list[Reader] = []
        refused: UpstreamError | None = None
        for number, reader in enumerate(sorted(readers, key=lambda each: each.feed.name)):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(0)
            try:
                if await self._begin(reader, state, answers, life):
                    reading.append(reader)
            except (UpstreamRefused, Lagging) as error:
                # Only this reader's own question: nobody else is to wait for it.
                refused = error
                self._refused(reader)
            if life != hub.life:
                return
        await self._ranges.read(reading, life)
        if refused is not None:
            raise refused

    def _refused(self, reader: Reader) -> None:
        reader.refusals += 1
        if reader.refusals > REFUSALS:
            reader.sink.failed()

    async def _begin(self, reader: Reader, state: StreamState, answers: Answers, life: int) -> bool:
        """Find where a reader stands, tell it what is gone, show it a snapshot; whether it then has to read a range."""
        hub = self._hub
        cursor, missing = reader.cursor, None
        if reader.shown is None:
            cursor, missing = await self._locate(reader, state, answers)
        if life != hub.life or not hub.takes(reader):
            return False
        if missing is None:
            reader.cursor = cursor
        if reader.start.until_head and not reader.until:
            reader.until = state.last
        if reader.shown is not None or (reader.start.snapshot and (missing is not None or cursor == UNPLACED)):
            if reader.opening is None:
                await self._show(reader, missing, answers, life)
                await asyncio.sleep(0)
            else:
                # A service may take its time: in a task of its own, it holds up nobody else's.
                self._asking.add(reader)
                self._jobs.create_task(self._opened(reader, reader.opening, missing, life))
            return False
        if missing is not None:
            self._tell(reader, missing, missing.upto)
        if reader.place is Place.READING and reader.cursor >= hub.log.base:
            hub.brought(reader, reader.cursor)
        return reader.place is Place.READING

    async def _opened(self, reader: Reader, opening: Opening, missing: Missing | None, life: int) -> None:
        try:
            await self._open(reader, opening, missing, life)
        except UpstreamError as error:
            self._delayed([reader], error)
            await asyncio.sleep(RETRY_S)
        except Exception as error:  # a fault of ours: said loudly, and tried again
            self._log.error("replay_failed", exc_info=error)
            await asyncio.sleep(RETRY_S)
        finally:
            self._asking.discard(reader)
            self._take_again([reader])

    async def _open(self, reader: Reader, opening: Opening, missing: Missing | None, life: int) -> None:
        """Write what a service shows in place of a snapshot."""
        hub = self._hub
        initial = await opening.ask()
        if life != hub.life or not hub.takes(reader):
            return
        if isinstance(initial, Closing):
            reader.sink.end(initial)
            return
        if initial.incarnation != hub.log.incarnation:
            raise UpstreamAway("the stream began anew")
        if missing is not None:
            self._tell(reader, missing, initial.upto, snapshot=True)
            if reader.place is not Place.READING:
                return  # a connection that cannot go on with a gap has ended
        events = self.past.of([Stored(0, b"", payload, b"") for payload in initial.events])
        hub.show(reader, reader.dialect.snapshot(reader.feed, events) if events else b"", len(events))
        self.outcomes["snapshot"] += 1
        hub.shown(reader, initial.upto)

    async def _show(self, reader: Reader, missing: Missing | None, answers: Answers, life: int) -> None:
        """Write a snapshot, page by page, as long as the socket takes it; it goes on when the socket is free again."""
        hub = self._hub
        while True:
            after, upto = reader.shown or (0, 0)
            page = await answers.page(reader.feed, after, upto)
            if life != hub.life or not hub.takes(reader):
                return
            if page is None:  # more subjects than a snapshot may have
                reader.shown = None
                self._tell(reader, missing or Missing("too_far", reader.cursor, 0), hub.flushed)
                hub.brought(reader, reader.cursor)
                return
            if missing is not None:
                self._tell(reader, missing, page.upto, snapshot=True)
                missing = None
                if reader.place is not Place.READING:
                    return  # a connection that cannot go on with a gap has ended
            if reader.dialect not in page.encoded:
                events = self.past.of(page.messages)
                data = reader.dialect.snapshot(reader.feed, events) if events else b""
                page.encoded[reader.dialect] = (data, len(events))
            last = page.messages[-1].sequence if page.messages else after
            reader.shown = (last, page.upto)
            hub.show(reader, *page.encoded[reader.dialect])
            if page.ended:
                self.outcomes["snapshot"] += 1
                hub.shown(reader, page.upto)
                return

    def _tell(self, reader: Reader, missing: Missing, upto: int, *, snapshot: bool = False) -> None:
        self.outcomes["gap"] += 1
        reader.cursor = missing.cursor
        self._hub.gap(reader, missing.reason, upto, snapshot=snapshot)

    async def _locate(self, reader: Reader, state: StreamState, answers: Answers) -> tuple[int, Missing | None]:
        """Where a reader stands in the stream, and what is gone for it. UNPLACED: it asks for a snapshot only."""
        hub, start, cursor = self._hub, reader.start, reader.cursor
        first_time = cursor == UNPLACED
        if first_time:
            if start.cursor is not None:
                same = start.cursor.incarnation == state.incarnation
                cursor = start.cursor.sequence if same else OTHER_LIFE
            elif start.since is not None:
                cursor = await answers.position(start.since)
            elif start.snapshot:
                return UNPLACED, None
            else:
                cursor = state.last
        if cursor == OTHER_LIFE:
            return cursor, Missing("recreated", cursor, hub.flushed)
        if cursor == AHEAD or cursor > await answers.last_beyond(cursor, hub.flushed):
            return AHEAD, Missing("ahead", AHEAD, hub.flushed)
        kept = max(cursor, state.first - 1)
        limit = hub.replay_limit
        limited = first_time and limit and not start.until_head and hub.flushed - kept > limit
        if limited and await answers.more_than(limit, reader.feed, kept):
            return cursor, Missing("too_far", cursor, hub.flushed)
        return cursor, Missing("expired", cursor, kept) if kept > cursor else None
