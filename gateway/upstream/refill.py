"""Refill: reads from the stream into the log what the live path did not bring."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from gateway.core.event import OVERHEAD_BYTES
from gateway.core.hub import Hub
from gateway.core.intake import Intake
from gateway.core.stream import StreamState
from gateway.upstream.reads import StreamReads

FILL_EVENTS = 200_000
"""The most events that are read into the log to fill a hole. Behind more than that, the log begins anew further up, and
readers that stood before it read the stream, filtered."""

WARM_EVENTS = 60_000
"""The most events that are read to warm the log: the first clients wait for it, about a second for this many."""


class Refill:
    """Reads on from the log's head.

    Every method that asks the stream raises `UpstreamAway` or `UpstreamRefused` when it does not say.

    Args:
        reads: reads of the stream.
        hub: whose log it is.
        intake: takes what was read.
    """

    def __init__(self, reads: StreamReads, hub: Hub, intake: Intake) -> None:
        self._reads = reads
        self._hub = hub
        self._intake = intake

    async def upto(self, until: int) -> None:
        """Read from the stream what lies between the log's head and `until`."""
        log = self._hub.log
        async for part in self._reads.forward((">",), log.head, until, life=log.incarnation):
            if part.floor > log.head:
                self.begin_at(part.floor)  # purged while it was read
            for message in part.messages:
                self._intake.fill(*message, counted=self._hub.open)
            log.skip(part.upto)
            if self._hub.open:
                self._hub.flush()

    def begin_at(self, floor: int) -> None:
        """Begin the log anew further up: whoever stood before reads the stream, filtered, or gets a gap."""
        log = self._hub.log
        if self._hub.open:
            self._hub.flush()
        log.reset(log.incarnation, floor)
        if self._hub.open:
            self._hub.rebased()

    def most(self, state: StreamState) -> int:
        """How many events the log can hold, going by the stream's average, and no more than `FILL_EVENTS`."""
        average = OVERHEAD_BYTES + state.bytes // max(1, state.messages)
        return max(1, min(FILL_EVENTS, self._hub.log.limit_bytes // average))

    async def warm_from(self, state: StreamState, warm_s: float) -> int:
        """The position from which the log is warmed, so that it holds the last `warm_s` seconds."""
        if not warm_s or state.last < state.first:
            return state.last
        begin = datetime.now(UTC) - timedelta(seconds=warm_s)
        batch = await self._reads.since(begin.isoformat().replace("+00:00", "Z"), ">")
        if not batch.messages:
            return state.last
        most = min(WARM_EVENTS, self.most(state))
        return min(state.last, max(batch.messages[0].sequence - 1, state.last - most))
