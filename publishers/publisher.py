"""The asynchronous publisher: events go out pipelined, are acknowledged, and keep their subject's order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple, Self

from publishers import message, wire
from publishers.delivery import Delivery
from publishers.errors import FlushTimeout, NatsUnreachable, PublisherClosed
from publishers.link import check_files
from publishers.outbox import ENTRY_OVERHEAD_BYTES, Ack, Entry, Outcome
from publishers.settings import Settings

log = logging.getLogger(__name__)

_OWN_ID_FIELD = {"repo": "repo_id", "task": "task_id", "project": "project_id"}


class Stats(NamedTuple):
    """What a publisher holds now, and counts since it was opened."""

    connected: bool
    buffered_events: int
    buffered_bytes: int
    acknowledged: int
    duplicates: int
    retries: int
    failed: int


class Publisher:
    """Publishes events into the stream and says when each is stored.

    ::

        async with Publisher("nats://127.0.0.1:4222") as publisher:
            await publisher.emit("repo", "42", "task.progress", {"percent": 10})

    It opens without NATS, and connects and reconnects by itself. Events wait in a buffer of `buffer_bytes`
    until they are acknowledged; each carries a `Nats-Msg-Id`, so a retry never stores it twice. All methods
    belong to the event loop that opened it; `SyncPublisher` is for threads.

    Args:
        settings: a `Settings`, or just NATS URLs (comma-separated).

    Raises:
        SettingsError: a file or seed of the settings is unusable.
    """

    def __init__(self, settings: Settings | str = "nats://127.0.0.1:4222") -> None:
        self.settings = Settings(servers=settings) if isinstance(settings, str) else settings
        check_files(self.settings)
        self._delivery: Delivery | None = None

    async def open(self) -> None:
        """Starts connecting in the background and returns at once. On an open publisher it does nothing."""
        if self._delivery is None:
            self._delivery = Delivery(self.settings)

    async def close(self, timeout_s: float | None = None) -> None:
        """Takes no more events, flushes for at most `timeout_s` (default `close_timeout_s`), disconnects.

        Raises:
            FlushTimeout: events were left; the future of each fails with `PublishTimeout`.
        """
        delivery, self._delivery = self._delivery, None
        if delivery is not None:
            await delivery.close(self.settings.close_timeout_s if timeout_s is None else timeout_s)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close()
        except FlushTimeout as lost:
            if error is None:
                raise
            log.error("%s", lost)  # the error that is on its way already says more

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Waits until NATS is there; with `timeout_s` None for ever.

        Raises:
            NatsUnreachable: not within `timeout_s`; the message holds the last reason.
            PublisherClosed: closed meanwhile.
        """
        delivery = self._opened()
        if delivery.connected.is_set():
            return
        connected = asyncio.create_task(delivery.connected.wait())
        closed = asyncio.create_task(delivery.closed.wait())
        try:
            done, _ = await asyncio.wait((connected, closed), timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connected.cancel()
            closed.cancel()
        if closed in done and connected not in done:
            raise PublisherClosed(f"the publisher was closed before NATS was reached: {delivery.away_reason}")
        if not done:
            raise NatsUnreachable(
                f"NATS is not reached within {timeout_s} s: {delivery.away_reason}; check servers and login"
            )

    async def flush(self, timeout_s: float | None = None) -> None:
        """Waits until every event taken so far has its outcome; whether it is a success its future says.

        Raises:
            FlushTimeout: some have none after `timeout_s`; they stay in the buffer.
        """
        await self._opened().flush(timeout_s)

    @property
    def stats(self) -> Stats:
        """What the publisher holds and has done; zeros when it is not open."""
        delivery = self._delivery
        if delivery is None:
            return Stats(False, 0, 0, 0, 0, 0, 0)
        return Stats(
            delivery.connected.is_set(),
            len(delivery.outbox.entries),
            delivery.outbox.size_bytes,
            delivery.acknowledged,
            delivery.duplicates,
            delivery.retries,
            delivery.failed,
        )

    @property
    def trouble(self) -> str | None:
        """Why nothing moves, for a status page: NATS is away or the oldest event is refused; None when well."""
        return self._delivery.trouble if self._delivery is not None else "the publisher is not open"

    async def emit(
        self,
        root: str,
        id: str,
        event_type: str,
        payload: Mapping[str, Any] | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
        **fields: Any,
    ) -> Ack:
        """Publishes a canonical event on `<root>.<id>.<event type>` and waits until it is stored.

        Args:
            root, id, event_type: see `wire.subject`; the id is given as it is and encoded here.
            payload: the event's `payload` object.
            headers, timeout_s: see `publish`.
            fields: further fields of `wire.envelope` (`request_id`, `task_id`, ...). Under the roots `repo`,
                `task` and `project` the field `<root>_id` is filled in.

        Raises:
            WireError, BufferFull, PublishTimeout, Refused, PublisherClosed: see `publish`.
        """
        own_id = _OWN_ID_FIELD.get(root)
        if own_id is not None:
            fields.setdefault(own_id, id)
        event = wire.envelope(event_type, payload, **fields)
        subject = wire.subject(root, id, event_type)
        return await self.publish(subject, event, headers=headers, timeout_s=timeout_s)

    async def publish(
        self,
        subject: str,
        event: Mapping[str, Any] | bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout_s: float | None = None,
    ) -> Ack:
        """Publishes one event and waits until it is stored.

        Args:
            subject: complete, `<root>.<id>.<event type>`; build it with `wire.subject`.
            event: any JSON object, or one as UTF-8 bytes, which are sent as they are.
            msg_id: the `Nats-Msg-Id`, unique in the whole stream; a second event with it within the duplicate
                window is not stored. Absent: made of subject and `id` of a canonical envelope; for other
                shapes random, so that only the publisher's own retries are recognised.
            headers: passed on as they are, e.g. `traceparent`.
            timeout_s: default `timeout_s` of the settings.

        Raises:
            WireError: subject, event or headers are malformed.
            BufferFull: NATS is away and the buffer is full.
            PublishTimeout: not acknowledged in time; `outcome_unknown` says whether it may be stored.
            Refused: the stream said no for good.
            PublisherClosed: not open.
        """
        delivery = self._opened()
        limit_s = self.settings.timeout_s if timeout_s is None else timeout_s
        entry = self._entry(subject, event, msg_id, headers)
        try:
            async with asyncio.timeout(limit_s):
                await delivery.take(entry)
                return await entry.outcome
        except TimeoutError:
            if entry.outcome.done() and not entry.outcome.cancelled():
                return entry.outcome.result()  # it came in the very last moment
            what = f"{subject} was not acknowledged within {limit_s} s: {delivery.trouble_of(entry)}"
            raise delivery.timed_out(entry, what) from None
        finally:
            delivery.drop(entry)

    async def enqueue(
        self,
        subject: str,
        event: Mapping[str, Any] | bytes,
        *,
        msg_id: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> asyncio.Future[Ack]:
        """Takes one event into the buffer and returns the future of its acknowledgement, for pipelining.

        While NATS is there and the buffer is full it waits for room. Events of one subject are stored in the
        order in which this returned. Arguments and errors as in `publish`; the future fails with `Refused` or
        `PublishTimeout`, and cancelling it takes the event back as long as it was not sent.
        """
        delivery = self._opened()
        entry = self._entry(subject, event, msg_id, headers)
        await delivery.take(entry)
        return entry.outcome

    def _opened(self) -> Delivery:
        if self._delivery is None:
            raise PublisherClosed("the publisher is not open: use `async with Publisher(...)`, or await open()")
        return self._delivery

    def _entry(
        self,
        subject: str,
        event: Mapping[str, Any] | bytes,
        msg_id: str | None,
        own_headers: Mapping[str, str] | None,
    ) -> Entry:
        data = message.encode(subject, event, max_event_bytes=self.settings.max_event_bytes)
        header = message.header_block(subject, event, msg_id=msg_id, own=own_headers)
        outcome = Outcome(loop=asyncio.get_running_loop())
        size_bytes = ENTRY_OVERHEAD_BYTES + len(subject) + len(header) + len(data)
        return Entry(0, subject, data, header, outcome, size_bytes)
