"""A connection without a network: its socket, its clock and its loop, all turned by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any

from gateway.core.closing import Closing
from gateway.core.feed import Feeds
from gateway.core.guard import Entry, Guard
from gateway.core.hub import Hub
from gateway.core.log import Log
from gateway.core.reader import Tally
from gateway.core.subjects import Filter, parse_filter
from gateway.logs import logger
from gateway.transports import turns as works
from gateway.transports.admission import Admission
from gateway.transports.connection import Connection
from gateway.transports.journal import Journal
from gateway.transports.room import Room
from gateway.transports.sweep import Sweep


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it, and forgives nothing: no write behind the end."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.ended = False
        self.closed = False
        self.reading = True

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        assert not self.ended, "a write behind write_eof"
        assert not self.closed, "a write to a closed transport"
        self.sent += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing waits here."""

    def get_write_buffer_size(self) -> int:
        return 0


class Turns:
    """A loop whose turns are taken by hand."""

    def __init__(self) -> None:
        self.due: list[Callable[[], None]] = []
        self.now = 0.0

    def defer(self, call: Callable[[], None]) -> None:
        self.due.append(call)

    def turn(self) -> None:
        """Call what was deferred until now."""
        due, self.due = self.due, []
        for call in due:
            call()

    def room(self, *, ws_max_message_bytes: int = 0, ws_max_errors: int = 0) -> Room:
        """A room in this loop, whose sweep never comes round."""
        return make_room(
            now=lambda: self.now,
            defer=self.defer,
            later=lambda delay_s, call: None,
            ws_max_message_bytes=ws_max_message_bytes,
            ws_max_errors=ws_max_errors,
        )


class Unwritten(Journal):
    """Writes nothing: a fuzz run would fill a disk."""

    def opened(self, connection: Connection) -> None:
        """Nothing is said."""

    def closed(self, connection: Connection, why: Closing, tally: Tally) -> None:
        """Nothing is said."""

    def rejected(self, reason: str, remote: str, known: Mapping[str, str]) -> None:
        """Nothing is said."""


class OpenDoor:
    """Lets everybody in, to everything below some roots."""

    async def authenticate(self, token: str) -> Guard:
        raise AssertionError(token)

    async def enter(self, guard: Guard) -> Entry:
        raise AssertionError(guard)

    def allow(self, guard: Guard | None, subjects: tuple[str, ...]) -> list[Filter]:
        return [parse_filter(each, ("repo", "task", "user", "inbox")) for each in subjects]


def make_room(
    *,
    now: Callable[[], float],
    defer: Callable[[Callable[[], None]], object],
    later: Callable[[float, Callable[[], None]], object],
    ws_max_message_bytes: int = 0,
    ws_max_errors: int = 0,
) -> Room:
    """A room without a gateway around it. Its stream never comes up, so feeds wait."""

    def failed(error: Exception) -> None:
        raise error

    feeds = Feeds()
    log = Log(0, feeds.tree)
    return Room(
        hub=Hub(log, feeds, defer=defer, now=now, uncovered=lambda reader: None, replay_limit=0),
        sweep=Sweep(0.25, now=now, later=later, failed=failed),
        now=now,
        defer=defer,
        random=Random(1),
        replica="test",
        readers_changed=lambda: None,
        upstream_up=lambda: True,
        revoked=lambda principal: False,
        turns=works.Turns(defer, now, failed),
        journal=Unwritten(logger(), now),
        max_age_s=0,
        inbound_rate=0,
        admission=Admission(most=0, most_per_sub=0, most_per_address=0, memory_full=lambda: False),
        heartbeat_s=15,
        write_timeout_s=20,
        ws_ping_s=25,
        ws_pong_timeout_s=10,
        ws_max_message_bytes=ws_max_message_bytes,
        ws_max_errors=ws_max_errors,
    )


def converse(connection: Connection, turns: Turns, pieces: Iterable[bytes]) -> Wire:
    """Attach the connection to a wire, hand it these bytes as reads, and let it come to rest.

    As the kernel does, it hands over nothing while the connection does not read.
    """
    wire = Wire()
    connection.attach(wire, set())
    for piece in pieces:
        while not wire.reading and turns.due:
            turns.turn()
        if wire.closed or not wire.reading:
            break
        connection.data_received(piece)
    while turns.due:
        turns.turn()
    return wire
