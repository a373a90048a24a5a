"""A nats-server of the test's own, and what a publisher has made of its stream."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator

import nats
from nats.aio.client import Client
from nats.js.api import RePublish, StreamConfig
from nats.js.errors import NotFoundError

from publishers.wire import DEFAULT_ROOTS
from tests.support.nats_server import NatsServer

STREAM = "EVENTS"


class Broker(NatsServer):
    """A nats-server without a stream, until `provision`."""

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Client]:
        """A bare connection."""
        client = await nats.connect(self.url)
        try:
            yield client
        finally:
            await client.close()

    async def provision(self, *, roots: tuple[str, ...] = DEFAULT_ROOTS) -> None:
        """Makes the stream as the contract has it."""
        async with self.client() as client:
            await client.jetstream().add_stream(
                StreamConfig(
                    name=STREAM,
                    subjects=[f"{root}.>" for root in roots],
                    allow_direct=True,
                    duplicate_window=120,
                    max_consumers=256,
                    republish=RePublish(src=">", dest="live.>"),
                )
            )

    async def stored(self) -> list[tuple[str, bytes, dict[str, str]]]:
        """Everything in the stream, in order: subject, payload, headers."""
        result: list[tuple[str, bytes, dict[str, str]]] = []
        async with self.client() as client:
            stream = client.jetstream()
            last = (await stream.stream_info(STREAM)).state.last_seq
            for sequence in range(1, last + 1):
                with contextlib.suppress(NotFoundError):
                    message = await stream.get_msg(STREAM, seq=sequence, direct=True)
                    assert message.subject is not None
                    result.append((message.subject, message.data or b"", dict(message.headers or {})))
        return result
