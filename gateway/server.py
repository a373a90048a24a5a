"""One replica: everything put together, run, and ended."""

from __future__ import annotations

import asyncio
import gc
import secrets
import signal
import time
from collections.abc import Callable
from datetime import datetime
from random import Random
from typing import Any

import uvloop

from gateway import __version__, logs
from gateway.app import App, Health
from gateway.auth.services import Services
from gateway.background import end
from gateway.core.cursor import Cursor
from gateway.core.errors import GatewayError
from gateway.core.feed import Feeds
from gateway.core.hub import Hub
from gateway.core.intake import Intake
from gateway.core.log import Log
from gateway.core.revoked import Revoked
from gateway.descriptors import Descriptors
from gateway.door import Gate
from gateway.identity import Identity
from gateway.listening import bound, listen
from gateway.logs import Seldom, logger
from gateway.memory import Memory
from gateway.metrics import Metrics
from gateway.nats_settings import nats_options, shape_of
from gateway.readiness import Readiness
from gateway.reload import Reload
from gateway.samples import Samples
from gateway.settings import Settings
from gateway.transports.admission import Admission
from gateway.transports.drain import Drain
from gateway.transports.http_server import HttpServer
from gateway.transports.journal import Journal
from gateway.transports.limits import MOST_WAITING, Limits
from gateway.transports.room import Room
from gateway.transports.sweep import Sweep
from gateway.transports.turns import Turns
from gateway.upstream.api import StreamApi
from gateway.upstream.connection import NatsConnection
from gateway.upstream.reads import StreamReads
from gateway.upstream.replay import Replay
from gateway.upstream.revocations import Revocations
from gateway.upstream.tap import Tap
from gateway.watchdog import Watchdog

SHUTDOWN_S = 2
"""How long requests may take to be answered at the end, when all connections have gone."""


class NotReached(GatewayError):
    """NATS or the stream was not usable within `START_TIMEOUT_S`."""


class Replica:
    """One gateway process.

    Args:
        settings: validated settings.
        load: reads them anew from where they came from. Raises `ConfigError`.
        options: the NATS connection.
    """

    def __init__(self, settings: Settings, load: Callable[[], Settings], options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._reload = Reload(lambda: self._settings, load, self.reloaded, logger())
        self._log = logger()
        random = Random()
        self._descriptors = Descriptors.raised()
        self._memory = Memory(settings.memory_limit_bytes, loop.time)
        self._revoked = Revoked()
        self._identity = Identity(settings, self._revoked, random=random, now=loop.time, log=self._log)
        self._feeds = Feeds()
        self._event_log = Log(settings.log_bytes, self._feeds.tree)
        self._hub = Hub(
            self._event_log,
            self._feeds,
            defer=loop.call_soon,
            now=loop.time,
            uncovered=lambda reader: self._replay.take(reader),
            replay_limit=settings.replay_limit,
        )
        self._intake = Intake(
            self._event_log,
            stream=settings.stream,
            live_prefix=settings.live_prefix,
            roots=settings.roots,
            max_event_bytes=settings.max_event_bytes,
        )
        self._nats = NatsConnection(
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
        self._api = StreamApi(self._nats, shape)
        self._reads = StreamReads(self._nats_reads, StreamApi(self._nats_reads, shape), inbox)
        self._revocations: Revocations | None = None
        if settings.auth == "jwt":
            self._revocations = Revocations(
                self._nats, self._nats_reads, f"{inbox}.revoked", self._revoked, random=random, log=self._log
            )
        self._tap = Tap(
            self._nats,
            self._api,
            self._reads,
            self._hub,
            self._intake,
            linger_s=settings.linger_s,
            warm_s=settings.warm_s,
            log=self._log,
        )
        self._replay = Replay(
            self._hub,
            self._reads,
            self._tap.usable,
            snapshot_limit=settings.snapshot_limit,
            max_event_bytes=settings.max_event_bytes,
            log=self._log,
        )

        failures = Seldom(loop.time)

        def failed(error: Exception) -> None:
            held = failures.due("failed")
            if held is not None:
                self._log.error("connection_failed", exc_info=error, held_back=held)

        self._sweep = Sweep(_period_s(settings), now=loop.time, later=loop.call_later, failed=failed)
        self._turns = Turns(loop.call_soon, time.monotonic, failed)
        journal = Journal(self._log, loop.time)
        self._room = Room(
            hub=self._hub,
            sweep=self._sweep,
            turns=self._turns,
            now=loop.time,
            defer=Turns(loop.call_soon, time.monotonic, failed).add,
            random=random,
            replica=settings.replica,
            readers_changed=self._tap.readers_changed,
            revoked=self._revoked.refuses,
            upstream_up=self._tap.usable.is_set,
            journal=journal,
            heartbeat_s=settings.heartbeat_s,
            write_timeout_s=settings.write_timeout_s,
            max_age_s=settings.max_age_s,
            ws_ping_s=settings.ws_ping_s,
            ws_pong_timeout_s=settings.ws_pong_timeout_s,
            ws_max_message_bytes=settings.ws_max_message_bytes,
            ws_max_errors=settings.ws_max_errors,
            inbound_rate=settings.inbound_rate,
            admission=Admission(
                most=self._descriptors.most_connections(settings.max_connections, MOST_WAITING, self._log),
                most_per_sub=settings.max_connections_per_sub,
                most_per_address=settings.max_connections_per_ip,
                memory_full=lambda: self._memory.full,
            ),
        )
        services = Services(
            self._ask,
            self._where,
            self._api.info,
            max_event_bytes=settings.max_event_bytes,
            now=loop.time,
            log=self._log,
        )
        self._gate = Gate(
            settings,
            self._identity.authenticator,
            services,
            self._api.publish,
            now=loop.time,
            wall=time.time,
            random=random,
        )
        self._limits = Limits(
            settings.max_header_bytes,
            settings.request_timeout_s,
            self._descriptors.sockets,
            loop.time,
            self._room.reject,
            self._turns,
        )
        self._sweep.add(self._limits)
        self._sweep.add(journal)
        self._metrics = Metrics(
            Samples(
                self._hub,
                self._room,
                self._intake,
                self._tap,
                self._replay,
                self._nats,
                self._identity,
                self._gate,
                self._memory,
                self._limits,
            )
        )
        self._watchdog = Watchdog(loop.call_later, self._metrics.lag.observe, self._log)
        self._seldom = Seldom(loop.time)
        self._hub.on_flush = self._delivered
        self._event_log.on_drop = self._dropped
        self._draining = asyncio.Event()

    async def run(self) -> None:
        """Serve until a signal, then send everybody to other replicas and return.

        Raises:
            ConfigError: an address cannot be listened on.
            NotReached: see its class.
        """
        settings = self._settings
        sock, metrics_sock = listen(settings)
        page = self._metrics.page
        readiness = Readiness(
            settings.replica,
            settings.stream,
            self._nats,
            self._tap,
            self._identity,
            self._revocations,
            self._draining,
        )
        self._app = App(self._room, self._gate, Health(readiness.now, page if metrics_sock is None else None))
        server = HttpServer(self._app, self._limits, on_signal=self._signalled, graceful_s=SHUTDOWN_S)
        self._server = server
        self._log.info("listening", url=f"http://{bound(sock)}", replica=settings.replica, version=__version__)
        gc.freeze()  # what lives as long as the process need not be walked by every collection
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload.run)
        self._watchdog.start()
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(each.run()) for each in (self._nats, self._nats_reads, self._tap, self._replay)
            ]
            background.append(tasks.create_task(self._drain()))
            if self._revocations is not None:
                background.append(tasks.create_task(self._revocations.run()))
            if self._identity.jwks is not None:
                background.append(tasks.create_task(self._identity.jwks.run()))
            if settings.start_timeout_s:
                background.append(tasks.create_task(self._started_in_time()))
            if metrics_sock is not None:
                page_app = App.metrics_only(page)
                aside = HttpServer(page_app, self._limits, on_signal=None, graceful_s=0)
                background.append(tasks.create_task(aside.serve([metrics_sock])))
                self._log.info("metrics_listening", url=f"http://{bound(metrics_sock)}/metrics")
            try:
                await server.serve([sock])
            finally:
                self._watchdog.stop()
                await end(background)
        self._turns.finish()
        self._room.journal.finish()
        self._log.info("ended")

    # Signals

    def _signalled(self) -> None:
        if self._draining.is_set():
            self._log.warning("ending_at_once", connections=sum(self._room.current.values()))
            self._server.force_exit = self._server.should_exit = True
        self._draining.set()

    async def _drain(self) -> None:
        await self._draining.wait()
        settings = self._settings
        await Drain(self._room, self._log).run(delay_s=settings.drain_delay_s, drain_s=settings.drain_s)
        self._server.should_exit = True  # uvicorn would end everything at once: its turn comes last

    def reloaded(self, settings: Settings) -> None:
        """Go on by these settings. Nobody is dropped by it.

        Raises:
            ConfigError: they cannot be had. What may say so comes first: then nothing has changed yet.
        """
        self._identity.take(settings)
        self._gate.reloaded(settings, self._identity.authenticator)
        self._app.reloaded()
        self._settings = settings
        logs.set_level(settings.log_level)
        room = self._room
        room.heartbeat_s = settings.heartbeat_s
        room.max_age_s = settings.max_age_s
        room.ws_ping_s = settings.ws_ping_s
        room.ws_pong_timeout_s = settings.ws_pong_timeout_s
        room.ws_max_message_bytes = settings.ws_max_message_bytes
        room.ws_max_errors = settings.ws_max_errors
        room.inbound_rate = settings.inbound_rate
        room.admission.most = self._descriptors.most_connections(settings.max_connections, MOST_WAITING, self._log)
        room.admission.most_per_sub = settings.max_connections_per_sub
        room.admission.most_per_address = settings.max_connections_per_ip
        self._memory.set_limit(settings.memory_limit_bytes)
        self._sweep.period_s = _period_s(settings)
        self._limits.header_bytes = settings.max_header_bytes
        self._limits.request_s = settings.request_timeout_s
        self._hub.replay_limit = settings.replay_limit
        self._replay.snapshot_limit = settings.snapshot_limit
        self._replay.max_event_bytes = self._intake.max_event_bytes = settings.max_event_bytes
        self._gate.services.max_event_bytes = settings.max_event_bytes
        self._tap.linger_s, self._tap.warm_s = settings.linger_s, settings.warm_s
        self._event_log.limit_bytes = settings.log_bytes
        self._event_log.evict()

    async def _started_in_time(self) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._tap.usable.wait()
        except TimeoutError:
            raise NotReached(
                f"not usable within {self._settings.start_timeout_s:g} s (NATSGATE_START_TIMEOUT_S): "
                + "; ".join(self._tap.reasons)
            ) from None

    def _nats_changed(self, up: bool) -> None:
        self._tap.nats_changed(up)
        if self._revocations is not None:
            self._revocations.nats_changed(up)

    def _reads_changed(self, up: bool) -> None:
        self._tap.wake()
        if self._revocations is not None:
            self._revocations.nats_changed(up)

    def _nats_trouble(self, event: str, fields: dict[str, Any]) -> None:
        self._tap.nats_trouble(event, fields)
        if self._revocations is not None:
            self._revocations.nats_trouble(event, fields)

    async def _ask(self, subject: str, payload: bytes, timeout_s: float) -> bytes:
        return await self._nats.request(subject, payload, timeout_s=timeout_s)

    async def _where(self) -> Cursor:
        """Where the stream stands: what the log knows, else what the leader says."""
        if self._hub.open:
            return Cursor(self._event_log.incarnation, self._hub.flushed)
        state = await self._api.info()
        return Cursor(state.incarnation, state.last)

    def _delivered(self) -> None:
        try:
            stored_at = datetime.fromisoformat(self._intake.stored_at).timestamp()
        except (ValueError, OverflowError):
            return  # the server did not say, or nonsense
        # The clocks are two machines': what seems to come before it was sent counts as at once.
        self._metrics.latency.observe(max(0.0, time.time() - stored_at))

    def _dropped(self, reason: str, subject: str) -> None:
        held = self._seldom.due(reason)
        if held is not None:
            self._log.warning("message_dropped", reason=reason, subject=subject[:200], held_back=held)


def _period_s(settings: Settings) -> float:
    """How often each connection is looked at: often enough for the shortest of its times."""
    times = (settings.heartbeat_s, settings.ws_ping_s, settings.ws_pong_timeout_s)
    limits = (settings.write_timeout_s, settings.request_timeout_s)
    return min(1.0, *(time_s / 4 for time_s in times), *(limit_s / 4 for limit_s in limits if limit_s))


def serve(settings: Settings, load: Callable[[], Settings]) -> None:
    """Run one replica until a signal.

    Args:
        settings: validated settings.
        load: reads them anew on SIGHUP. Raises `ConfigError`.

    Raises:
        ConfigError: an address cannot be listened on, or a NATS credential cannot be loaded.
        NotReached: NATS or the stream was not usable in time.
    """

    async def run() -> None:
        await Replica(settings, load, nats_options(settings)).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except* GatewayError as group:
        raise group.exceptions[0] from None
