"""The scene of a test that does things to the stream: a nats-server, a producer, gateways, and clients of one feed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

from nats.aio.client import Client

from tests.conftest import StartGateway, provision
from tests.replay.coming_back import cursor_now
from tests.support.eventually import eventually
from tests.support.flow import Flow, store
from tests.support.follower import Follower, assert_same
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.producer import publish
from tests.support.sse import SseClient
from tests.support.stored import StoredEvent, stored


class Scene:
    """One stream, which nobody else uses.

    Attributes:
        nats: the server.
        id: what all of its subjects have in common.
        nc: the producer's connection to it.
        feed, other_feed: two filters, with nothing in common.
        subject, other_subject: a subject of each.
        subjects: both.
    """

    def __init__(self, nats: NatsServer, nc: Client, own_id: str, start: StartGateway) -> None:
        self.nats = nats
        self.nc = nc
        self.id = own_id
        self.feed, self.other_feed = f"repo.{own_id}.>", f"task.{own_id}.>"
        self.subjects = self.subject, self.other_subject = f"repo.{own_id}.x", f"task.{own_id}.x"
        self._start = start

    # The gateways

    async def gateway(
        self,
        nats_url: str | None = None,
        *,
        config: str | None = None,
        ready: bool = True,
        settings: Mapping[str, object] | None = None,
        **more: object,
    ) -> Gateway:
        """Start a gateway; it is ready, unless told otherwise. `nats_url`: what it takes for the server."""
        return await self._start(
            nats_url=nats_url or self.nats.url, config=config, ready=ready, settings={**(settings or {}), **more}
        )

    # The producer

    async def store(self, count: int, subjects: Sequence[str] | None = None, *, begin: int = 0, pad: str = "") -> int:
        """Store numbered events, of the subject unless others are given; the sequence of the last one."""
        return await store(self.nc, subjects or [self.subject], count, begin=begin, pad=pad)

    async def publish(self, text: str, subject: str | None = None) -> None:
        """Publish one event, of the subject unless another is given."""
        await publish(self.nc, subject or self.subject, text)

    def flow(self, subjects: Sequence[str] | None = None, *, pause_s: float = 0.01, each: int = 5) -> Flow:
        """A producer that does not stop."""
        return Flow(self.nc, subjects or [self.subject], pause_s=pause_s, each=each)

    async def until_producer_back(self) -> None:
        """Wait until the producer has found the server again."""

        async def back() -> bool:
            return self.nc.is_connected

        await eventually(back, "the producer is back")

    # The clients

    @asynccontextmanager
    async def follower(self, gateway: Gateway, feed: str | None = None) -> AsyncIterator[Follower]:
        """An EventSource of the feed, unless another is given; it is ready."""
        async with Follower(lambda: gateway.url, feed or self.feed) as page:
            await page.until_ready()
            yield page

    def client(
        self,
        gateway: Gateway,
        cursor: str | None = None,
        *,
        query: Mapping[str, str] | None = None,
        receive_buffer_bytes: int | None = None,
        keep: bool = True,
    ) -> SseClient:
        """One connection to the feed, which comes back with a cursor when it has one. The rest: see `SseClient`."""
        headers = {"Last-Event-ID": cursor} if cursor else {}
        return SseClient(
            gateway.url,
            self.feed,
            query=query,
            headers=headers,
            receive_buffer_bytes=receive_buffer_bytes,
            keep=keep,
        )

    async def cursor_now(self, gateway: Gateway) -> str:
        """The cursor of the present."""
        return await cursor_now(gateway, self.feed)

    async def assert_whole(
        self, page: Follower, feed: str | None = None, *, connects: int = 1, timeout_s: float = 30
    ) -> None:
        """It hears everything that is stored, once, in order, and is told of no gap."""
        expected = await self.stored(feed)
        await page.until_heard(len(expected), timeout_s=timeout_s)
        assert_same(page.heard, expected)
        assert page.told_of("gap") == []
        assert page.connects == connects

    # The stream

    async def stored(self, feed: str | None = None, *, after: int = 0) -> list[StoredEvent]:
        """What it has of the feed, unless another is given."""
        return await stored(self.nc, feed or self.feed, after=after)

    async def purge(self, *, below: int | None = None, keep: int | None = None) -> None:
        """Delete everything, or what lies below a sequence, or all but so many messages."""
        await self.nc.jetstream().purge_stream("EVENTS", seq=below, keep=keep)

    async def recreate(self) -> None:
        """Delete it, with all that it has, and make it again."""
        await self.nc.jetstream().delete_stream("EVENTS")
        await asyncio.to_thread(provision, self.nats.url)

    async def reconfigure(self, **changes: object) -> None:
        """Change its configuration, as an operator does; the API's own field names and units."""
        info = json.loads((await self.nc.request("$JS.API.STREAM.INFO.EVENTS", timeout=5)).data)
        config = json.dumps(info["config"] | changes).encode()
        reply = await self.nc.request("$JS.API.STREAM.UPDATE.EVENTS", config, timeout=5)
        assert "error" not in json.loads(reply.data), reply.data
