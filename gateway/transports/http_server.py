"""uvicorn, and all of its private surface that natsgate stands on. The only module that imports it.

A request comes in through uvicorn and Starlette. An endpoint that wants to keep the socket calls the `natsgate.detach`
extension of its scope with a `Connection`; from then on that object is the transport's protocol, and uvicorn's own
objects for the request go. What this relies on, and what the tests of this module watch (uvicorn 0.52.1 to 0.54):

- `Config(http=, ws=)` take protocol classes, made with (config, server_state, app_state, _loop).
- `HttpToolsProtocol.cycle.disconnected` makes the end of the ASGI task leave the transport alone, and
  `_unset_keepalive_if_required` stops the timer that would close it.
- `_start_asgi_task` begins each request, also those that waited in `pipeline` for the answer to the one before, which
  `on_response_complete` takes from there; `connection_lost` tells `cycle` only, the newest one.
- `handle_websocket_upgrade` hands the head of the request to the WebSocket protocol and forgets what came behind it.
- `WebSocketsSansIOProtocol.run_asgi` closes `self.transport` at its end, so a detached one is given a dead transport.
- `HttpToolsProtocol.flow.write_paused` and `WebSocketsSansIOProtocol.writable` say whether the socket is full.
- `server_state.connections` holds what `Server.shutdown` calls `shutdown()` on and waits for.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import socket
from collections.abc import Callable, Generator
from functools import partial
from http import HTTPStatus
from types import FrameType
from typing import Any, cast

import httptools
import uvicorn
import websockets.datastructures
import websockets.http11
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

from gateway.core.host_header import says_whose_it_is
from gateway.transports import early
from gateway.transports.connection import Connection
from gateway.transports.early import Refusal
from gateway.transports.hand_over import Gone, hand_over
from gateway.transports.limits import EARLY_BYTES, KEEP_ALIVE_S, MOST_EARLY_BYTES, MOST_PIPELINED, Limits
from gateway.transports.sockets import BACKLOG

DETACH = "natsgate.detach"
"""The scope extension: a callable that takes a `Connection` and returns nothing."""

PIECE_BYTES = 16 * 1024
"""What is parsed before limits are looked at: a read may bring more than they allow."""

ACCEPTS_A_TURN = 16
"""Connections accepted in one turn of the loop. libuv takes one for each listening descriptor; when events go to
thousands of clients a turn is long, and at one each a herd would wait for minutes."""

# uvicorn hands the head of a WebSocket handshake to websockets, whose own limits are narrower (8 KiB a line, 128
# headers) and whose refusal is silence. By then it is within MAX_HEADER_BYTES.
websockets.http11.MAX_LINE_LENGTH = 2**20
websockets.http11.MAX_NUM_HEADERS = 2**16


class HttpProtocol(HttpToolsProtocol):
    """HTTP/1.1 by uvicorn, within limits, whose connections can be detached."""

    limits: Limits
    due: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self._beside_body = 0  # what came of this request that is not its body
        self._in_head = True
        self._refusal = early.BAD_HTTP
        self._answering: RequestResponseCycle | None = None
        self._set_due(self.limits.request_s)
        self.limits.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.limits.waiting.pop(self, None)
        super().connection_lost(exc)
        self.pipeline.clear()
        if self._answering is not None:  # uvicorn tells the newest request only
            self._answering.disconnected = True
            self._answering.message_event.set()
        self._let_go()

    def _let_go(self) -> None:
        """Nothing comes through this protocol any more. What refers to it would keep it, and it that, until the garbage
        of a whole herd is collected in one go."""
        self.parser = cast(httptools.HttpRequestParser, None)
        if self.scope is not None:
            self.scope.pop("extensions", None)

    @property
    def peer(self) -> str:
        """The address that is connected to us."""
        return self.client[0] if self.client else ""

    def _set_due(self, within_s: float) -> None:
        self.due = self.limits.now() + within_s if within_s else math.inf

    def too_late(self) -> None:
        """The request did not come in time."""
        if self._beside_body and (self._in_head or not self.cycle.response_complete):
            self._refuse(early.TOO_LATE)
        else:
            self.transport.close()  # it has not begun, or has its answer already

    def give_up(self) -> None:
        """Somebody has to go."""
        self.transport.abort()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._set_due(self.limits.request_s)
        self.limits.wait_for(self)

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._in_head:  # else a trailer: uvicorn would put it among the headers, where it is believed
            super().on_header(name, value)

    def on_message_complete(self) -> None:
        self.limits.waiting.pop(self, None)
        self._beside_body = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        another = bool(self.pipeline)
        super().on_response_complete()  # the next one is begun to be answered
        self._unset_keepalive_if_required()  # the sweep has its time: no timer each
        if not another:
            self._answering = None
            if self not in self.limits.waiting and not self.transport.is_closing():
                self._set_due(KEEP_ALIVE_S)
                self.limits.wait_for(self)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answering = cycle
        super()._start_asgi_task(cycle, app)

    def handle_websocket_upgrade(self) -> None:
        self.limits.waiting.pop(self, None)
        if self.parser.get_http_version() != "1.1":
            self._refuse(early.OLD_HTTP)
            return
        if self.flow.write_paused:
            self._refuse(early.TOO_MANY)  # it has not read the answers of before: the one to this would wait unwatched
            return
        if [value for name, value in self.headers if name == b"sec-websocket-version"] != [b"13"]:
            self._refuse(early.WRONG_VERSION)
            return
        super().handle_websocket_upgrade()
        protocol = cast(WebSocketProtocol, self.transport.get_protocol())
        if not protocol.handshake_initiated:
            self._refuse(early.BAD_HTTP)  # the parser of handshakes gave up on it, without a word
        elif protocol.response.status_code != HTTPStatus.SWITCHING_PROTOCOLS:
            self.limits.refused(early.BAD_HANDSHAKE.reason, self.peer)

    def on_headers_complete(self) -> None:
        self._in_head = False
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if self.limits.header_bytes and size > self.limits.header_bytes:
            self._stop_parsing(early.TOO_LARGE)
        hosts = [value for name, value in self.headers if name == b"host"]
        if not says_whose_it_is(hosts, self.parser.get_http_version()):
            self._stop_parsing(early.NO_HOST)
        # Else the socket is handed over twice, and who had it first never hears that the client goes.
        impatient = self._answering is not None and self.parser.should_upgrade() and self._should_upgrade()
        if impatient or len(self.pipeline) >= MOST_PIPELINED:
            self._stop_parsing(early.TOO_MANY)
        super().on_headers_complete()
        # Of this request's cycle: a pipelined one may have taken its place by the time the endpoint runs.
        detach = partial(self._detach, self.cycle)
        self.scope["extensions"] = cast("dict[str, dict[object, object]]", {DETACH: detach})

    def _stop_parsing(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise ValueError(refusal.reason)  # httptools stops and reports it to whoever feeds it

    def on_body(self, body: bytes) -> None:
        self._beside_body -= len(body)
        super().on_body(body)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), PIECE_BYTES):
            if not self._parse(data[at : at + PIECE_BYTES], data[at + PIECE_BYTES :]):
                return

    def _parse(self, data: bytes, behind: bytes) -> bool:
        """Take a piece of what came, of which there is more; whether that is for this parser, too."""
        # As uvicorn's, but what a WebSocket client sent right behind its handshake is not forgotten.
        self._beside_body += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            if not self._should_upgrade():
                self._unsupported_upgrade_warning()
                return True
            self.handle_websocket_upgrade()
            self._let_go()
            rest = data[upgrade.args[0] :] + behind
            protocol = self.transport.get_protocol()
            if rest and isinstance(protocol, WebSocketProtocol):  # else the handshake was refused
                protocol.data_received(rest)
            return False
        except httptools.HttpParserError:
            self._refuse(self._refusal)
            return False
        if self.limits.header_bytes and self._beside_body > self.limits.header_bytes:
            self._refuse(early.TOO_LARGE)
            return False
        return not self.transport.is_closing()

    def _refuse(self, refusal: Refusal) -> None:
        """Answer what uvicorn never gets to see, and close."""
        self.limits.refused(refusal.reason, self.peer)
        self.transport.write(refusal.data)
        self.transport.close()
        self.limits.waiting.pop(self, None)

    def _detach(self, cycle: RequestResponseCycle, connection: Connection) -> None:
        cycle.disconnected = True
        if self.transport.is_closing():
            return  # the client went while its request was looked at
        self._unset_keepalive_if_required()
        self.limits.waiting.pop(self, None)
        transport, self.transport = self.transport, cast(asyncio.Transport, Gone())
        self.connections.discard(self)
        self.pipeline.clear()
        self._let_go()
        full = self.flow.write_paused
        hand_over(transport, connection, cast("set[object]", self.connections), full=full)


def _bad_handshake(status: object, text: str) -> websockets.http11.Response:
    refusal = early.BAD_HANDSHAKE
    headers = websockets.datastructures.Headers(refusal.headers)
    return websockets.http11.Response(refusal.status, refusal.title, headers, refusal.content)


class WebSocketProtocol(WebSocketsSansIOProtocol):
    """The WebSocket handshake by uvicorn, within limits; the connection that follows is detached."""

    limits: Limits

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._early = bytearray()
        self.conn.reject = _bad_handshake  # type: ignore[method-assign]  # the library's own is plain text

    def handle_connect(self, event: Any) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast("dict[str, object]", self.scope["extensions"])[DETACH] = self._detach

    def data_received(self, data: bytes) -> None:
        if not self.handshake_initiated:
            super().data_received(data)
        elif len(self._early) + len(data) > EARLY_BYTES or self.limits.early_bytes + len(data) > MOST_EARLY_BYTES:
            self.limits.refused("sent_too_early", self.client[0] if self.client else "")
            self.transport.abort()
        else:
            self._early += data  # parsed by whoever takes the connection over
            self.limits.early_bytes += len(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._taken_early()

    def _taken_early(self) -> bytes:
        sent, self._early = bytes(self._early), bytearray()
        self.limits.early_bytes -= len(sent)
        return sent

    async def send(self, message: Any) -> None:
        await super().send(message)
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True  # answered: uvicorn would log a denial as an application's fault

    def _detach(self, connection: Connection) -> None:
        if self.transport.is_closing():
            return  # the client went while its handshake was looked at
        self.stop_keepalive()
        transport, self.transport = self.transport, cast(asyncio.Transport, Gone())
        self.disconnected = True
        self.connections.discard(self)
        vars(self.conn).clear()  # a generator in it refers to it
        self.scope.pop("extensions", None)
        full = not self.writable.is_set()
        sent = self._taken_early()
        hand_over(transport, connection, cast("set[object]", self.connections), full=full)
        if sent and connection.transport is not None:
            connection.data_received(sent)


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
                ws=type("LimitedWebSocketProtocol", (WebSocketProtocol,), {"limits": limits}),
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,  # it listens anew, with its own number
                timeout_graceful_shutdown=graceful_s,
            )
        )
        limits.open.append(self.server_state.connections)
        self._on_signal = on_signal
        self._loop = asyncio.get_running_loop()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on listening sockets, which it closes at its end."""
        given = sockets or []
        await super().serve([*given, *(each.dup() for each in given for _ in range(ACCEPTS_A_TURN - 1))])

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
