"""Gets the outbox to the stream: connects, sends, matches acknowledgements, retries, gives up."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from publishers.answer import forbidden, read_answer
from publishers.errors import (
    BufferFull,
    FlushTimeout,
    NatsUnreachable,
    PublisherClosed,
    PublishError,
    PublishTimeout,
    Refused,
)
from publishers.link import Link
from publishers.outbox import ENTRY_OVERHEAD_BYTES, Ack, Entry, Lane, Outbox
from publishers.settings import Settings

log = logging.getLogger(__name__)

_LOG_EVERY_S = 5.0
_CANCEL_AGAIN_S = 0.5  # longer than a link needs to close, which must not be interrupted
_BATCH_BYTES = 256 * 1024
_WINDOW_SHARE = 0.9  # of the duplicate window; the rest is for the way to the stream


class Delivery:
    """The engine of one publisher; belongs to one event loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.outbox = Outbox(
            limit_bytes=settings.buffer_bytes,
            max_in_flight=settings.max_in_flight,
            max_in_flight_per_subject=settings.max_in_flight_per_subject,
        )
        self.connected = asyncio.Event()
        self.closed = asyncio.Event()
        self._link: Link | None = None
        self.away_reason = "not connected yet"
        self.acknowledged = self.duplicates = self.retries = self.failed = 0
        self._accepting = True
        self._sendable = asyncio.Event()
        self._room: deque[asyncio.Future[None]] = deque()
        self._last_number = 0
        self._quiet_until_s: dict[str, float] = {}
        self._tasks = [asyncio.create_task(self._stay_connected()), asyncio.create_task(self._watch())]

    async def take(self, entry: Entry) -> None:
        """Puts the entry into the outbox; waits for room while NATS is there.

        Raises:
            BufferFull: there is no room and NATS is away.
            PublisherClosed: closed meanwhile.
        """
        loop = asyncio.get_running_loop()
        room: asyncio.Future[None] | None = None
        try:
            # Whoever waits keeps its place until it has taken: no newcomer goes before it, so a subject keeps its
            # order, and a big event is not overtaken for ever.
            while self._must_queue(room) or not self.outbox.has_room_for(entry.size_bytes):
                if not self.connected.is_set():
                    raise BufferFull(
                        f"NATS is away ({self.away_reason}) and the buffer is full: {len(self.outbox.entries)} "
                        f"events, {self.outbox.size_bytes} of buffer_bytes={self.settings.buffer_bytes}. The "
                        f"event for {entry.subject} was not taken: publish it again later, or raise buffer_bytes"
                    )
                if room is None:
                    room = loop.create_future()
                    self._room.append(room)
                elif room.done():
                    place = self._room.index(room)
                    room = self._room[place] = loop.create_future()
                await room
                if not self._accepting:
                    raise PublisherClosed(f"the publisher was closed while {entry.subject} waited for room")
            self._last_number += 1
            entry.number = self._last_number
            self.outbox.add(entry)
            entry.outcome.number = entry.number
            entry.outcome.taken_back = self._taken_back
            self._sendable.set()
        finally:
            if room is not None:
                self._room.remove(room)
            if not (self.connected.is_set() and self._accepting) or self.outbox.has_room_for(0):
                self._wake_waiters()

    def _must_queue(self, room: asyncio.Future[None] | None) -> bool:
        return bool(self._room) if room is None else room is not self._room[0]

    def drop(self, entry: Entry) -> None:
        """Forgets an entry that its caller gave up, or that is done."""
        if entry.number in self.outbox.entries:
            self._remove(entry)

    def _taken_back(self, number: int) -> None:
        # Its room is free at once: a caller who sheds load while NATS is away takes old events back for new ones.
        entry = self.outbox.entries.get(number)
        if entry is not None and number not in self.outbox.flying:
            self.drop(entry)

    def may_be_stored(self, entry: Entry) -> bool:
        """Whether an attempt was, or is still, without an answer."""
        return entry.in_doubt or entry.number in self.outbox.flying

    def timed_out(self, entry: Entry, what: str) -> PublishTimeout:
        """The error for an entry that is given up, with what is known of it."""
        unknown = self.may_be_stored(entry)
        mend = (
            "it may be stored: publish it again with the same msg_id within the duplicate window"
            if unknown
            else "it is not stored: publish it again"
        )
        return PublishTimeout(f"{what}; {mend}", outcome_unknown=unknown)

    @property
    def trouble(self) -> str | None:
        """Why nothing moves: NATS is away, or the oldest event is refused or unanswered; else None."""
        if not self.connected.is_set():
            return f"NATS is away ({self.away_reason})"
        oldest = next(iter(self.outbox.entries.values()), None)
        return oldest.reason if oldest is not None and oldest.troubled_since_s is not None else None

    def trouble_of(self, entry: Entry) -> str:
        """Why the entry is not acknowledged yet."""
        return entry.reason if self.connected.is_set() else f"NATS is away ({self.away_reason})"

    async def flush(self, timeout_s: float | None) -> None:
        """Waits for the outcome of all that is in the outbox now. Raises `FlushTimeout`."""
        pending = [entry for entry in self.outbox.entries.values() if not entry.outcome.done()]
        if not pending:
            return
        await asyncio.wait([entry.outcome for entry in pending], timeout=timeout_s)
        left = [entry for entry in pending if not entry.outcome.done()]
        if left:
            unknown = sum(map(self.may_be_stored, left))
            raise FlushTimeout(
                f"{len(left)} events have no acknowledgement after {timeout_s} s ({unknown} of them may be "
                f"stored, {len(left) - unknown} are not), the first for {left[0].subject}: "
                f"{self.trouble_of(left[0])}",
                unsent=len(left) - unknown,
                unknown=unknown,
            )

    async def close(self, timeout_s: float) -> None:
        """Flushes, disconnects, and fails what is left. Raises `FlushTimeout`."""
        self._accepting = False
        self.closed.set()
        self._wake_waiters()
        try:
            await self.flush(timeout_s)
        finally:
            await end(self._tasks)
            for entry in list(self.outbox.entries.values()):
                what = f"the publisher was closed before {entry.subject} was acknowledged"
                self._conclude(entry, self.timed_out(entry, what))

    async def _stay_connected(self) -> None:
        failures = 0
        urls = self.settings.server_urls
        turn = random.randrange(len(urls))  # so that many publishers spread over the servers
        while self._accepting or self.outbox.entries:
            try:
                link = await Link.open(urls[turn % len(urls)], self.settings, self._answered, self._forbidden)
            except NatsUnreachable as err:
                if failures == 0:
                    log.warning("NATS is away, events are buffered: %s", err)
                self.away_reason = str(err)
                turn += 1
                await asyncio.sleep(self._pause_s(failures))
                failures += 1
                continue
            log.info("connected to NATS")
            failures = 0
            self._link = link
            self.connected.set()
            self._sendable.set()
            ends = [asyncio.create_task(link.lost()), asyncio.create_task(self._send(link))]
            try:
                await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
                if ends[1].done() and (error := ends[1].exception()) is not None:
                    log.error("sending failed, connecting anew", exc_info=error)
                self.away_reason = link.reason or "the connection was closed"
                log.warning("lost NATS, events are buffered: %s", self.away_reason)
            finally:
                self._link = None
                self.connected.clear()
                try:
                    await link.close()  # frees a sender that is stuck in a congested socket
                finally:
                    await end(ends)
                    self._land()

    def _land(self) -> None:
        """Takes back what flew on a connection that is gone."""
        for entry in self.outbox.land_all():
            entry.in_doubt = True
        for entry in self.outbox.entries.values():
            entry.troubled_since_s = None
        self._wake_waiters()

    async def _send(self, link: Link) -> None:
        while link.is_up:
            batch: list[Entry] = []
            size_bytes = 0
            while size_bytes < _BATCH_BYTES and (entry := self.outbox.take()) is not None:
                if self._may_go(entry, link):
                    batch.append(entry)
                    size_bytes += entry.size_bytes
            if self._room and self.outbox.is_low:  # the outbox forgets what was given up while it looks
                self._wake_waiters()
            if not batch:
                self._sendable.clear()
                await self._sendable.wait()
                continue
            try:
                await link.send(batch)
            except NatsUnreachable as err:
                log.debug("%s", err)  # `lost` reports it, and everything that flew will land
                return

    def _may_go(self, entry: Entry, link: Link) -> bool:
        """Marks the entry as sent now, or concludes it when it must not be sent."""
        now_s = asyncio.get_running_loop().time()
        if entry.size_bytes - ENTRY_OVERHEAD_BYTES > link.max_payload_bytes:
            # Sending it would make the server close the connection.
            what = f"{entry.subject}: the event exceeds the max_payload of {link.max_payload_bytes} bytes"
            self._conclude(entry, Refused(f"{what}; publish a reference to its data", code=400, err_code=10054))
            return False
        age_s = max(now_s - entry.first_sent_s, time.time() - entry.first_sent_at)
        if not entry.in_doubt:
            entry.first_sent_s, entry.first_sent_at = now_s, time.time()
        elif age_s > self.settings.duplicate_window_s * _WINDOW_SHARE:
            what = (
                f"{entry.subject} was sent {age_s:.0f} s ago without an answer; a retry so "
                f"late in the duplicate window of {self.settings.duplicate_window_s} s could store it twice"
            )
            self._conclude(entry, self.timed_out(entry, what))
            return False
        entry.last_sent_s = now_s
        entry.attempts += 1
        entry.reason = "no answer yet"
        return True

    def _answered(self, number: int, data: bytes, status: str | None) -> None:
        entry = self.outbox.entries.get(number)
        if entry is None:
            return  # the answer to an attempt that was repeated
        outcome = read_answer(entry.subject, data, status)
        if isinstance(outcome, str):
            self._retry(entry, outcome)
            return
        if isinstance(outcome, Ack):
            self.acknowledged += 1
            self.duplicates += outcome.duplicate
        self._conclude(entry, outcome)

    def _forbidden(self, subject: str) -> None:
        """The server let a message to this subject (in lower case: nats-py tells it so) pass to nobody."""
        meant = [entry for entry in self.outbox.flying.values() if entry.subject.lower() == subject]
        # Of several it is not said which one: rights may change between them. They are tried again, one by one at last.
        # And of an attempt before this one nobody knows.
        if len(meant) == 1 and not meant[0].in_doubt:
            self._conclude(meant[0], forbidden(meant[0].subject))

    def _retry(self, entry: Entry, reason: str) -> None:
        """The attempt failed on a connection that works."""
        if entry.number not in self.outbox.flying:
            return  # answered before
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        entry.reason = reason
        self._complain("retrying: %s", reason)
        if entry.troubled_since_s is None:
            entry.troubled_since_s = now_s
        self.retries += 1
        lane = self.outbox.fail(entry)
        if lane is not None:
            loop.call_later(self._pause_s(entry.attempts - 1), self._resume, lane)
        if now_s - entry.troubled_since_s > self.settings.retry_for_s:
            what = f"{entry.attempts} attempts in {self.settings.retry_for_s} s failed: {reason}"
            self._conclude(entry, self.timed_out(entry, what))

    def _complain(self, text: str, what: object) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s >= self._quiet_until_s.get(text, now_s):
            self._quiet_until_s[text] = now_s + _LOG_EVERY_S
            log.warning(text, what)

    def _resume(self, lane: Lane) -> None:
        self.outbox.release(lane)
        self._sendable.set()

    async def _watch(self) -> None:
        """Finds events that are left unanswered although the connection works."""
        ack_wait_s = self.settings.ack_wait_s
        while True:
            await asyncio.sleep(min(ack_wait_s / 4, 0.5))
            if self._link is not None:
                for entry in self.outbox.sent_before(asyncio.get_running_loop().time() - ack_wait_s):
                    entry.in_doubt = True
                    said = f" (NATS said last: {self._link.reason})" if self._link.reason else ""
                    self._retry(entry, f"no acknowledgement of {entry.subject} within {ack_wait_s} s{said}")

    def _conclude(self, entry: Entry, outcome: Ack | PublishError) -> None:
        self._remove(entry)
        if not entry.outcome.done():
            if isinstance(outcome, Ack):
                entry.outcome.set_result(outcome)
            else:
                self.failed += 1
                entry.outcome.set_exception(outcome)
                # Seen here, so that futures nobody keeps do not each print a traceback; the log has it instead,
                # and when closing the one `FlushTimeout`.
                entry.outcome.exception()
                if self._accepting:
                    self._complain("failed: %s", outcome)

    def _remove(self, entry: Entry) -> None:
        self.outbox.remove(entry)
        self._sendable.set()
        if self._room and self.outbox.is_low:
            self._wake_waiters()

    def _wake_waiters(self) -> None:
        """Lets who waits for room look again: the first while NATS is there, all of them when it is away."""
        for waiter in self._room:  # who is woken leaves the queue itself, once it has taken or given up
            if not waiter.done():
                waiter.set_result(None)
            if self._accepting and self.connected.is_set():
                return

    def _pause_s(self, failures: int) -> float:
        longest_s = min(self.settings.backoff_max_s, self.settings.backoff_min_s * 2.0 ** min(failures, 30))
        return longest_s * random.uniform(0.5, 1.0)


async def end(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels until the tasks are done: nats-py, and `asyncio.wait_for` before 3.12, may swallow a cancellation."""
    pending = set(tasks)
    while pending:
        for task in pending:
            task.cancel()
        _, pending = await asyncio.wait(pending, timeout=_CANCEL_AGAIN_S)
