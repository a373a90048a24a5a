"""The tap: feeds the log while anybody reads, and knows whether NATS and the stream are usable.

It is one subscription to everything that the stream republishes. The first reader opens it; it closes some seconds
after the last one left. Opening it takes a request on the same connection: its answer proves that the subscription
is in place at our server, and says where the stream stands.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from gateway.core.errors import UpstreamError, UpstreamRefused
from gateway.core.hub import Hub
from gateway.core.intake import Hole, Intake
from gateway.core.stream import JETSTREAM_OFF, NO_SUCH_STREAM, StreamState
from gateway.logs import Logger, Seldom
from gateway.upstream.api import StreamApi
from gateway.upstream.connection import NatsConnection, Subscribed

UNUSABLE_CHECK_S = 1.0
"""How often a stream that is not usable is looked at again."""


class Tap:
    """The one subscription, its life and its health.

    Concurrency: one task runs `run`; all other methods are called from the loop and return at once.

    Args:
        nats: the connection.
        api: the stream's API on the same connection.
        hub: whose readers decide whether the tap is open.
        intake: where messages go.
        linger_s: how long it stays open after the last reader left.
        log: for lines about NATS and the stream.

    Attributes:
        usable: set while NATS and the stream can be used.
        usable_once: whether they could be used at some time since the start.
        reasons: why they cannot be used now, each with its mend.
    """

    def __init__(
        self, nats: NatsConnection, api: StreamApi, hub: Hub, intake: Intake, *, linger_s: float, log: Logger
    ) -> None:
        self._nats = nats
        self._api = api
        self._hub = hub
        self._intake = intake
        self._linger_s = linger_s
        self._log = log
        self._now: Callable[[], float] = asyncio.get_running_loop().time
        self._seldom = Seldom(self._now)
        self._wake = asyncio.Event()
        self._open: Subscribed | None = None
        self._close_at: float | None = None
        self.usable = asyncio.Event()
        self.usable_once = False
        self.reasons = ["NATS is not connected yet"]

    def nats_changed(self, up: bool) -> None:
        """The NATS connection came or went."""
        if up:
            self._log.info("nats_connected", server=self._nats.server)
        else:
            self._log.warning("nats_disconnected")
            self._unusable(["NATS is not connected"])
        self._wake.set()

    def nats_trouble(self, event: str, fields: dict[str, object]) -> None:
        """Something went wrong on the NATS connection; it mends itself, the log says what it was."""
        held = self._seldom.due(event)
        if held is not None:
            self._log.warning(event, **fields, held_back=held)
        if not self._nats.connected:
            self.reasons = [f"NATS is not connected: {self._nats.last_error}"]

    def readers_changed(self) -> None:
        """A reader came or left: the tap may have to open, or to close after a while."""
        if self._hub.readers:
            self._close_at = None
            if self._open is None:
                self._wake.set()
        elif self._open is not None and self._close_at is None:
            self._close_at = self._now() + self._linger_s
            self._wake.set()

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
            if not self._nats.connected:
                continue
            try:
                await self._step()
            except UpstreamError as error:
                self._unusable([self._explained(error)])

    def _next_step_s(self) -> float | None:
        if self._nats.connected and not self.usable.is_set():
            return UNUSABLE_CHECK_S
        if self._close_at is not None:
            return max(0.0, self._close_at - self._now())
        return None

    async def _step(self) -> None:
        if not self.usable.is_set():
            self._examine(await self._api.info())
            if not self.usable.is_set():
                return
        if self._open is None:
            if self._hub.readers:
                await self._start()
        elif self._close_at is not None and self._now() >= self._close_at:
            await self._stop()

    async def _start(self) -> None:
        self._intake.opening()
        subscribed = await self._nats.tap(f"{self._api.shape.live_prefix}.>", self._receive)
        try:
            state = await self._api.info()
        except BaseException:
            await self._nats.untap(subscribed)
            raise
        self._open = subscribed
        for hole in self._intake.begin(state.incarnation, state.last):
            self._found(hole)
        self._hub.opened()
        self._log.debug("tap_opened", head=state.last)
        self.readers_changed()

    async def _stop(self) -> None:
        subscribed, self._open, self._close_at = self._open, None, None
        self._hub.closed()
        self._intake.opening()
        if subscribed is not None:
            await self._nats.untap(subscribed)
        self._log.debug("tap_closed")

    def _receive(self, subject: bytes, headers: bytes | None, payload: bytes) -> None:
        hole = self._intake.receive(subject, headers, payload)
        if hole is not None:
            self._found(hole)
        self._hub.advanced()

    def _found(self, hole: Hole) -> None:
        held = self._seldom.due("hole")
        if held is not None:
            self._log.warning("hole", after=hole.after, before=hole.before, held_back=held)

    def _examine(self, state: StreamState) -> None:
        problems = self._api.shape.problems(state.config)
        if problems:
            self._unusable(problems)
            return
        self.reasons = []
        self.usable_once = True
        self.usable.set()
        self._log.info("stream_usable", stream=self._api.shape.name, last=state.last)

    def _unusable(self, reasons: list[str]) -> None:
        self.usable.clear()
        if reasons != self.reasons:
            self.reasons = reasons
            self._log.warning("not_usable", reasons=reasons)

    def _explained(self, error: UpstreamError) -> str:
        name = self._api.shape.name
        if isinstance(error, UpstreamRefused) and error.code == NO_SUCH_STREAM:
            return f"there is no stream {name}; run: natsgate provision"
        if isinstance(error, UpstreamRefused) and error.code == JETSTREAM_OFF:
            return "this NATS account has no JetStream; enable it in the nats-server configuration: jetstream { }"
        return str(error)
