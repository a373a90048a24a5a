"""Why a connection ends: one table, shared by close codes, `natsgate.closing`, logs and metrics."""

from __future__ import annotations

from enum import Enum


class Closing(Enum):
    """A reason for ending a connection.

    Attributes:
        reason: the name in `natsgate.closing`, in logs and in the metric's label.
        code: the WebSocket close code (RFC 6455 section 7.4, IANA's registry, 4000-4999 our own); 0 where
            the peer ended it.
        reconnect: whether the client should come back.
    """

    DONE = ("done", 1000, False)
    DRAINING = ("draining", 1012, True)
    OVERLOADED = ("overloaded", 1013, True)
    LIMIT_CONNECTIONS = ("limit_connections", 1013, True)
    RATE_LIMITED = ("rate_limited", 1013, True)
    SLOW = ("slow", 4100, True)
    GAP = ("gap", 4100, True)
    MAX_AGE = ("max_age", 4200, True)
    TOKEN_EXPIRED = ("token_expired", 3000, True)
    UNAUTHORIZED = ("unauthorized", 3000, True)
    FORBIDDEN = ("forbidden", 3003, False)
    REVOKED = ("revoked", 3003, False)
    HEARTBEAT_TIMEOUT = ("heartbeat_timeout", 3008, True)
    NOT_FOUND = ("not_found", 4404, False)
    PROTOCOL_ERROR = ("protocol_error", 1002, False)
    BAD_DATA = ("bad_data", 1007, False)
    TOO_LARGE = ("too_large", 1009, False)
    POLICY = ("policy", 1008, False)
    INTERNAL_ERROR = ("internal_error", 1011, True)
    CLIENT_CLOSED = ("client_closed", 0, True)

    def __init__(self, reason: str, code: int, reconnect: bool) -> None:
        self.reason = reason
        self.code = code
        self.reconnect = reconnect
