"""uvicorn, and all of its private surface that natsgate stands on. The only module that imports it.

A request comes in through uvicorn and Starlette. An endpoint that wants to keep the socket calls the `natsgate.detach`
extension of its scope with a `Connection`; from then on that object is the transport's protocol, and uvicorn's own
objects for the request go. What this relies on, and what the tests of this module watch (uvicorn 0.52.1 to 0.54):

- `Config(http=, ws=)` take protocol classes, made with (config, server_state, app_state, _loop).
- `HttpToolsProtocol.cycle.disconnected` makes the end of the ASGI task leave the transport alone, and
  `_unset_keepalive_if_required` stops the timer that would close it.
- `handle_websocket_upgrade` hands the head of the request to the WebSocket protocol and forgets what came behind it.
- `WebSocketsSansIOProtocol.run_asgi` closes `self.transport` at its end, so a detached one is given a dead transport.
- `server_state.connections` holds what `Server.shutdown` calls `shutdown()` on and waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import Any, cast

import httptools
import uvicorn
import websockets.http11
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.core.response_headers import OF_DATA
from gateway.transports.connection import Connection

DETACH = "natsgate.detach"
"""The scope extension: a callable that takes a `Connection` and returns nothing."""

SEND_BUFFER_BYTES = 128 * 1024
"""SO_SNDBUF of each connection (the kernel doubles it). Left alone, Linux grows it to 4 MiB per stalled socket."""

KEEPALIVE_S = 30
"""Silence after which the kernel asks whether the peer is still there; three questions without an answer end it."""

KERNEL_PATIENCE_S = 10.0
"""What the kernel waits longer than we do, so that it is us who say why a connection ended."""

EARLY_BYTES = 128 * 1024
"""What a WebSocket client may send before its connection is served; more ends it."""

MOST_WAITING = 4096
"""Connections whose request is not whole yet. Some 20 KiB each, they take 80 MiB at most."""

BACKLOG = 4096
"""Connections that wait to be accepted: the herd of a restart comes at once."""


# uvicorn hands the head of a WebSocket handshake to websockets, whose own limits are narrower (8 KiB a line, 128
# headers) and whose refusal is silence. By then it is within MAX_HEADER_BYTES.
websockets.http11.MAX_LINE_LENGTH = 2**20
websockets.http11.MAX_NUM_HEADERS = 2**16


class _Gone:
    """Stands in for the transport of a protocol that no longer has one."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to close."""

    def write(self, data: bytes) -> None:
        """There is nobody to write to."""


@dataclass
class Limits:
    """What one request may cost before anybody looks at it. uvicorn and httptools have no such limits. They may change
    while the server runs.

    Attributes:
        header_bytes: request line and headers; 0 means no limit.
        request_s: from the connection (or the first byte of a later request) to the whole request; 0 means no limit.
        now: monotonic seconds.
        refused: told of the reason of each refusal.
        waiting: connections whose request is not whole yet, the oldest first. They leave it at once when it is: what
            held on to them would keep every one of a herd in memory.
    """

    header_bytes: int
    request_s: float
    now: Callable[[], float]
    refused: Callable[[str], None]
    waiting: dict[HttpProtocol, None] = field(default_factory=dict)

    @property
    def gone(self) -> bool:
        """For the sweep: these limits hold as long as the server runs."""
        return False

    def swept(self, now: float) -> None:
        """For the sweep: requests that are not whole in time end their connections."""
        for each in [each for each in self.waiting if now >= each.due]:
            del self.waiting[each]
            each.too_late()

    def wait_for(self, each: HttpProtocol) -> None:
        """A connection begins to wait for a request. Where too many do, the oldest is given up: those who mean it are
        done in no time, and those who only hold the door are the oldest."""
        self.waiting.pop(each, None)
        self.waiting[each] = None
        if len(self.waiting) > MOST_WAITING:
            oldest = next(iter(self.waiting))
            del self.waiting[oldest]
            self.refused("too_many_waiting")
            oldest.transport.abort()


_REFUSALS = {
    400: ("bad_http", "Bad Request", "This is no HTTP/1.1 request."),
    426: (
        "websocket_version",
        "Upgrade Required",
        "WebSocket is served in version 13 (RFC 6455); send Sec-WebSocket-Version: 13.",
    ),
    408: ("request_timeout", "Request Timeout", "The request did not come in time."),
    431: (
        "headers_too_large",
        "Request Header Fields Too Large",
        "The request line and headers are too large; long cookies often are why.",
    ),
}

_REFUSAL_HEADERS = {426: b"connection: close, upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n"}
"""Beside `connection: close`: RFC 6455, section 4.4, and RFC 9110, section 15.5.22."""


_HEADERS = "".join([f"{name}: {value}\r\n" for name, value in OF_DATA.items()]).encode("ascii")


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 by uvicorn, within limits, whose connections can be detached."""

    limits: Limits
    due: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._head_bytes = 0
        self._in_head = True
        self._refusal = 400
        self._wait_for_request()

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.waiting.pop(self, None)
        super().connection_lost(exc)

    def _wait_for_request(self) -> None:
        self.due = self.limits.now() + self.limits.request_s if self.limits.request_s else math.inf
        self.limits.wait_for(self)

    def too_late(self) -> None:
        """The request did not come in time."""
        cycle = cast("RequestResponseCycle | None", self.cycle)
        if self._head_bytes or (cycle is not None and not cycle.response_started):
            self._refuse(408)
        else:
            self.transport.close()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._wait_for_request()

    def on_message_complete(self) -> None:
        self.limits.waiting.pop(self, None)
        self._head_bytes = 0
        super().on_message_complete()

    def handle_websocket_upgrade(self) -> None:
        self.limits.waiting.pop(self, None)
        if [value for name, value in self.headers if name == b"sec-websocket-version"] != [b"13"]:
            self._refuse(426)
            return
        super().handle_websocket_upgrade()
        protocol = cast(WebSocketProtocol, self.transport.get_protocol())
        if not protocol.handshake_initiated:
            self._refuse(400)  # the parser of handshakes gave up on it, without a word

    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self.limits.header_bytes and size > self.limits.header_bytes:
            self._refusal = 431
            raise ValueError("headers too large")  # httptools stops parsing and reports it to data_received
        super().on_headers_complete()
        # Of this request's cycle: a pipelined one may have taken its place by the time the endpoint runs.
        detach = partial(self._detach, self.cycle)
        self.scope["extensions"] = cast("dict[str, dict[object, object]]", {DETACH: detach})

    def data_received(self, data: bytes) -> None:
        # As uvicorn's, but what a WebSocket client sent right behind its handshake is not forgotten.
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if self._should_upgrade():
                self.handle_websocket_upgrade()
                rest = data[upgrade.args[0] :]
                protocol = self.transport.get_protocol()
                if rest and isinstance(protocol, WebSocketProtocol):
                    protocol.data_received(rest)
            else:
                self._unsupported_upgrade_warning()
        except httptools.HttpParserError:
            self._refuse(self._refusal)
        else:
            cycle = cast("RequestResponseCycle | None", self.cycle)
            if (cycle is None or cycle.response_complete) and self not in self.limits.waiting:
                self._wait_for_request()  # a stray line break stopped the keep-alive timer and began no request
            if self._in_head:
                self._head_bytes += len(data)
                if self.limits.header_bytes and self._head_bytes > self.limits.header_bytes:
                    self._refuse(431)

    def _refuse(self, status: int) -> None:
        """Answer what uvicorn never gets to see, as `application/problem+json` (RFC 9457), and close."""
        reason, title, detail = _REFUSALS[status]
        self.limits.refused(reason)
        content = b'{"type":"about:blank","title":"%b","status":%d,"detail":"%b"}' % (
            title.encode("ascii"),
            status,
            detail.encode("ascii"),
        )
        self.transport.write(
            b"HTTP/1.1 %d %b\r\ncontent-type: application/problem+json\r\ncontent-length: %d\r\n"
            b"%b%b\r\n%b"
            % (
                status,
                title.encode("ascii"),
                len(content),
                _HEADERS,
                _REFUSAL_HEADERS.get(status, b"connection: close\r\n"),
                content,
            )
        )
        self.transport.close()

    def _detach(self, cycle: RequestResponseCycle, connection: Connection) -> None:
        cycle.disconnected = True
        if self.transport.is_closing():
            return  # the client went while its request was looked at
        self._unset_keepalive_if_required()
        self.limits.waiting.pop(self, None)
        transport, self.transport = self.transport, cast(asyncio.Transport, _Gone())
        self.connections.discard(self)
        self.pipeline.clear()
        _hand_over(transport, connection, cast("set[object]", self.connections))


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket handshake by uvicorn; the connection that follows is detached."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._early = bytearray()

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast("dict[str, object]", self.scope["extensions"])[DETACH] = self._detach

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)
        elif len(self._early) + len(data) > EARLY_BYTES:
            self.transport.abort()
        else:
            self._early += data  # parsed by whoever takes the connection over

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # answered: uvicorn would log a denial as an application's fault

    def _detach(self, connection: Connection) -> None:
        if self.transport.is_closing():
            return  # the client went while its handshake was looked at
        self.stop_keepalive()
        transport, self.transport = self.transport, cast(asyncio.Transport, _Gone())
        self.disconnected = True
        self.connections.discard(self)
        _hand_over(transport, connection, cast("set[object]", self.connections))
        if self._early and connection.transport is not None:
            connection.data_received(bytes(self._early))


def _hand_over(transport: asyncio.Transport, connection: Connection, connections: set[object]) -> None:
    transport.set_protocol(connection)
    if not transport.is_reading():
        transport.resume_reading()  # or nobody would notice that the client goes
    connection.attach(transport, connections)


def bind(host: str, port: int, *, write_timeout_s: float = 0) -> socket.socket:
    """A listening socket whose options every accepted connection inherits.

    Args:
        host, port: the address; port 0 is any free one.
        write_timeout_s: after how long without one byte accepted a client is given up; 0: never. The kernel's own
            limit lies behind it, for peers that are gone without a word.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        if sys.platform == "linux":
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_S)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE_S // 3)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
            if write_timeout_s:
                patience_ms = int((write_timeout_s + KERNEL_PATIENCE_S) * 1000)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, min(patience_ms, 2**31 - 1))
        sock.bind((host, port))
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class HttpServer(uvicorn.Server):
    """uvicorn's server: we own the signals, and draining happens before its shutdown.

    Args:
        app: the ASGI application.
        limits: what a request may cost.
        on_signal: called for SIGINT and SIGTERM, from the loop.
        graceful_s: how long open connections may take to go at the end.
    """

    def __init__(self, app: object, limits: Limits, *, on_signal: Callable[[], None] | None, graceful_s: int) -> None:
        super().__init__(
            uvicorn.Config(
                cast(ASGI3Application, app),
                http=type("LimitedHttpProtocol", (HttpProtocol,), {"limits": limits}),
                ws=WebSocketProtocol,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_graceful_shutdown=graceful_s,
            )
        )
        self._on_signal = on_signal
        self._loop = asyncio.get_running_loop()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        if self._on_signal is None:
            yield
            return
        with super().capture_signals():
            yield

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        # Not remembered in `_captured_signals`: uvicorn would raise it again at the end, and a drained exit is 0.
        assert self._on_signal is not None
        self._loop.call_soon_threadsafe(self._on_signal)
