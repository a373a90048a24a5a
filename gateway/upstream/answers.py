"""Answers: what the readers of one replay job ask about the stream, each question asked once."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from gateway.core.errors import UpstreamAway
from gateway.core.feed import Feed
from gateway.core.start import Since
from gateway.core.stream import StreamState
from gateway.upstream.reads import Stored, StreamReads, TooManySubjects


class Shown(NamedTuple):
    """A snapshot: the last message of every subject, and the position that it is true for."""

    messages: list[Stored]
    upto: int


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
        self._positions: dict[Since, int] = {}
        self._counts: dict[tuple[str, int], int] = {}
        self._snapshots: dict[str, Shown | None] = {}

    async def position(self, since: Since) -> int:
        """The position before the first message stored since then."""
        if since not in self._positions:
            if since.time is None and since.ago_s is None:
                self._positions[since] = self._state.first - 1
            else:
                batch = await self._reads.since(_time_of(since), ">")
                messages = batch.messages
                self._positions[since] = messages[0].sequence - 1 if messages else self._state.last
        return self._positions[since]

    async def count(self, feed: Feed, after: int) -> int:
        """How many messages a feed has behind a position. Filters that overlap count double: it is an upper bound."""
        key = (feed.name, after)
        if key not in self._counts:
            total = 0
            for each in feed.filters:
                total += (await self._reads.after(after, each.text, most=1)).matching
            self._counts[key] = total
        return self._counts[key]

    async def snapshot(self, feed: Feed) -> Shown | None:
        """The last message of each of a feed's subjects, ascending; None when there are more than the limit."""
        if feed.name not in self._snapshots:
            self._snapshots[feed.name] = await self._ask_snapshot(feed)
        return self._snapshots[feed.name]

    async def _ask_snapshot(self, feed: Feed) -> Shown | None:
        try:
            batch = await self._reads.last_values([each.text for each in feed.filters])
        except TooManySubjects:
            return None
        if not batch.messages:
            for each in feed.filters:
                if await self._reads.leader_has(0, each.text) is not None:
                    raise UpstreamAway("a replica lags behind its leader")
            return Shown([], self._state.last)
        if not batch.ended or len(batch.messages) > self._snapshot_limit:
            return None
        return Shown(sorted(batch.messages), batch.upto)


def _time_of(since: Since) -> str:
    if since.time is not None:
        return since.time
    try:
        begin = datetime.now(UTC) - timedelta(seconds=since.ago_s or 0)
    except OverflowError:
        begin = datetime(1970, 1, 1, tzinfo=UTC)
    return begin.isoformat().replace("+00:00", "Z")
