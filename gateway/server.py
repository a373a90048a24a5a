"""One replica: everything put together, run, and ended."""

from __future__ import annotations

import asyncio
import gc
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
from gateway.core.errors import GatewayError
from gateway.core.revoked import Revoked
from gateway.descriptors import Descriptors
from gateway.door import Gate
from gateway.identity import Identity
from gateway.listening import bound, listen
from gateway.logs import Seldom, logger
from gateway.memory import Memory
from gateway.metrics import Metrics
from gateway.nats_settings import nats_options
from gateway.readiness import Readiness
from gateway.reload import Reload
from gateway.samples import Samples
from gateway.settings import Settings
from gateway.source import Source
from gateway.transports.admission import Admission
from gateway.transports.drain import Drain
from gateway.transports.http_server import HttpServer
from gateway.transports.journal import Journal
from gateway.transports.limits import MOST_WAITING, Limits
from gateway.transports.room import Room
from gateway.transports.sweep import Sweep
from gateway.transports.turns import Turns
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
        self._source = Source(settings, options, self._revoked, random=random, log=self._log)
        failures = Seldom(loop.time)

        def failed(error: Exception) -> None:
            held = failures.due("failed")
            if held is not None:
                self._log.error("connection_failed", exc_info=error, held_back=held)

        self._sweep = Sweep(_period_s(settings), now=loop.time, later=loop.call_later, failed=failed)
        self._turns = Turns(loop.call_soon, time.monotonic, failed)
        journal = Journal(self._log, loop.time)
        self._room = Room(
            hub=self._source.hub,
            sweep=self._sweep,
            turns=self._turns,
            now=loop.time,
            defer=Turns(loop.call_soon, time.monotonic, failed).add,
            random=random,
            replica=settings.replica,
            readers_changed=self._source.tap.readers_changed,
            revoked=self._revoked.refuses,
            upstream_up=self._source.availability.usable.is_set,
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
            self._source.ask,
            self._source.where,
            self._source.api.info,
            max_event_bytes=settings.max_event_bytes,
            now=loop.time,
            log=self._log,
        )
        self._gate = Gate(
            settings,
            self._identity.authenticator,
            services,
            self._source.publish,
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
                self._source,
                self._room,
                self._identity,
                self._gate,
                self._memory,
                self._limits,
            )
        )
        self._watchdog = Watchdog(loop.call_later, self._metrics.lag.observe, self._log)
        self._source.hub.on_flush = self._delivered
        self._source.on_known = self._sweep.round  # those who are in and revoked are out before anything comes
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
        readiness = Readiness(settings.replica, settings.stream, self._source, self._identity, self._draining)
        self._app = App(self._room, self._gate, Health(readiness.now, page if metrics_sock is None else None))
        server = HttpServer(self._app, self._limits, on_signal=self._signalled, graceful_s=SHUTDOWN_S)
        self._server = server
        self._log.info("listening", url=f"http://{bound(sock)}", replica=settings.replica, version=__version__)
        gc.freeze()  # what lives as long as the process need not be walked by every collection
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, self._reload.run)
        self._watchdog.start()
        async with asyncio.TaskGroup() as tasks:
            background = [tasks.create_task(each) for each in self._source.runs()]
            background.append(tasks.create_task(self._drain()))
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
        self._source.reloaded(settings)

    async def _started_in_time(self) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._source.availability.usable.wait()
        except TimeoutError:
            raise NotReached(
                f"not usable within {self._settings.start_timeout_s:g} s (NATSGATE_START_TIMEOUT_S): "
                + "; ".join(self._source.availability.reasons)
            ) from None

    def _delivered(self) -> None:
        try:
            stored_at = datetime.fromisoformat(self._source.intake.stored_at).timestamp()
        except (ValueError, OverflowError):
            return  # the server did not say, or nonsense
        # The clocks are two machines': what seems to come before it was sent counts as at once.
        self._metrics.latency.observe(max(0.0, time.time() - stored_at))


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
