"""What can go wrong, drawn as a tree; the branches say who can mend it.

GatewayError
├── ClientError            the client asked for something it cannot have; answered, never logged as a fault
│   ├── BadRequest         400: malformed (filter, cursor, query, op); `mend` says what would work
│   ├── Forbidden          403: understood, not allowed
│   ├── NotFound           404: no such route
│   └── Unprocessable      422: well-formed, but a needed field is missing
├── UpstreamError          NATS is away, slow, or answered with an error; retried by us
│   ├── UpstreamAway       no connection, no responder or no answer in time
│   └── UpstreamRefused    the server answered with an error: `code` and `description` are its own
└── ConfigError            a setting is wrong: one line, exit code 2
"""

from __future__ import annotations


class GatewayError(Exception):
    """Base of all errors that natsgate raises itself."""


class ClientError(GatewayError):
    """A request that cannot be served.

    Attributes:
        status: the HTTP status (RFC 9110) of the answer.
        code: the short stable name used in WebSocket `error` frames.
        detail: one sentence: what is wrong, where, and how to mend it.
    """

    status = 400
    code = "bad_request"
    title = "Bad Request"

    def __init__(self, detail: str, *, code: str | None = None) -> None:
        super().__init__(detail)
        self.detail = detail
        if code is not None:
            self.code = code


class BadRequest(ClientError):
    """The request is malformed."""


class Forbidden(ClientError):
    """The request is understood and not allowed for this principal."""

    status = 403
    code = "forbidden"
    title = "Forbidden"


class NotFound(ClientError):
    """Nothing is served at this path."""

    status = 404
    code = "not_found"
    title = "Not Found"


class Unprocessable(ClientError):
    """The content is well-formed, but something that is needed is missing from it."""

    status = 422
    code = "unprocessable"
    title = "Unprocessable Content"


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
    """

    def __init__(self, text: str) -> None:
        super().__init__("".join([char if char.isprintable() else ascii(char)[1:-1] for char in text]))
