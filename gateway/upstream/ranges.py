"""Ranges: what lies between readers and the beginning of the log, read from the stream and handed out to them."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Literal

from gateway.core.event import Event
from gateway.core.feed import Feed
from gateway.core.hub import Hub
from gateway.core.reader import Place, Reader
from gateway.core.subjects import widest
from gateway.upstream.past_events import PastEvents
from gateway.upstream.reads import Part, StreamReads

SCAN_US, REQUEST_US, TRANSFER_US = 0.15, 1000.0, 5.0
"""What a read costs, in microseconds: the server's scan per stream message, a filter's requests, a message taken."""

PARTS_A_TURN = 16
"""Parts of a range that are read before others have their turn."""

PAUSE_EVERY = 200
"""Readers that are written to before the loop gets to do something else."""

ReplayOutcome = Literal["done", "gap", "snapshot", "retried"]


class Ranges:
    """Reads for READING readers that stand somewhere in the stream.

    Args:
        hub: whose readers they are.
        reads: the stream, on a connection of its own.
        past: makes events of what was read.
        outcomes: counts how readers were served.
    """

    def __init__(self, hub: Hub, reads: StreamReads, past: PastEvents, outcomes: Counter[ReplayOutcome]) -> None:
        self._hub = hub
        self._reads = reads
        self._past = past
        self._outcomes = outcomes

    async def read(self, readers: list[Reader], life: int) -> None:
        """Read from the stream up to where the log begins, whichever way costs less."""
        by_feed: dict[Feed, list[Reader]] = {}
        for reader in readers:
            by_feed.setdefault(reader.feed, []).append(reader)
        if not by_feed:
            return
        base = self._hub.log.base
        whole = (base - min(reader.cursor for reader in readers)) * (SCAN_US + TRANSFER_US)
        filtered = sum(
            len(widest(feed.filters)) * (REQUEST_US + SCAN_US * (base - min(reader.cursor for reader in group)))
            for feed, group in by_feed.items()
        )
        if whole < filtered:
            await self._range((">",), readers, life)
        else:
            for feed, group in by_feed.items():
                if life != self._hub.life:
                    return
                await self._range(tuple(each.text for each in widest(feed.filters)), group, life)

    async def _range(self, patterns: tuple[str, ...], readers: list[Reader], life: int) -> None:
        hub = self._hub
        position = min(reader.cursor for reader in readers)
        parts = 0
        async for part in self._reads.forward(patterns, position, hub.log.base, life=hub.log.incarnation):
            if life != hub.life:
                return
            await self._hand_out(part, readers, position)
            # Whoever missed this part, since its socket was full, is no longer of this range, wherever it stands now.
            position = part.upto
            readers = [reader for reader in readers if reader.place is Place.READING and reader.cursor >= position]
            parts += 1
            if not readers or life != hub.life or parts == PARTS_A_TURN:
                return
        for reader in readers:
            self._outcomes["done"] += 1
            hub.brought(reader, reader.cursor)

    async def _hand_out(self, part: Part, readers: list[Reader], position: int) -> None:
        hub, life = self._hub, self._hub.life
        wanted: dict[Feed, list[Event]] = {}
        for event in self._past.of(part.messages):
            for feed in hub.feeds.tree.feeds_of(event.topic):
                wanted.setdefault(feed, []).append(event)
        encoded: dict[tuple[int, int, int], tuple[bytes, int]] = {}
        for number, reader in enumerate(readers):
            if number % PAUSE_EVERY == PAUSE_EVERY - 1:
                await asyncio.sleep(0)
                if life != hub.life:
                    return
            if not (position <= reader.cursor < part.upto and hub.takes(reader)):
                continue
            if reader.cursor < part.floor and not self._purged(reader, part.floor):
                continue
            key = (id(reader.feed), id(reader.dialect), reader.cursor)
            if key not in encoded:
                events = [event for event in wanted.get(reader.feed, ()) if event.seq > reader.cursor]
                encoded[key] = (reader.dialect.events(reader.feed, events) if events else b"", len(events))
            hub.give(reader, *encoded[key], part.upto)

    def _purged(self, reader: Reader, floor: int) -> bool:
        """What lies below `floor` was purged while it was read; whether the reader goes on from there at once."""
        hub = self._hub
        if reader.start.snapshot:
            return False  # it is looked at again: its gap brings a snapshot
        if reader.announced or reader.start.cursor is not None or reader.events:
            self._outcomes["gap"] += 1
            hub.gap(reader, "expired", floor)
        else:
            reader.cursor = floor  # it asked for what is kept, and was told nothing yet
        return reader.place is Place.READING
