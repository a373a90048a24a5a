"""Control messages: what the gateway itself has to say in between events, before a dialect spells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from gateway.core.closing import Closing


@dataclass(frozen=True, slots=True)
class Control:
    """One control message.

    Attributes:
        name: `ready`, `gap`, `cursor`, `state` or `closing`.
        fields: its JSON fields.
        cursor: where the client stands once it has read this; None where it moves nobody.
        of_feed: whether it speaks of one feed (else of the connection).
    """

    name: str
    fields: dict[str, Any]
    cursor: bytes | None = None
    of_feed: bool = False


def ready(cursor: bytes, replayed: int, snapshot: int) -> Control:
    """Replay is done; events are live from here. `replayed` and `snapshot` count events."""
    fields = {"cursor": cursor.decode("ascii"), "replayed": replayed, "snapshot": snapshot}
    return Control("ready", fields, cursor, of_feed=True)


def state(upstream_up: bool) -> Control:
    """NATS went, or came back."""
    return Control("state", {"upstream": "up" if upstream_up else "down"})


def closing(why: Closing, retry_ms: int) -> Control:
    """The server is about to end the connection. `retry_ms`: how long the client is asked to wait."""
    return Control("closing", {"reason": why.reason, "reconnect": why.reconnect, "retry_ms": retry_ms})
