"""One replica: everything put together, run, and ended."""

from __future__ import annotations

import asyncio
import gc
import platform
import secrets
import socket
import time
from collections.abc import Iterable
from datetime import datetime
from random import Random
from typing import Any

import uvloop

from gateway import __version__
from gateway.app import App, Health
from gateway.auth import Authenticator
from gateway.core.errors import ConfigError, GatewayError
from gateway.core.feed import Feeds
from gateway.core.hub import Hub
from gateway.core.intake import Intake
from gateway.core.log import Log
from gateway.core.stream import StreamShape
from gateway.logs import Seldom, logger
from gateway.metrics import Metrics, Sample, Sampler
from gateway.settings import Address, Settings
from gateway.transports.http_server import HttpServer, Limits, bind
from gateway.transports.room import Room
from gateway.transports.sweep import Sweep
from gateway.upstream.api import StreamApi
from gateway.upstream.connection import NatsConnection, connect_options
from gateway.upstream.reads import StreamReads
from gateway.upstream.replay import Replay
from gateway.upstream.tap import Tap

SHUTDOWN_S = 2
"""How long connections may take to go at the end."""


class NotReached(GatewayError):
    """NATS or the stream was not usable within `START_TIMEOUT_S`."""


def nats_options(settings: Settings) -> dict[str, Any]:
    """The NATS connection that the settings describe."""

    def reveal(secret: Any) -> str | None:
        return None if secret is None else str(secret.get_secret_value())

    return connect_options(
        urls=settings.nats_url,
        name=f"natsgate {settings.replica}",
        creds=settings.nats_creds,
        nkey=reveal(settings.nats_nkey),
        user=settings.nats_user,
        password=reveal(settings.nats_password),
        token=reveal(settings.nats_token),
        ca=settings.nats_ca,
        cert=settings.nats_cert,
        key=settings.nats_key,
    )


def shape_of(settings: Settings) -> StreamShape:
    """The stream that the settings expect."""
    return StreamShape(settings.stream, settings.roots, settings.live_prefix)


class Replica(Sampler):
    """One gateway process.

    Args:
        settings: validated settings.
        options: the NATS connection.
    """

    def __init__(self, settings: Settings, options: dict[str, Any]) -> None:
        loop = asyncio.get_running_loop()
        self._settings = settings
        self._log = logger()
        random = Random()
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
            on_change=lambda up: self._tap.nats_changed(up),
            on_trouble=lambda event, fields: self._tap.nats_trouble(event, fields),
        )
        # Reads of the stream go over a connection of their own: a storm of them must not delay live messages.
        self._nats_reads = NatsConnection(
            options,
            random=random,
            on_change=lambda up: self._tap.wake(),
            on_trouble=lambda event, fields: self._tap.nats_trouble(event, fields),
        )
        shape = shape_of(settings)
        inbox = f"_INBOX.natsgate.{secrets.token_hex(8)}"
        self._api = StreamApi(self._nats, shape)
        self._reads = StreamReads(self._nats_reads, StreamApi(self._nats_reads, shape), inbox)
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
        periods = (1.0, settings.heartbeat_s / 4, settings.ws_ping_s / 4, settings.ws_pong_timeout_s / 4)
        self._sweep = Sweep(
            min(*periods, settings.write_timeout_s / 4 or 1.0, settings.request_timeout_s / 4 or 1.0),
            now=loop.time,
            later=loop.call_later,
            failed=lambda error: self._log.error("sweep_failed", exc_info=error),
        )
        self._room = Room(
            hub=self._hub,
            sweep=self._sweep,
            now=loop.time,
            defer=loop.call_soon,
            random=random,
            replica=settings.replica,
            readers_changed=self._tap.readers_changed,
            upstream_up=self._tap.usable.is_set,
            heartbeat_s=settings.heartbeat_s,
            write_timeout_s=settings.write_timeout_s,
            ws_ping_s=settings.ws_ping_s,
            ws_pong_timeout_s=settings.ws_pong_timeout_s,
            ws_max_message_bytes=settings.ws_max_message_bytes,
            ws_max_errors=settings.ws_max_errors,
        )
        self._metrics = Metrics(self)
        self._seldom = Seldom(loop.time)
        self._hub.on_flush = self._delivered
        self._event_log.on_drop = self._dropped
        self._draining = False

    async def run(self) -> None:
        """Serve until a signal, then end every connection and return.

        Raises:
            ConfigError: an address cannot be listened on.
            NotReached: see its class.
        """
        settings = self._settings
        sock = _listen("LISTEN", settings.listen, settings.write_timeout_s)
        metrics_sock = None
        if settings.metrics_listen is not None and settings.metrics_listen != settings.listen:
            metrics_sock = _listen("METRICS_LISTEN", settings.metrics_listen, settings.write_timeout_s)
        page = self._metrics.page
        app = App(
            settings,
            self._room,
            Authenticator("none"),
            Health(self.readiness, page if metrics_sock is None else None),
            self._api.publish,
        )
        limits = Limits(settings.max_header_bytes, settings.request_timeout_s, self._room.now, self._refused)
        self._sweep.add(limits)
        server = HttpServer(app.asgi(), limits, on_signal=self._signalled, graceful_s=SHUTDOWN_S)
        self._server = server
        self._log.info("listening", url=f"http://{_bound(sock)}", replica=settings.replica, version=__version__)
        gc.freeze()  # what lives as long as the process need not be walked by every collection
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(each.run()) for each in (self._nats, self._nats_reads, self._tap, self._replay)
            ]
            if settings.start_timeout_s:
                background.append(tasks.create_task(self._started_in_time()))
            if metrics_sock is not None:
                page_app = App.metrics_only(page)
                aside = HttpServer(page_app, limits, on_signal=None, graceful_s=0)
                background.append(tasks.create_task(aside.serve([metrics_sock])))
                self._log.info("metrics_listening", url=f"http://{_bound(metrics_sock)}/metrics")
            try:
                await server.serve([sock])
            finally:
                for task in background:
                    task.cancel()
        self._log.info("ended")

    def _signalled(self) -> None:
        if self._draining:
            self._server.force_exit = True
            return
        self._draining = True
        self._log.info("draining", connections=sum(self._room.current.values()))
        self._server.should_exit = True

    async def _started_in_time(self) -> None:
        try:
            async with asyncio.timeout(self._settings.start_timeout_s):
                await self._tap.usable.wait()
        except TimeoutError:
            raise NotReached(
                f"not usable within {self._settings.start_timeout_s:g} s (NATSGATE_START_TIMEOUT_S): "
                + "; ".join(self._tap.reasons)
            ) from None

    def _refused(self, reason: str) -> None:
        self._room.rejected[reason] += 1

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

    def readiness(self) -> tuple[bool, dict[str, Any]]:
        """Whether this replica should get traffic. Once it was usable, a NATS outage does not make it unready:
        that would turn every EventSource's reconnect into a 503, which kills it for good."""
        ready = self._tap.usable_once and not self._draining
        reasons = ["draining"] if self._draining else []
        return ready, {
            "ready": ready,
            "reasons": reasons + self._tap.reasons,
            "replica": self._settings.replica,
            "nats": {"connected": self._nats.connected, "server": self._nats.server},
            "stream": {"name": self._settings.stream, "usable": self._tap.usable.is_set()},
        }

    def samples(self) -> Iterable[Sample]:
        """The metrics, as they are now."""
        hub, room, log = self._hub, self._room, self._event_log
        build = {(__version__, platform.python_version()): 1.0}
        by_root = {(root.decode("ascii"),): float(n) for root, n in self._intake.received.items()}
        yield Sample("natsgate_build_info", "This build.", build, ("version", "python"))
        yield Sample("natsgate_connections", "Open connections.", _f(room.current), ("transport", "route"))
        yield Sample(
            "natsgate_connections_opened_total",
            "Connections opened.",
            _f(room.opened),
            ("transport", "route"),
        )
        yield Sample(
            "natsgate_connections_closed_total",
            "Connections ended, by reason.",
            _f(room.closed),
            ("transport", "reason"),
        )
        rejected = {(reason,): float(n) for reason, n in room.rejected.items()}
        yield Sample("natsgate_requests_rejected_total", "Requests refused, by reason.", rejected, ("reason",))
        yield Sample(
            "natsgate_feeds",
            "Feeds that are served: SSE connections and WebSocket subscriptions.",
            {(): len(hub.readers)},
        )
        yield Sample("natsgate_connections_behind", "Connections that are not at the head.", {(): hub.behind})
        yield Sample("natsgate_nats_subscriptions", "Subscriptions on NATS.", {(): self._nats.subscriptions})
        yield Sample("natsgate_events_received_total", "Events received from the stream.", by_root, ("root",))
        dropped = {(reason,): float(n) for reason, n in log.dropped.items()}
        yield Sample("natsgate_events_dropped_total", "Messages that no client gets.", dropped, ("reason",))
        events = {(name,): float(each.events) for name, each in hub.fan_out.delivered.items()}
        sent = {(name,): float(each.bytes) for name, each in hub.fan_out.delivered.items()}
        yield Sample("natsgate_deliveries_total", "Events written to clients.", events, ("transport",))
        yield Sample("natsgate_sent_bytes_total", "Bytes of events written to clients.", sent, ("transport",))
        replayed = {(source,): float(n) for source, n in hub.replayed.items()}
        yield Sample("natsgate_replayed_events_total", "Events read forward.", replayed, ("source",))
        replays = {("log", "done"): float(hub.resumed)} | {
            ("stream", outcome): float(n) for outcome, n in self._replay.outcomes.items()
        }
        yield Sample("natsgate_replays_total", "Readers that read forward.", replays, ("source", "outcome"))
        gaps = {(reason,): float(n) for reason, n in hub.gaps.items()}
        yield Sample("natsgate_gaps_total", "Gaps told to clients.", gaps, ("reason",))
        repaired = {(found_by,): float(n) for found_by, n in self._tap.repaired.items()}
        yield Sample("natsgate_holes_repaired_total", "Holes filled, by what found them.", repaired, ("found_by",))
        yield Sample("natsgate_log_bytes", "Bytes held by the event log.", {(): log.bytes})
        yield Sample("natsgate_log_events", "Events held by the event log.", {(): len(log)})
        yield Sample("natsgate_nats_connected", "1 while NATS is connected.", {(): float(self._nats.connected)})
        yield Sample("natsgate_nats_reconnects_total", "Reconnects to NATS.", {(): self._nats.reconnects})


def _f(counts: Any) -> dict[tuple[str, ...], float]:
    return {labels: float(number) for labels, number in counts.items()}


def _listen(name: str, address: Address, write_timeout_s: float) -> socket.socket:
    try:
        return bind(address.host, address.port, write_timeout_s=write_timeout_s)
    except OSError as error:
        raise ConfigError(
            f"NATSGATE_{name}: cannot listen on {address}: {error.strerror or error}; "
            "another program may have that port: choose another one, or 0 for any"
        ) from None


def _bound(sock: socket.socket) -> Address:
    host, port = sock.getsockname()[:2]
    return Address(host=host, port=port)


def serve(settings: Settings) -> None:
    """Run one replica until a signal.

    Raises:
        ConfigError: an address cannot be listened on, or a NATS credential cannot be loaded.
        NotReached: NATS or the stream was not usable in time.
    """

    async def run() -> None:
        await Replica(settings, nats_options(settings)).run()

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run())
    except* GatewayError as group:
        raise group.exceptions[0] from None
