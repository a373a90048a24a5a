"""Revocations: keeps the table of revoked users true to its KV bucket, without a consumer.

A plain subscription to the bucket's subjects brings what is written now. Reading brings the rest: whole at the start
and at every (re)connect, and every few seconds the leader is asked whether something is new, since silence is not
health. What came live and was not found by reading was never stored, and ends after a while.

Entries go without a message, too: they expire, or are purged. Then the stream has fewer subjects than were read, and
the bucket is read whole again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from random import Random

from gateway.core.bucket import BUCKET_SHAPE, SUBJECTS, BucketShape
from gateway.core.errors import UpstreamAway, UpstreamError, UpstreamRefused
from gateway.core.ledger import Content, Ledger
from gateway.core.revoked import PREFIX, Entry, Revoked, read_entry, split_headers
from gateway.core.schedule import backoff
from gateway.core.stream import NO_SUCH_STREAM, Shape, StreamState
from gateway.core.violation import Lacking
from gateway.logs import Logger, Seldom
from gateway.upstream.api import StreamApi
from gateway.upstream.connection import NatsConnection, Subscribed
from gateway.upstream.reads import StreamReads

WATCH_S = 5.0
"""How often the leader is asked for news; also how often a bucket that is not there is looked for."""

LIVE_S = 0.3
"""How long after a live message the leader is asked: storing it takes a moment."""

SETTLE_S = 10.0
"""How long what came live counts without being found in the bucket."""

DOUBT_S = 0.3
ASKED_AGAIN = 4
"""How often the leader is asked before its word is taken that entries we have read are not there: a new leader may lag
behind the old one."""

PASSES = 5
"""How often a reading goes on to what was stored meanwhile before it takes a breath."""

RETRY_FIRST_S, RETRY_MOST_S = 1.0, 30.0

_AWAY = "revocations are not noticed: NATS is not connected"

_NEEDED = (
    ("subscribe", SUBJECTS),
    ("publish", f"$JS.API.STREAM.INFO.{BUCKET_SHAPE.name}"),
    ("publish", f"$JS.API.STREAM.MSG.GET.{BUCKET_SHAPE.name}"),
    ("publish", f"$JS.API.DIRECT.GET.{BUCKET_SHAPE.name}"),
)
"""What the login has to be allowed."""


class Revocations:
    """Follows the bucket.

    Concurrency: one task runs `run`; all other methods are called from the loop and return at once.

    Args:
        nats: the connection of live messages.
        nats_reads: the connection of reads.
        inbox: a subject prefix that only this process listens on, and nothing else in it.
        table: what is kept true.
        random: for the waits between attempts.
        log: for lines about the bucket.
        on_loaded: called once, as soon as the table is true for the first time.
        shape: what the bucket is to be.

    Attributes:
        loaded: whether the bucket was read once, or there was none.
        reasons: why the table may not be true now, or not stay bounded; each with its mend.
        ledger: what is known of the bucket.
    """

    def __init__(
        self,
        nats: NatsConnection,
        nats_reads: NatsConnection,
        inbox: str,
        table: Revoked,
        *,
        random: Random,
        log: Logger,
        on_loaded: Callable[[], None],
        shape: BucketShape = BUCKET_SHAPE,
    ) -> None:
        self._on_loaded = on_loaded
        self._nats = nats
        self._nats_reads = nats_reads
        self._api: StreamApi[BucketShape] = StreamApi(nats, shape)
        self._reads = StreamReads(nats_reads, StreamApi(nats_reads, shape), inbox)
        self._random = random
        self._log = log
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._seldom = Seldom(self._now, interval_s=60.0)
        self._wake = asyncio.Event()
        self._live: Subscribed | None = None
        self._look_at = 0.0
        self._waits: Iterator[float] | None = None
        self._life = ""
        self._position = 0
        self._messages = 0
        self._whole = True
        self._doubts = 0
        self._problems: list[str] = []
        self._lacking = Lacking(_NEEDED)
        self.ledger = Ledger(table)
        self.loaded = False
        self.reasons = [_AWAY]

    # What happens to it

    def nats_changed(self, up: bool) -> None:
        """One of the two NATS connections came or went."""
        if up:
            self._waits = None
            self._whole = True
            self._look_at = self._now()
        else:
            self._lacking.forget()
            self.reasons = [_AWAY]
        self._wake.set()

    def nats_trouble(self, event: str, fields: dict[str, object]) -> None:
        """Something went wrong on one of them; a refused permission explains why reading fails."""
        self._lacking.hear(str(fields.get("error", "")))

    def _receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> None:
        if self._waits is None and self._look_at > self._now() + LIVE_S:
            self._look_at = self._now() + LIVE_S
            self._wake.set()
        entry = read_entry(subject, headers or b"", payload, written_at=time.time())
        if entry.sub is None or not entry.readable:
            self._strange(subject, entry)
        self.ledger.hear(entry, at=self._now())

    # What it does

    async def run(self) -> None:
        """Follow the bucket until cancelled.

        Cancellation: leaves the subscription to the connection, which is closed next.
        """
        while True:
            connected = self._nats.connected and self._nats_reads.connected
            try:
                async with asyncio.timeout_at(self._look_at if connected else None):
                    await self._wake.wait()
            except TimeoutError:
                pass  # the time itself is the reason to look
            self._wake.clear()
            connected = self._nats.connected and self._nats_reads.connected
            if not connected or self._now() < self._look_at:
                continue
            self._look_at = self._now() + WATCH_S
            try:
                await self._look()
            except UpstreamError as error:
                self._failed(self._explained(error))
            except Exception as error:  # a fault of ours: said loudly, and tried again
                self._log.error("revocations_failed", exc_info=error)
                self._failed(f"a fault in natsgate: {type(error).__name__}; see the log")

    async def _look(self) -> None:
        began = self._now()
        if self._live is None:
            self._live = await self._nats.tap(SUBJECTS, self._receive)
        # Asked on the connection of live messages: the answer proves that the subscription is in place.
        try:
            state = await self._api.info()
        except UpstreamRefused as error:
            if error.code != NO_SUCH_STREAM:
                raise
            if not self._doubted(self.ledger.subjects > 0):
                self._absent()
        else:
            self._problems = self._api.shape.problems(state.config)
            if not self._doubted(state.incarnation == self._life and state.last < self._position):
                await self._read(state)
                self._done()
        self.ledger.settle(began - SETTLE_S)

    def _doubted(self, surprising: bool) -> bool:
        """Whether the leader says what takes entries back, and is to be asked again."""
        self._doubts = self._doubts + 1 if surprising else 0
        if not 0 < self._doubts < ASKED_AGAIN:
            return False
        self._look_at = self._now() + DOUBT_S
        return True

    # Reading

    async def _read(self, state: StreamState) -> None:
        """Read what the leader has and we have not."""
        if self._whole or state.incarnation != self._life or state.last < self._position:
            await self._read_whole(state)
            return
        content, position, state = await self._on(self._position, state)
        self.ledger.add(content)
        gone = position == self._position and state.messages != self._messages
        if position == state.last and (gone or state.subjects != self.ledger.subjects):
            await self._read_whole(state)  # something went that no message told of
            return
        self._position, self._messages = position, state.messages
        if content:
            self._log.debug("revocations_read", subjects=len(content), last=position)

    async def _read_whole(self, state: StreamState) -> None:
        self._whole = False  # a reconnect from now on asks for another one
        try:
            content, position, state = await self._on(state.first - 1, state)
        except BaseException:
            self._whole = True
            raise
        ended = position == state.last
        if ended:
            self.ledger.replace(content)
        else:
            self.ledger.add(content)  # what was written again meanwhile may be lacking, so nothing is taken back yet
            self._look_at = self._now() + LIVE_S
        if not ended or len(content) != state.subjects:
            self._whole = True  # fewer than were read: some went in between, and which ones is not known
        self._life, self._position, self._messages = state.incarnation, position, state.messages
        self._log.info("revocations_read", subjects=len(content), last=position, whole=True)

    async def _on(self, position: int, state: StreamState) -> tuple[Content, int, StreamState]:
        return await read_on(self._api, self._reads, position, state, self._strange)

    def _strange(self, subject: bytes, entry: Entry) -> None:
        event = "revocation_key_unknown" if entry.sub is None else "revocation_time_unreadable"
        held = self._seldom.due(event)
        if held is not None:
            key = subject[len(PREFIX) :][:200].decode("utf-8", "replace")
            self._log.warning(event, key=key, held_back=held)

    # Outcome

    def _absent(self) -> None:
        """There is no bucket: nobody is revoked."""
        if self._life or not self.loaded:
            self._log.info("revocations_no_bucket", stream=BUCKET_SHAPE.name)
        self._life, self._position, self._whole = "", 0, True
        self.ledger.replace(Content())
        self._problems = []
        self._done()

    def _done(self) -> None:
        if not self.loaded:
            self.loaded = True
            self._on_loaded()
        self._waits = None
        self._say(self._problems + [f"revocations come some seconds late: {each}" for each in self._lacking.reasons()])

    def _failed(self, reason: str) -> None:
        if self._waits is None:
            self._waits = backoff(self._random, RETRY_FIRST_S, RETRY_MOST_S)
        self._look_at = self._now() + next(self._waits)
        if self._nats.connected and self._nats_reads.connected:
            self._say([reason])

    def _explained(self, error: UpstreamError) -> str:
        return f"it is not known who is revoked: {'; '.join(self._lacking.reasons() or self._problems) or error}"

    def _say(self, reasons: list[str]) -> None:
        if reasons != self.reasons:
            self.reasons = reasons
            if reasons:
                self._log.warning("revocations_not_usable", reasons=reasons)


async def read_on(
    api: StreamApi[Shape],
    reads: StreamReads,
    position: int,
    state: StreamState,
    strange: Callable[[bytes, Entry], object],
) -> tuple[Content, int, StreamState]:
    """Read the bucket from a position to its end, and on to what was stored meanwhile.

    Args:
        api, reads: its leader, and its messages.
        position: behind this sequence.
        state: what the leader said last.
        strange: called with a subject and its entry when the key or the time cannot be read.

    Returns:
        what was read; up to which position; and what the leader says after that. If it is further than that position,
        an entry that was written again meanwhile may be lacking.

    Raises:
        UpstreamAway, UpstreamRefused: it cannot be read.
    """
    content, life = Content(), state.incarnation
    for _ in range(PASSES):
        if position >= state.last:
            break
        async for part in reads.forward((">",), position, state.last, life=life):
            for each in part.messages:
                headers, stored_at = split_headers(each.headers)
                written_at = time.time() if stored_at is None else stored_at
                entry = read_entry(each.subject, headers, each.payload, written_at=written_at)
                if entry.sub is None or not entry.readable:
                    strange(each.subject, entry)
                content.take(each.subject, entry)
        position = state.last
        state = await api.info()
        if state.incarnation != life:
            raise UpstreamAway("the bucket was made anew while it was read")
    return content, position, state
