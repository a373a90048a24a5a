"""Answers: what the readers of one replay job ask about the stream, each question asked once."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from itertools import combinations
from typing import NamedTuple

from gateway.core.dialect import Dialect
from gateway.core.feed import Feed
from gateway.core.start import EPOCH, Since
from gateway.core.stream import StreamState
from gateway.core.subjects import meet, widest
from gateway.upstream.reads import Lagging, Stored, StreamReads, TooManySubjects

ASKED_AGAIN, ASK_AGAIN_S = 3, 0.1
"""How often, and after how long, the leader is asked again before a cursor is held to be ahead of the stream."""

MOST_MEETING = 4
"""Of how many filters of a feed it is counted exactly how many messages they select together: that is a question for
each set of them that meets, eleven for four."""


class Page(NamedTuple):
    """A page of a snapshot: last messages of subjects, ascending.

    Attributes:
        messages: the page.
        upto: the position that the snapshot is true for.
        ended: whether it is the last page.
        encoded: what readers of a dialect are written, and how many events that is; made once for all of them.
    """

    messages: list[Stored]
    upto: int
    ended: bool
    encoded: dict[Dialect, tuple[bytes, int]]


class Answers:
    """Asks the stream, and remembers.

    Every method raises `UpstreamAway` or `UpstreamRefused` when the stream does not say.

    Args:
        reads: the stream.
        state: what its leader said when the job began.
        snapshot_limit: the most subjects in a snapshot.
    """

    def __init__(self, reads: StreamReads, state: StreamState, *, snapshot_limit: int) -> None:
        self._reads = reads
        self._state = state
        self._snapshot_limit = snapshot_limit
        self._last = state.last
        self._asked_again = 0
        self._positions: dict[Since, int] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._first_page: tuple[Feed, Page | None] | None = None

    async def position(self, since: Since) -> int:
        """The position before the first message stored since then."""
        if since not in self._positions:
            if since.time is None and since.ago_s is None:
                self._positions[since] = self._state.first - 1
            else:
                time = _time_of(since)
                batch = await self._reads.since(time.isoformat().replace("+00:00", "Z"), ">")
                if not batch.messages and self._state.last_time > time:
                    raise Lagging("a replica lags behind its leader, which has stored something since then")
                messages = batch.messages
                self._positions[since] = messages[0].sequence - 1 if messages else self._state.last
        return self._positions[since]

    async def last_beyond(self, cursor: int, reached: int) -> int:
        """The stream's last sequence. Where it is below a cursor the leader is asked again: a new one may lag."""
        while cursor > max(self._last, reached) and self._asked_again < ASKED_AGAIN:
            self._asked_again += 1
            await asyncio.sleep(ASK_AGAIN_S)
            self._last = max(self._last, (await self._reads.api.info()).last)
        return max(self._last, reached)

    async def more_than(self, limit: int, feed: Feed, after: int) -> bool:
        """Whether a feed has more messages than a limit behind a position. Where more than `MOST_MEETING` of its
        filters overlap, what several of them select is counted for each."""
        key = (feed.name, after)
        if key not in self._counts:
            patterns = [each.tokens for each in widest(feed.filters)]
            counts = [await self._count(each, after) for each in patterns]
            total = sum(counts)
            if max(counts) <= limit < total and len(patterns) <= MOST_MEETING:
                # Inclusion and exclusion: what two filters select was counted twice, what three do, three times less
                # three, and so on.
                for size in range(2, len(patterns) + 1):
                    for some in combinations(patterns, size):
                        total -= (-1) ** size * await self._count(_common(some), after)
            self._counts[key] = total
        return self._counts[key] > limit

    async def _count(self, pattern: tuple[str, ...] | None, after: int) -> int:
        return 0 if pattern is None else (await self._reads.after(after, ".".join(pattern), most=1)).matching

    async def page(self, feed: Feed, after: int, upto: int) -> Page | None:
        """A page of the last messages of a feed's subjects; None when there are more subjects than the limit.

        Readers are served feed by feed, so only the first page of one feed is remembered.
        """
        if after:
            return await self._ask_page(feed, after, upto)
        if self._first_page is None or self._first_page[0] is not feed:
            self._first_page = (feed, await self._ask_page(feed, 0, 0))
        return self._first_page[1]

    async def _ask_page(self, feed: Feed, after: int, upto: int) -> Page | None:
        patterns = [each.text for each in feed.filters]
        try:
            batch = await self._reads.last_values(patterns, after=after, upto=upto)
        except TooManySubjects:
            return None
        if not after and batch.matching > self._snapshot_limit:
            return None
        if batch.ended and (after or not batch.messages):
            # A page may come from a replica that has not got as far as the one before. What it lacks lies at the end.
            last = batch.messages[-1].sequence if batch.messages else after
            for each in patterns:
                following = await self._reads.leader_has(last, each)
                if following is not None and (not after or following <= upto):
                    raise Lagging("a replica lags behind its leader within a snapshot")
        return Page(batch.messages, upto or batch.upto or self._state.last, batch.ended, {})


def _common(patterns: Iterable[tuple[str, ...]]) -> tuple[str, ...] | None:
    found: tuple[str, ...] | None = (">",)
    for each in patterns:
        found = None if found is None else meet(found, each)
    return found


def _time_of(since: Since) -> datetime:
    if since.time is not None:
        return datetime.fromisoformat(since.time)
    try:
        return max(EPOCH, datetime.now(UTC) - timedelta(seconds=since.ago_s or 0))
    except OverflowError:
        return EPOCH
