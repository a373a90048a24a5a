"""Early refusals: the answers to requests that uvicorn never gets to see, as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from gateway.core.errors import Rejection
from gateway.core.response_headers import OF_DATA


class Refusal(NamedTuple):
    """An answer behind which the connection ends.

    Attributes:
        reason: for metrics and the log: from a closed set.
        status, title: of its status line.
        headers: all of them.
        content: the problem.
    """

    reason: Rejection
    status: int
    title: str
    headers: dict[str, str]
    content: bytes

    @property
    def data(self) -> bytes:
        """All of it, as it is sent."""
        headers = "".join([f"{name}: {value}\r\n" for name, value in self.headers.items()])
        return f"HTTP/1.1 {self.status} {self.title}\r\n{headers}\r\n".encode("ascii") + self.content


_VERSION = {"connection": "close, upgrade", "upgrade": "websocket", "sec-websocket-version": "13"}
"""RFC 6455, section 4.4, and RFC 9110, section 15.5.22."""


def _made(reason: Rejection, status: int, title: str, detail: str, more: Mapping[str, str] | None = None) -> Refusal:
    content = f'{{"type":"about:blank","title":"{title}","status":{status},"detail":"{detail}"}}'.encode("ascii")
    headers = {"content-type": "application/problem+json", "content-length": str(len(content)), **OF_DATA}
    return Refusal(reason, status, title, headers | {"connection": "close", **(more or {})}, content)


BAD_HTTP = _made("bad_http", 400, "Bad Request", "This is no HTTP/1.1 request.")
NO_HOST = _made(
    "bad_http", 400, "Bad Request", "Send one Host header, a host with or without a port (RFC 9112, section 3.2)."
)
BAD_HANDSHAKE = _made(
    "bad_http",
    400,
    "Bad Request",
    "This is no WebSocket handshake (RFC 6455, section 4.2.1): look at Connection, Upgrade, Sec-WebSocket-Key and "
    "Sec-WebSocket-Protocol.",
)
OLD_HTTP = _made(
    "bad_http", 505, "HTTP Version Not Supported", "WebSocket needs HTTP/1.1 (RFC 6455, section 4.1); send HTTP/1.1."
)
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
