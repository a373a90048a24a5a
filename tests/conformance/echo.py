"""`python -m tests.conformance.echo --port N`: the gateway's WebSocket stream class as an echo server.

Foreign conformance suites can be pointed at it, at any path. The server, the handshake, the connection and its limits
in time are the gateway's own; only messages are answered by themselves, and may be of any size.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

import uvloop
from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket

from gateway.core import frames
from gateway.core.dialect import RAW
from gateway.core.errors import ClientError
from gateway.transports.arrival import Arrival
from gateway.transports.http_server import DETACH, HttpServer
from gateway.transports.limits import Limits
from gateway.transports.room import Room
from gateway.transports.sockets import bind
from gateway.transports.ws import WebSocketConnection
from tests.support.wire import OpenDoor, make_room

HOST = "127.0.0.1"


class EchoConnection(WebSocketConnection):
    """Sends every message back."""

    __slots__ = ()

    def __init__(self, room: Room) -> None:
        super().__init__(room, Arrival("echo", None, HOST), RAW, OpenDoor(), None)

    def started(self) -> None:
        """The client speaks first."""

    def message(self, text: bytes) -> None:
        self.write(frames.text(text))

    def binary(self, content: bytes) -> None:
        self.write(b"\x82" + frames.text(content)[1:])

    def refuse(self, error: ClientError) -> None:
        """The close code says it."""


async def serve(port: int, kind: type[EchoConnection] = EchoConnection) -> None:
    """Echo until a signal. Says where it listens, on standard output. `port` 0: any free one."""
    loop = asyncio.get_running_loop()
    room = make_room(now=loop.time, defer=loop.call_soon, later=loop.call_later)

    async def connect(websocket: WebSocket) -> None:
        await websocket.accept()
        websocket.scope["extensions"][DETACH](kind(room))

    limits = Limits(
        header_bytes=2**14,
        request_s=10,
        most_sockets=0,
        now=room.now,
        refused=lambda reason, peer: None,
        turns=room.turns,
    )
    room.sweep.add(limits)

    def stop() -> None:
        server.should_exit = True

    app = Starlette(routes=[WebSocketRoute("/{path:path}", connect)])
    server = HttpServer(app, limits, on_signal=stop, graceful_s=2)
    sock = bind(HOST, port)
    print(f"ws://{HOST}:{sock.getsockname()[1]}", flush=True)
    await server.serve([sock])


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the server; returns 0 after a signal."""
    parser = argparse.ArgumentParser(prog="python -m tests.conformance.echo", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 is any free one")
    chosen = parser.parse_args(arguments)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(chosen.port))
    return 0


if __name__ == "__main__":
    sys.exit(main())
