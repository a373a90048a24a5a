"""The source: NATS, the stream and the log that they feed, as one replica has them."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Any

from gateway.core.cursor import Cursor
from gateway.core.errors import UpstreamAway
from gateway.core.event import Event
from gateway.core.feed import Feeds
from gateway.core.hub import Hub
from gateway.core.intake import Intake
from gateway.core.log import Log
from gateway.core.revoked import Revoked
from gateway.logs import Logger, Seldom
from gateway.nats_settings import bucket_of, shape_of
from gateway.settings import Settings
from gateway.upstream.api import StreamApi
from gateway.upstream.availability import Availability
from gateway.upstream.connection import NatsConnection
from gateway.upstream.reads import StreamReads
from gateway.upstream.replay import Replay
from gateway.upstream.revocations import Revocations
from gateway.upstream.tap import Tap


class Source:
    """Where a replica's events come from.

    Args:
        settings: validated settings.
        options: the NATS connection.
        revoked: the table of revoked users, which is kept true where tokens are checked.
        random: for jitter.
        log: for lines about NATS and the stream.

    Attributes:
        hub: moves the readers of the log.
        intake: takes in what the live path brings.
        nats: the connection of live messages.
        api: the stream's API on it.
        availability: whether NATS and the stream can be used.
        tap: feeds the log.
        replay: serves the readers that the log alone cannot serve.
        revocations: follows the bucket of revoked users; None: nobody can be revoked.
        on_known: called once, when it is known who is revoked. Until then nobody gets anything: they wait.
    """

    def __init__(
        self, settings: Settings, options: dict[str, Any], revoked: Revoked, *, random: Random, log: Logger
    ) -> None:
        loop = asyncio.get_running_loop()
        self._logger = log
        self._seldom = Seldom(loop.time)
        feeds = Feeds()
        self._log = Log(settings.log_bytes, feeds.tree)
        self._log.on_drop = self._dropped
        self._log.on_fault = self._failed
        self.hub = Hub(
            self._log,
            feeds,
            defer=loop.call_soon,
            now=loop.time,
            uncovered=lambda reader: self.replay.take(reader),
            replay_limit=settings.replay_limit,
        )
        self.intake = Intake(
            self._log,
            stream=settings.stream,
            live_prefix=settings.live_prefix,
            roots=settings.roots,
            max_event_bytes=settings.max_event_bytes,
        )
        self.nats = NatsConnection(
            options,
            random=random,
            on_change=self._nats_changed,
            on_trouble=self._nats_trouble,
        )
        # Reads of the stream go over a connection of their own: a storm of them must not delay live messages.
        self._nats_reads = NatsConnection(
            options,
            random=random,
            on_change=self._reads_changed,
            on_trouble=self._nats_trouble,
        )
        shape = shape_of(settings)
        inbox = f"_INBOX.natsgate.{secrets.token_hex(8)}"
        self.api = StreamApi(self.nats, shape)
        reads = StreamReads(self._nats_reads, StreamApi(self._nats_reads, shape), inbox)
        self.on_known: Callable[[], None] = lambda: None
        self.revocations: Revocations | None = None
        if settings.auth == "jwt":
            self.revocations = Revocations(
                self.nats,
                self._nats_reads,
                f"{inbox}.revoked",
                revoked,
                random=random,
                log=log,
                on_loaded=self._known,
                shape=bucket_of(settings),
            )
        self.availability = Availability(self.nats, shape, log)
        self.tap = Tap(
            self.nats,
            self.api,
            reads,
            self.hub,
            self.intake,
            self.availability,
            may_open=lambda: self.knows_who_is_revoked,
            linger_s=settings.linger_s,
            warm_s=settings.warm_s,
            log=log,
        )
        self.replay = Replay(
            self.hub,
            reads,
            self.availability.usable,
            snapshot_limit=settings.snapshot_limit,
            max_event_bytes=settings.max_event_bytes,
            log=log,
        )

    def runs(self) -> Iterator[Coroutine[Any, Any, None]]:
        """What has to run for it, each in a task of its own, until cancelled."""
        yield from (each.run() for each in (self.nats, self._nats_reads, self.tap, self.replay))
        if self.revocations is not None:
            yield self.revocations.run()

    def reloaded(self, settings: Settings) -> None:
        """Go on by these settings."""
        self.hub.replay_limit = settings.replay_limit
        self.replay.snapshot_limit = settings.snapshot_limit
        self.replay.past.max_event_bytes = self.intake.max_event_bytes = settings.max_event_bytes
        self.tap.linger_s, self.tap.warm_s = settings.linger_s, settings.warm_s
        self._log.limit_bytes = settings.log_bytes
        self._log.evict()

    async def ask(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        """Send a NATS request; the answer.

        Raises:
            UpstreamAway: nobody answers in time.
        """
        return await self.nats.request(subject, payload, timeout_s=timeout_s)

    async def where(self) -> Cursor:
        """Where the stream stands: what the log knows, else what the leader says.

        Raises:
            UpstreamAway, UpstreamRefused: the leader does not say.
        """
        if self.hub.open:
            return Cursor(self._log.incarnation, self.hub.flushed)
        state = await self.api.info()
        return Cursor(state.incarnation, state.last)

    async def publish(self, subject: str, payload: bytes) -> object:
        """Have the stream store a client's event; what it says of it.

        Raises:
            UpstreamAway, UpstreamRefused: it has not, or that is not known; or it is not known yet who is revoked.
        """
        if not self.knows_who_is_revoked:
            raise UpstreamAway("it is not known yet who is revoked")
        return await self.api.publish(subject, payload)

    @property
    def knows_who_is_revoked(self) -> bool:
        """Whether revoked users are told from others: their bucket was read, or nobody can be revoked."""
        return self.revocations is None or self.revocations.loaded

    def _known(self) -> None:
        self.on_known()
        self.tap.wake()

    def _nats_changed(self, up: bool) -> None:
        self.tap.nats_changed(up)
        if self.revocations is not None:
            self.revocations.nats_changed(up)

    def _reads_changed(self, up: bool) -> None:
        self.tap.wake()
        if self.revocations is not None:
            self.revocations.nats_changed(up)

    def _nats_trouble(self, event: str, fields: dict[str, Any]) -> None:
        self.availability.nats_trouble(event, fields)
        if self.revocations is not None:
            self.revocations.nats_trouble(event, fields)

    def _failed(self, error: Exception, event: Event) -> None:
        held = self._seldom.due("event_failed")
        if held is not None:
            subject = event.topic.subject[:200]
            self._logger.error("event_failed", subject=subject, sequence=event.seq, exc_info=error, held_back=held)

    def _dropped(self, reason: str, subject: str) -> None:
        held = self._seldom.due(reason)
        if held is not None:
            self._logger.warning("message_dropped", reason=reason, subject=subject[:200], held_back=held)
