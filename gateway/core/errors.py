"""What can go wrong, drawn as a tree; the branches say who can mend it.

GatewayError
├── ClientError            the client asked for something it cannot have; answered, never logged as a fault
│   ├── BadRequest         400: malformed (filter, cursor, query, op); the detail says what would work
│   ├── Unauthorized       401: no token, or one that is not taken
│   ├── Forbidden          403: understood, not allowed
│   │   └── BadOrigin      403: a page of an origin that is not ours sent it
│   ├── NotFound           404: no such route
│   │   └── Hidden         404: there is one, but a service says that this client is not to know
│   ├── UpgradeRequired    426: a WebSocket path, asked for without an upgrade
│   ├── Unprocessable      422: well-formed, but a needed field is missing
│   └── ComeBack           503 or 429: not now; the client is to come again
├── UpstreamError          NATS is away, slow, or answered with an error; retried by us
│   ├── UpstreamAway       no connection, no responder or no answer in time
│   └── UpstreamRefused    the server answered with an error: `code` and `description` are its own
└── ConfigError            settings are wrong: a line for each in `problems`, exit code 2
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from gateway.core.closing import Closing

AuthFailure = Literal[
    "missing", "malformed", "unknown_key", "signature", "expired", "not_yet", "issuer", "audience", "claims", "revoked",
    "ticket", "ticket_path", "access_token_off", "origin",
]  # fmt: skip
"""Why somebody was not let in, for metrics: a closed set."""

Rejection = Literal[
    "bad_request", "bad_cursor", "too_many_filters", "unauthorized", "forbidden", "bad_origin", "not_found",
    "upgrade_required", "unprocessable", "draining", "limit_connections", "overloaded", "bad_method", "bad_http",
    "websocket_version", "request_timeout", "headers_too_large", "too_many_pipelined", "too_many_waiting",
    "no_descriptors", "sent_too_early",
]  # fmt: skip
"""Why a request became no connection, for metrics: a closed set."""

MessageError = Literal[
    "already_subscribed", "bad_data", "bad_json", "not_accepted", "not_stored", "not_subscribed", "not_text",
    "protocol_error", "too_large", "too_many_subscriptions", "unknown_op",
]  # fmt: skip
"""What can be wrong with a message over a connection that there is already."""

ErrorCode = Rejection | MessageError
"""The `code` of WebSocket `error` frames."""


class GatewayError(Exception):
    """Base of all errors that natsgate raises itself."""


class ClientError(GatewayError):
    """A request that cannot be served.

    Attributes:
        status: the HTTP status (RFC 9110) of the answer.
        code: the short stable name used in WebSocket `error` frames.
        detail: one sentence: what is wrong, where, and how to mend it.
        closing: how a WebSocket learns of it, since a page cannot see the status of a handshake: it is accepted, then
            closed with this. None: the handshake itself is refused.
    """

    status = 400
    code: ErrorCode = "bad_request"
    title = "Bad Request"
    closing: Closing | None = None

    def __init__(self, detail: str, *, code: ErrorCode | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class BadRequest(ClientError):
    """The request is malformed."""


class Unauthorized(ClientError):
    """There is no token, or it is not taken.

    Attributes:
        reason: why, for metrics. `missing` where there was none.
    """

    status = 401
    code = "unauthorized"
    title = "Unauthorized"
    closing = Closing.UNAUTHORIZED

    def __init__(self, detail: str, *, reason: AuthFailure, closing: Closing = Closing.UNAUTHORIZED) -> None:
        super().__init__(detail)
        self.reason = reason
        self.closing = closing


class Forbidden(ClientError):
    """The request is understood and not allowed for this principal."""

    status = 403
    code: ErrorCode = "forbidden"
    title = "Forbidden"
    closing: Closing | None = Closing.FORBIDDEN


class BadOrigin(Forbidden):
    """A page of another origin sent the request, and the browser what identifies its user."""

    code = "bad_origin"
    closing = None


class NotFound(ClientError):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"
    title = "Not Found"


class Hidden(NotFound):
    """What the path names does not exist, or is not this client's: a service does not say which."""

    closing = Closing.NOT_FOUND


class UpgradeRequired(ClientError):
    """The path is for WebSocket, and the request is not one."""

    status = 426
    code = "upgrade_required"
    title = "Upgrade Required"


class Unprocessable(ClientError):
    """The content is well-formed, but something that is needed is missing from it."""

    status = 422
    code = "unprocessable"
    title = "Unprocessable Content"


_LATER: Mapping[Closing, Rejection] = {
    Closing.DRAINING: "draining",
    Closing.LIMIT_CONNECTIONS: "limit_connections",
    Closing.OVERLOADED: "overloaded",
}


class ComeBack(ClientError):
    """It cannot be served now; the client is to come again. An EventSource dies of any status but 200, so it is
    answered with a stream that ends at once.

    Attributes:
        why: the reason, as in `natsgate.closing`: `DRAINING`, `LIMIT_CONNECTIONS` or `OVERLOADED`.
    """

    status = 503
    title = "Service Unavailable"

    def __init__(self, detail: str, *, why: Closing = Closing.OVERLOADED, too_many: bool = False) -> None:
        super().__init__(detail, code=_LATER[why])
        self.why = why
        self.closing = why
        if too_many:  # of this client's: RFC 6585, section 4
            self.status, self.title = 429, "Too Many Requests"


class UpstreamError(GatewayError):
    """NATS could not do what was asked of it."""


class UpstreamAway(UpstreamError):
    """No connection, no responder, or no answer in time: worth another try later."""


class UpstreamRefused(UpstreamError):
    """The NATS server answered with an error.

    Attributes:
        code: the JetStream API error code (`err_code`, or the HTTP-like `code` where there is none).
        description: the server's own words.
    """

    def __init__(self, code: int, description: str) -> None:
        super().__init__(f"{description} ({code})")
        self.code = code
        self.description = description


class ConfigError(GatewayError):
    """A setting is wrong. The text is one line: which setting, what is wrong, what would be right.

    Names and values of settings may hold anything; what a terminal would not show is written as an escape.

    Attributes:
        problems: a line for each setting that is wrong. The text is the first, and says how many more there are.
    """

    def __init__(self, *problems: str) -> None:
        self.problems = [
            "".join([char if char.isprintable() else ascii(char)[1:-1] for char in each]) for each in problems
        ]
        more = len(problems) - 1
        super().__init__(self.problems[0] + (f" (and {more} more; natsgate check names all)" if more else ""))
