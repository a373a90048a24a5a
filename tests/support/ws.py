"""A natsgate.v1 client: a thin coat over the `websockets` library."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Close
from websockets.typing import Origin, Subprotocol

PATIENCE_S = 10.0
Op = dict[str, Any]


class WsClient:
    """One open connection; ops that come while waiting for another kind are kept, in order."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.texts: list[str] = []
        self._kept: list[Op] = []
        self.hello: Op = {}

    async def send(self, **op: object) -> None:
        await self.connection.send(json.dumps(op))

    async def next(self, *, timeout_s: float = PATIENCE_S) -> Op:
        """The next op of any kind."""
        if self._kept:
            return self._kept.pop(0)
        return await self._receive(timeout_s)

    async def next_op(self, *names: str, timeout_s: float = PATIENCE_S) -> Op:
        """The next op with one of these names; others stay for later."""
        for position, op in enumerate(self._kept):
            if op["op"] in names:
                return self._kept.pop(position)
        async with asyncio.timeout(timeout_s):
            while True:
                op = await self._receive(timeout_s)
                if op["op"] in names:
                    return op
                self._kept.append(op)

    async def _receive(self, timeout_s: float) -> Op:
        text = await self.receive_text(timeout_s=timeout_s)
        op = json.loads(text)
        assert isinstance(op, dict), text
        return op

    async def receive_text(self, *, timeout_s: float = PATIENCE_S) -> str:
        """The next message as it is; a binary one fails."""
        async with asyncio.timeout(timeout_s):
            message = await self.connection.recv()
        assert isinstance(message, str), message
        self.texts.append(message)
        return message

    async def request(self, **op: object) -> Op:
        """Send an op and return what answers its `ref`."""
        await self.send(**op)
        answer = await self.next_op("subscribed", "unsubscribed", "pong", "error", "published", "authenticated")
        assert answer.get("ref") == op["ref"], answer
        return answer

    async def subscribe(self, *subjects: str, ref: object = "sub") -> str:
        """Subscribe to one feed, wait until it is ready, and return its name."""
        answer = await self.request(op="subscribe", ref=ref, subjects=list(subjects))
        assert answer["op"] == "subscribed", answer
        ready = await self.next_op("ready")
        assert ready["feed"] == answer["feed"], ready
        return str(answer["feed"])

    async def event(self, *, timeout_s: float = PATIENCE_S) -> Op:
        """The next `event` op."""
        return await self.next_op("event", timeout_s=timeout_s)

    async def closed(self, *, timeout_s: float = PATIENCE_S) -> tuple[Close | None, list[Op]]:
        """Read to the end: the close frame of the server, and the ops that came before it."""
        ops: list[Op] = self._kept
        self._kept = []
        try:
            while True:
                ops.append(await self._receive(timeout_s))
        except ConnectionClosed as closed:
            return closed.rcvd, ops


@asynccontextmanager
async def ws_client(
    ws_url: str,
    path: str = "/ws",
    *,
    subprotocols: Sequence[str] = ("natsgate.v1",),
    hello: bool = True,
    compression: str | None = "deflate",
    headers: Mapping[str, str] | None = None,
    origin: str | None = None,
) -> AsyncIterator[WsClient]:
    """Connect; with `hello` the first frame has to be that op and is taken."""
    async with connect(
        ws_url + path,
        subprotocols=[Subprotocol(name) for name in subprotocols] or None,
        compression=compression,
        additional_headers=headers,
        origin=None if origin is None else Origin(origin),
        max_size=None,
        open_timeout=PATIENCE_S,
        close_timeout=PATIENCE_S,
        ping_interval=None,
        proxy=None,
    ) as connection:
        client = WsClient(connection)
        if hello:
            client.hello = await client.next()
            assert client.hello["op"] == "hello", client.hello
        yield client
