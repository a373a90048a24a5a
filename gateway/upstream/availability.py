"""Availability: whether NATS and the stream can be used, and why not."""

from __future__ import annotations

import asyncio

from gateway.core.errors import UpstreamAway, UpstreamError, UpstreamRefused
from gateway.core.stream import JETSTREAM_OFF, NO_SUCH_STREAM, StreamShape, StreamState
from gateway.core.violation import Lacking
from gateway.logs import Logger, Seldom
from gateway.upstream.connection import NatsConnection

SAID_AGAIN_S = 60.0
"""How often the log is told at most that NATS is not connected for another reason: each server of several may have its
own, again and again."""

_MEND = "check NATSGATE_NATS_URL, the login (NATSGATE_NATS_*), and that nats-server runs"


class Availability:
    """What is known of it now. The log is told when it changes.

    Args:
        nats: the connection of live messages.
        shape: what the stream is to be.
        log: for lines about NATS and the stream.

    Attributes:
        usable: set while NATS and the stream can be used.
        usable_once: whether they could be used at some time since the start.
        reasons: why they cannot be used now, each with its mend.
    """

    def __init__(self, nats: NatsConnection, shape: StreamShape, log: Logger) -> None:
        self._nats = nats
        self._shape = shape
        self._log = log
        self._seldom = Seldom(asyncio.get_running_loop().time)
        self._away_seldom = Seldom(asyncio.get_running_loop().time, interval_s=SAID_AGAIN_S)
        self._lacking = Lacking(
            ("publish", f"$JS.API.{verb}.{shape.name}") for verb in ("STREAM.INFO", "STREAM.MSG.GET", "DIRECT.GET")
        )
        self.usable = asyncio.Event()
        self.usable_once = False
        self.reasons = ["NATS is not connected yet"]

    def nats_changed(self, up: bool) -> None:
        """The NATS connection came or went."""
        if up:
            self._log.info("nats_connected", server=self._nats.server)
        else:
            self._log.warning("nats_disconnected")
            self._lacking.forget()
            self.unusable(["NATS is not connected"])

    def nats_trouble(self, event: str, fields: dict[str, object]) -> None:
        """Something went wrong on the NATS connection; it mends itself, the log says what it was."""
        self._lacking.hear(str(fields.get("error", "")))
        held = self._seldom.due(event)
        if held is not None:
            self._log.warning(event, **fields, held_back=held)
        if not self._nats.connected and self._nats.last_error:
            self._away()

    def examine(self, state: StreamState) -> None:
        """The stream's leader has said what the stream is."""
        problems = self._shape.problems(state.config)
        if problems:
            self.unusable(problems)
            return
        self.reasons = []
        self._lacking.forget()
        self.usable_once = True
        self.usable.set()
        self._log.info("stream_usable", stream=self._shape.name, last=state.last)

    def failed(self, error: UpstreamError) -> None:
        """Something was asked of NATS or the stream in vain."""
        self.unusable([self._explained(error)])

    def unusable(self, reasons: list[str]) -> None:
        """They cannot be used, for these reasons."""
        self.usable.clear()
        if reasons != self.reasons:
            self.reasons = reasons
            self._log.warning("not_usable", reasons=reasons)

    def _away(self) -> None:
        reasons = [self._not_connected()]
        if reasons != self.reasons:
            self.reasons = reasons
            if self._away_seldom.due("not_usable") is not None:
                self._log.warning("not_usable", reasons=reasons)

    def _not_connected(self) -> str:
        return f"NATS is not connected: {self._nats.last_error}; {_MEND}"

    def _explained(self, error: UpstreamError) -> str:
        name = self._shape.name
        if isinstance(error, UpstreamRefused) and error.code == NO_SUCH_STREAM:
            return f"there is no stream {name}; run: {self._shape.provision}"
        if isinstance(error, UpstreamRefused) and error.code == JETSTREAM_OFF:
            return "this NATS account has no JetStream; enable it in the nats-server configuration: jetstream { }"
        if isinstance(error, UpstreamAway) and not self._nats.connected:
            return self._not_connected()
        return "; ".join(self._lacking.reasons()) or str(error)
