"""Early refusals: the answers to requests that uvicorn never gets to see, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.response_headers import OF_DATA


class Refusal(NamedTuple):
    """An answer behind which the connection ends.

    Attributes:
        reason: for metrics and the log: from a closed set.
        data: all of it, as it is sent.
    """

    reason: str
    data: bytes


_HEADERS = "".join([f"{name}: {value}\r\n" for name, value in OF_DATA.items()])
_CLOSE = "connection: close\r\n"
_VERSION = "connection: close, upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"
"""RFC 6455, section 4.4, and RFC 9110, section 15.5.22."""


def _made(reason: str, status: int, title: str, detail: str, headers: str = _CLOSE) -> Refusal:
    content = f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}"}}'
    head = (
        f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\ncontent-length: {len(content)}\r\n"
        f"{_HEADERS}{headers}\r\n"
    )
    return Refusal(reason, (head + content).encode("ascii"))


BAD_HTTP = _made("bad_http", 400, "Bad Request", "This is no HTTP/1.1 request.")
TOO_LATE = _made("request_timeout", 408, "Request Timeout", "The request did not come in time.")
WRONG_VERSION = _made(
    "websocket_version",
    426,
    "Upgrade Required",
    "WebSocket is served in version 13 (RFC 6455); send Sec-WebSocket-Version: 13.",
    _VERSION,
)
TOO_MANY = _made(
    "too_many_pipelined",
    429,
    "Too Many Requests",
    "More requests came at once than this server takes; wait for the answers.",
)
TOO_LARGE = _made(
    "headers_too_large",
    431,
    "Request Header Fields Too Large",
    "The request line and headers are too large; long cookies often are why.",
)
