"""The room: what all connections share. One of it, so that a connection itself holds next to nothing."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from itertools import count, product
from random import Random
from typing import Any, Literal, get_args

from gateway.core.closing import Closing
from gateway.core.dialect import Transport
from gateway.core.errors import ErrorCode, Rejection
from gateway.core.hub import Hub
from gateway.core.rights import Principal
from gateway.transports.admission import Admission
from gateway.transports.journal import Journal
from gateway.transports.sweep import Sweep
from gateway.transports.turns import Turns

Way = Literal["ws"]
"""How a client's event came."""

Published = Literal["stored", "refused", "unknown"]
"""What became of it."""


@dataclass(slots=True)
class Room:
    """Everything that connections have in common.

    Attributes:
        hub: moves their readers.
        sweep: looks at each of them about once a second.
        turns: spreads what many of them need done in one moment.
        now: monotonic seconds.
        defer: calls a callable in one of the next turns of the loop, which those who flood share.
        random: for jitter.
        replica: this replica's name.
        readers_changed: called after a reader came or left.
        revoked: whether a principal's token was revoked.
        upstream_up: whether NATS and the stream can be used.
        journal: tells the log who came and went.
        heartbeat_s, write_timeout_s, max_age_s, ws_ping_s, ws_pong_timeout_s, ws_max_message_bytes, ws_max_errors,
            inbound_rate: settings; they may change while it is open.
        admission: counts connections, and turns away those that are too many.
        opened, closed, current: counts by (transport, route), (transport, reason), (transport, route).
        rejected: requests that became no connection, by reason.
        tasks: what runs for connections besides the loop's callbacks: at most one each, rarely.
        published: events of clients, by (way, outcome).
        unread_bytes: what WebSocket clients have sent of messages that are not whole, wait, or are not stored yet.
    """

    hub: Hub
    sweep: Sweep
    turns: Turns
    now: Callable[[], float]
    defer: Callable[[Callable[[], None]], object]
    random: Random
    replica: str
    readers_changed: Callable[[], None]
    revoked: Callable[[Principal], bool]
    upstream_up: Callable[[], bool]
    journal: Journal
    heartbeat_s: float
    write_timeout_s: float
    max_age_s: float
    ws_ping_s: float
    ws_pong_timeout_s: float
    ws_max_message_bytes: int
    ws_max_errors: int
    inbound_rate: float
    admission: Admission
    opened: Counter[tuple[str, str]] = field(default_factory=Counter)
    closed: Counter[tuple[str, str]] = field(
        default_factory=lambda: _none_of(get_args(Transport), [why.reason for why in Closing])
    )
    current: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[ErrorCode] = field(default_factory=lambda: Counter(dict.fromkeys(get_args(Rejection), 0)))
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    published: Counter[tuple[str, str]] = field(default_factory=lambda: _none_of(get_args(Way), get_args(Published)))
    unread_bytes: int = 0
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: count[int] = field(default_factory=count)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something that a connection has to wait for: a token's keys, a service's answer."""
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def new_id(self) -> str:
        """A name for a connection, unique among all replicas."""
        return f"{self._prefix}-{next(self._numbers):x}"

    def reject(self, reason: ErrorCode, remote: str = "", **known: str) -> None:
        """Count a request that becomes no connection, and log it with what is known of it."""
        self.rejected[reason] += 1
        self.journal.rejected(reason, remote, known)


def _none_of(ones: Iterable[str], others: Iterable[str]) -> Counter[Any]:
    return Counter(dict.fromkeys(product(ones, others), 0))
