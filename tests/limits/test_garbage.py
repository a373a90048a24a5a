"""Connections that are gone leave nothing that only the collector of garbage could find: a herd's worth of it would be
collected in one go, and until then be memory that nobody has."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from gateway.transports.http_server import DETACH, HttpServer
from gateway.transports.limits import Limits
from gateway.transports.sockets import bind
from tests.attacks.requests import END, HANDSHAKE
from tests.conformance.echo import EchoConnection
from tests.support.eventually import eventually
from tests.support.raw_ws import encode_text
from tests.support.wire import make_room

VISITS = 50
GET = b"GET /here HTTP/1.1\r\nHost: x\r\n\r\n"


async def here(request: Request) -> Response:
    return Response("here")


async def visit_all(first: bytes, count: int) -> int:
    """Serve `count` visits, one after another; how many objects were garbage then."""
    loop = asyncio.get_running_loop()
    room = make_room(now=loop.time, defer=loop.call_soon, later=loop.call_later)

    async def ws(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.scope["extensions"][DETACH](EchoConnection(room))

    app = Starlette(routes=[Route("/here", here), WebSocketRoute("/ws", ws)])
    limits = Limits(0, 0, 0, time.monotonic, lambda *_: None, room.turns)
    server = HttpServer(app, limits, on_signal=None, graceful_s=0)
    listening = bind("127.0.0.1", 0)
    serving = asyncio.create_task(server.serve([listening]))

    async def started() -> bool:
        return server.started

    async def nobody() -> bool:
        return not server.server_state.connections

    await eventually(started, "the server has started")

    def visit() -> None:
        with socket.create_connection(listening.getsockname()) as sock:
            sock.sendall(first)
            assert not first or sock.recv(65536)

    for _ in range(5):
        await asyncio.to_thread(visit)  # what is made once is no garbage of a visit
    await eventually(nobody, "the first ones are gone")
    gc.collect()
    gc.disable()
    try:
        for _ in range(count):
            await asyncio.to_thread(visit)
        await eventually(nobody, "all are gone")
        found = gc.collect()
    finally:
        gc.enable()
    server.should_exit = True
    await serving
    return found


VISITS_OF = {
    "silence": b"",
    "request": GET,
    "no such path": b"GET /nowhere HTTP/1.1\r\nHost: x\r\n\r\n",
    "no HTTP": b"nonsense\r\n\r\n",
    "WebSocket": HANDSHAKE + END,
    "message": HANDSHAKE + END + encode_text("x"),
}


@pytest.mark.parametrize("first", VISITS_OF.values(), ids=VISITS_OF.keys())
def test_a_visit_leaves_no_garbage(first: bytes) -> None:
    """Whatever a client came for, what was made for it is gone with it."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(visit_all(first, VISITS)) < 2 * VISITS
