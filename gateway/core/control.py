"""Control messages: what the gateway itself has to say in between events, before a dialect spells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gateway.core.closing import Closing

GapReason = Literal["expired", "recreated", "ahead", "too_far"]
"""Why events are gone: older than the stream keeps, of an earlier life of the stream, a cursor that the stream has
not reached (it was restored to an earlier state), or more of them than a client may replay."""


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


def gap(reason: GapReason, begin: bytes | None, end: bytes, *, moves: bool) -> Control:
    """Events are gone for this client.

    Args:
        reason: why.
        begin, end: cursors; everything in (begin, end] is gone. `begin` None: it means nothing here.
        moves: whether the client stands at `end` from now on. Where a snapshot follows it does not yet: a client
            that is cut within the snapshot has to come back to the same gap, and to the whole snapshot.
    """
    fields = {"reason": reason, "from": None if begin is None else begin.decode("ascii"), "to": end.decode("ascii")}
    return Control("gap", fields, end if moves else None, of_feed=True)


def cursor(where: bytes) -> Control:
    """Nothing came for a while; this is where the client stands, so that its cursor does not age out."""
    return Control("cursor", {"cursor": where.decode("ascii")}, where, of_feed=True)


def state(upstream_up: bool) -> Control:
    """NATS went, or came back."""
    return Control("state", {"upstream": "up" if upstream_up else "down"})


def closing(why: Closing, retry_ms: int) -> Control:
    """The server is about to end the connection. `retry_ms`: how long the client is asked to wait."""
    return Control("closing", {"reason": why.reason, "reconnect": why.reconnect, "retry_ms": retry_ms})
