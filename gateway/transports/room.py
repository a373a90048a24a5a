"""The room: what all connections share. One of it, so that a connection itself holds next to nothing."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from random import Random

from gateway.core.hub import Hub
from gateway.transports.sweep import Sweep


@dataclass(slots=True)
class Room:
    """Everything that connections have in common.

    Attributes:
        hub: moves their readers.
        sweep: looks at each of them about once a second.
        now: monotonic seconds.
        defer: calls a callable in the next turn of the loop.
        random: for jitter.
        replica: this replica's name.
        readers_changed: called after a reader came or left.
        upstream_up: whether NATS and the stream can be used.
        heartbeat_s, write_timeout_s, ws_ping_s, ws_pong_timeout_s, ws_max_message_bytes, ws_max_errors: settings.
        opened, closed, current: counts by (transport, route), (transport, reason), (transport, route).
        rejected: requests that became no connection, by reason.
    """

    hub: Hub
    sweep: Sweep
    now: Callable[[], float]
    defer: Callable[[Callable[[], None]], object]
    random: Random
    replica: str
    readers_changed: Callable[[], None]
    upstream_up: Callable[[], bool]
    heartbeat_s: float
    write_timeout_s: float
    ws_ping_s: float
    ws_pong_timeout_s: float
    ws_max_message_bytes: int
    ws_max_errors: int
    opened: Counter[tuple[str, str]] = field(default_factory=Counter)
    closed: Counter[tuple[str, str]] = field(default_factory=Counter)
    current: Counter[tuple[str, str]] = field(default_factory=Counter)
    rejected: Counter[str] = field(default_factory=Counter)
    _prefix: str = field(default_factory=lambda: secrets.token_hex(4))
    _numbers: count[int] = field(default_factory=count)

    def new_id(self) -> str:
        """A name for a connection, unique among all replicas."""
        return f"{self._prefix}-{next(self._numbers):x}"
