"""The tap: feeds the log while anybody reads, and finds out whether NATS and the stream are usable.

It is one subscription to everything that the stream republishes. The first reader opens it; it closes some seconds
after the last one left. Opening it takes a request on the same connection: its answer proves that the subscription
is in place at our server, and says where the stream stands.

Silence is not health: NATS's live path may drop messages without any disconnect. Three guards together find what is
missing: the next sequence is not the last one + 1; every reconnect; the leader's last sequence, asked every few
seconds. Each leads to the same mend: hold, read the range from the stream, go on in order.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable

from gateway.core.errors import UpstreamError
from gateway.core.hub import Hub
from gateway.core.intake import FOUND_BY, FoundBy, Hole, Intake
from gateway.core.reader import AHEAD, OTHER_LIFE
from gateway.core.stream import StreamShape, StreamState
from gateway.logs import Logger, Seldom
from gateway.upstream.api import StreamApi
from gateway.upstream.availability import Availability
from gateway.upstream.connection import NatsConnection, Subscribed
from gateway.upstream.reads import StreamReads
from gateway.upstream.refill import Refill

UNUSABLE_CHECK_S = 1.0
"""How often a stream that is not usable is looked at again."""

WATCH_S = 5.0
"""How often the leader is asked for the stream's last sequence while the tap is open."""

GRACE_S = 0.3
"""What a live message may take behind the leader's word that it exists."""

ASKED_AGAIN = 4
"""How often the leader is asked before its word is taken against a live message or the log: a new leader may lag."""


class Tap:
    """The one subscription, and its life.

    Concurrency: one task runs `run`; all other methods are called from the loop and return at once.

    Args:
        nats: the connection of live messages.
        api: the stream's API on the same connection.
        reads: reads of the stream, on another connection.
        hub: whose readers decide whether the tap is open.
        intake: where messages go.
        availability: what it finds out about NATS and the stream.
        linger_s: how long it stays open after the last reader left.
        warm_s: how much of the stream is read into the log when it opens.
        log: for lines about NATS and the stream.

    Attributes:
        repaired: holes that were filled, by what found them.
    """

    def __init__(
        self,
        nats: NatsConnection,
        api: StreamApi[StreamShape],
        reads: StreamReads,
        hub: Hub,
        intake: Intake,
        availability: Availability,
        *,
        may_open: Callable[[], bool],
        linger_s: float,
        warm_s: float,
        log: Logger,
    ) -> None:
        self._nats = nats
        self._api = api
        self._reads = reads
        self._hub = hub
        self._intake = intake
        self._availability = availability
        self._may_open = may_open
        self._refill = Refill(reads, hub, intake)
        self.linger_s = linger_s
        self.warm_s = warm_s
        self._log = log
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._seldom = Seldom(self._now)
        self._wake = asyncio.Event()
        self._open: Subscribed | None = None
        self._close_at: float | None = None
        self._found_by: FoundBy = "sequence"
        self._watched_at = 0.0
        self._repeated = 0
        self._examined = 0
        self.repaired: Counter[FoundBy] = Counter(dict.fromkeys(FOUND_BY, 0))

    # What happens to it

    def nats_changed(self, up: bool) -> None:
        """The NATS connection came or went."""
        self._availability.nats_changed(up)
        self._wake.set()

    def wake(self) -> None:
        """Something changed that it may have waited for."""
        self._wake.set()

    def readers_changed(self) -> None:
        """A reader came or left: the tap may have to open, or to close after a while."""
        if self._hub.readers:
            self._close_at = None
            if self._open is None:
                self._wake.set()
        elif self._open is not None and self._close_at is None:
            self._close_at = self._now() + self.linger_s
            self._wake.set()

    def _receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> None:
        hole = self._intake.receive(subject, headers, payload)
        if hole is not None:
            self._found("sequence", hole)
            self._wake.set()
        elif self._intake.repeated != self._repeated:
            # The usual echo of a filled hole, or a stream that began anew: the leader knows.
            self._repeated = self._intake.repeated
            self._watched_at = min(self._watched_at, self._now() - WATCH_S + GRACE_S)
            self._wake.set()
        self._hub.advanced()

    # What it does

    async def run(self) -> None:
        """Do what has to be done, until cancelled.

        Cancellation: leaves the subscription to the connection, which is closed next.
        """
        while True:
            try:
                async with asyncio.timeout(self._next_step_s()):
                    await self._wake.wait()
            except TimeoutError:
                pass  # the time itself is the reason to look
            self._wake.clear()
            if not self._nats.connected or not (self._availability.usable.is_set() or self._reads.connected):
                continue  # whichever connection comes up wakes us
            try:
                await self._step()
            except UpstreamError as error:
                self._availability.failed(error)
            except Exception as error:  # a fault of ours: said loudly, and tried again a second later
                self._log.error("tap_failed", exc_info=error)
                self._availability.unusable([f"a fault in natsgate: {type(error).__name__}; see the log"])

    def _next_step_s(self) -> float | None:
        if not self._nats.connected:
            return None
        if not self._availability.usable.is_set():
            return UNUSABLE_CHECK_S
        due = [at for at in (self._close_at, self._watched_at + WATCH_S if self._open else None) if at is not None]
        return max(0.0, min(due) - self._now()) if due else None

    async def _step(self) -> None:
        if not self._availability.usable.is_set():
            state = await self._api.info()
            self._availability.examine(state)
            if self._availability.usable.is_set() and self._open is not None:
                self._intake.hold()
                if not await self._went_back(state):
                    await self._mend(Hole(self._hub.log.head, state.last + 1), "reconnect")
        if not self._availability.usable.is_set():
            return
        if self._open is None:
            if self._hub.readers and self._may_open():
                await self._start()
        elif self._close_at is not None and self._now() >= self._close_at:
            await self._stop()
        elif self._intake.holding:
            await self._mend(None, self._found_by)
        elif self._now() >= self._watched_at + WATCH_S:
            await self._watch()

    async def _start(self) -> None:
        self._intake.forget()
        subscribed = await self._nats.tap(f"{self._api.shape.live_prefix}.>", self._receive)
        try:
            state = await self._api.info()
            self._hub.log.reset(state.incarnation, await self._refill.warm_from(state, self.warm_s))
            await self._refill.upto(state.last)
        except BaseException:
            await self._nats.untap(subscribed)
            raise
        self._open = subscribed
        self._watched_at = self._now()
        self._hub.opened()
        self._log.debug("tap_opened", base=self._hub.log.base, head=self._hub.log.head)
        self.readers_changed()
        await self._release("sequence")

    async def _stop(self) -> None:
        subscribed, self._open, self._close_at = self._open, None, None
        self._hub.closed()
        self._hub.log.reset("", 0)
        self._intake.forget()
        if subscribed is not None:
            await self._nats.untap(subscribed)
        self._log.debug("tap_closed")

    async def _watch(self) -> None:
        self._watched_at = self._now()
        head, repeated = self._hub.log.head, self._intake.repeated
        state = await self._api.info()
        if state.incarnation != self._hub.log.incarnation:
            await self._born_again(state)
            return
        if state.last < head or repeated != self._examined:
            self._examined = repeated
            if await self._went_back(state):
                return
        if state.last > self._hub.log.head:
            await asyncio.sleep(GRACE_S)  # the messages may be on their way; nothing else tells that they are not
            if state.last > self._hub.log.head and not self._intake.holding:
                self._intake.hold()
                await self._mend(Hole(self._hub.log.head, state.last + 1), "tail")

    async def _went_back(self, state: StreamState) -> bool:
        """Whether the stream, in the same life, has not got as far as the log: it was put back to an earlier state.
        Then the log begins anew, and everybody who stood further gets a gap."""
        log = self._hub.log
        if state.incarnation != log.incarnation:
            return False  # another life, not an earlier state of this one
        forked = state.last >= log.head and await self._forked()
        if not forked:
            for _ in range(ASKED_AGAIN):
                if state.last >= log.head or state.incarnation != log.incarnation:
                    return False
                await asyncio.sleep(GRACE_S)  # a new leader may need a moment
                state = await self._api.info()
            if state.last >= log.head or state.incarnation != log.incarnation:
                return False
        self._log.warning("stream_went_back", head=log.head, last=state.last)
        self._intake.forget()
        self._hub.flush()
        log.reset(state.incarnation, state.last)
        self._hub.restarted(AHEAD, above=-1 if forked else state.last)
        await self._release("sequence")
        return True

    async def _is_another(self) -> bool:
        """Whether the stream is not the one that the log is of, by its leader; then the log has begun anew."""
        state = await self._api.info()
        self._intake.doubtful = False
        if state.incarnation != self._hub.log.incarnation:
            await self._born_again(state)
            return True
        return await self._went_back(state)

    async def _forked(self) -> bool:
        """Whether the stream has another message than we have where the log ends: it was put back, and has grown past
        that since."""
        head, stored_at = self._hub.log.head, self._intake.stored_at
        if not stored_at or self._hub.log.incarnation == "":
            return False
        theirs = await self._reads.leader_time(head)
        return theirs is not None and theirs != stored_at and head == self._hub.log.head

    async def _born_again(self, state: StreamState) -> None:
        self._log.warning("stream_recreated", was=self._hub.log.incarnation, now=state.incarnation, last=state.last)
        self._intake.forget()
        self._hub.log.reset(state.incarnation, state.last)
        self._hub.restarted(OTHER_LIFE, above=-1)
        await self._release("sequence")

    # Mending

    def _found(self, found_by: FoundBy, hole: Hole) -> None:
        self._found_by = found_by
        held = self._seldom.due("hole")
        if held is not None:
            self._log.warning("hole", found_by=found_by, after=hole.after, before=hole.before, held_back=held)

    async def _release(self, found_by: FoundBy) -> None:
        """Let live messages flow, mending what they show to be missing."""
        hole = self._intake.release()
        self._hub.advanced()
        if hole is not None:
            await self._mend(hole, found_by)

    async def _mend(self, hole: Hole | None, found_by: FoundBy) -> None:
        """Fill holes until live messages flow again. The intake holds."""
        while True:
            if hole is None:
                if self._intake.doubtful and await self._is_another():
                    return
                hole = self._intake.release()
                self._hub.advanced()
                if hole is None:
                    return
            state, held = await self._leader_beyond(hole)
            log = self._hub.log
            if state.incarnation != log.incarnation:
                await self._born_again(state)
                return
            self._intake.refuse_beyond(state.last, held)
            until = min(hole.before - 1, state.last)
            if log.head < until:
                floor = max(state.first - 1, until - self._refill.most(state))
                if floor > log.head:
                    self._refill.begin_at(floor)  # gone, or too much to read for everybody
                await self._refill.upto(until)
                self.repaired[found_by] += 1
                self._log.info("hole_repaired", found_by=found_by, after=hole.after, upto=until)
            hole = None

    async def _leader_beyond(self, hole: Hole) -> tuple[StreamState, int]:
        """The leader's state, once it has reached the message that showed the hole; a new leader may need a moment
        for what an old one published. If it does not get there, the message was forged. And how many messages were
        held when the leader was asked: what came later it may not know of."""
        for _ in range(ASKED_AGAIN):
            held = self._intake.held
            state = await self._api.info()
            if state.last >= hole.before or (state.last == hole.before - 1 and not held):
                break
            if state.incarnation != self._hub.log.incarnation:
                break
            await asyncio.sleep(GRACE_S / 3)
        return state, held
