"""The JetStream API as natsgate uses it: a few requests, over whatever can ask."""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar

import orjson

from gateway.core.stream import Shape, StreamState, read_answer, read_info

S_co = TypeVar("S_co", bound=Shape, covariant=True)


class Asks(Protocol):
    """What can send a NATS request."""

    async def request(self, subject: str, payload: bytes = b"", *, timeout_s: float = 2.0) -> bytes: ...


class StreamApi(Generic[S_co]):
    """Requests about one stream.

    Every method raises `UpstreamAway` when nobody answers in time and `UpstreamRefused` when the server says no.
    """

    def __init__(self, asks: Asks, shape: S_co) -> None:
        self.asks = asks
        self.shape = shape

    async def info(self) -> StreamState:
        """What the leader says of the stream."""
        return read_info(await self.asks.request(f"$JS.API.STREAM.INFO.{self.shape.name}"))

    async def create(self, config: dict[str, Any]) -> StreamState:
        """Create the stream. Clusters need a moment to place it."""
        subject = f"$JS.API.STREAM.CREATE.{self.shape.name}"
        return read_info(await self.asks.request(subject, orjson.dumps(config), timeout_s=10))

    async def update(self, config: dict[str, Any]) -> StreamState:
        """Change the stream's configuration."""
        subject = f"$JS.API.STREAM.UPDATE.{self.shape.name}"
        return read_info(await self.asks.request(subject, orjson.dumps(config), timeout_s=10))

    async def publish(self, subject: str, payload: bytes) -> int:
        """Store one message; returns its sequence once the stream has it."""
        return int(read_answer(await self.asks.request(subject, payload, timeout_s=5)).get("seq", 0))
