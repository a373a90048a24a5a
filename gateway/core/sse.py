"""Server-Sent Events on the wire (WHATWG HTML, section 9.2), as HTTP/1.1 chunks (RFC 9112, section 7.1)."""

from __future__ import annotations

RESPONSE_HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"content-type: text/event-stream; charset=utf-8\r\n"
    b"cache-control: no-store, no-transform\r\n"
    b"x-accel-buffering: no\r\n"
    b"x-content-type-options: nosniff\r\n"
    b"referrer-policy: no-referrer\r\n"
    b"transfer-encoding: chunked\r\n"
)
"""The status line and the headers of a stream, without the blank line that ends them."""

LAST_CHUNK = b"0\r\n\r\n"


MEDIA_TYPE = "text/event-stream"


def chunk(body: bytes) -> bytes:
    """One HTTP chunk. `body` is not empty: an empty chunk would end the response."""
    return b"%x\r\n%b\r\n" % (len(body), body)


HEARTBEAT = chunk(b":\n\n")
"""A comment: keeps proxies and half-open detection awake, invisible to EventSource."""


def retry(milliseconds: int) -> bytes:
    """The `retry:` field: how long EventSource waits before it comes back.

    It takes effect with its line. The block is left open for the fields of the next event: clients that are less
    strict than the standard would make an empty event of a block of its own.
    """
    return b"retry: %d\n" % milliseconds


def block(name: bytes, data: bytes, cursor: bytes | None) -> bytes:
    """One named block. `name`, `data` and `cursor` are our own and hold no line break.

    Firefox forgets an `id:` that comes without `data:`, so there always is a data line.
    """
    if cursor is None:
        return b"event: %b\ndata: %b\n\n" % (name, data)
    return b"event: %b\nid: %b\ndata: %b\n\n" % (name, cursor, data)
