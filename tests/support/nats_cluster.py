"""A cluster of three real nats-servers with JetStream, and the stream on all of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import nats
import orjson
from nats.errors import Error as NatsError

from gateway.core.stream import StreamShape
from tests.support.eventually import eventually
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port

SHAPE = StreamShape("EVENTS", ("repo", "task", "project", "user", "ci", "inbox"), "live")
SIZE = 3


class NatsCluster:
    """Three servers that know each other. Ports and stores stay the same over restarts.

    Args:
        directory: where stores and logs go.
    """

    def __init__(self, directory: Path) -> None:
        ports = [free_port() for _ in range(SIZE)]
        routes = ",".join(f"nats://127.0.0.1:{port}" for port in ports)
        self.servers = [
            NatsServer(
                directory / f"node-{number}",
                arguments=[
                    *("--name", f"node-{number}", "--cluster_name", "trio"),
                    *("--cluster", f"nats://127.0.0.1:{port}", "--routes", routes),
                ],
            )
            for number, port in enumerate(ports)
        ]

    @property
    def urls(self) -> str:
        """All servers, comma-separated."""
        return ",".join(server.url for server in self.servers)

    async def start(self) -> None:
        """Start all; they are one cluster with JetStream then."""
        await asyncio.gather(*(asyncio.to_thread(server.start, timeout_s=30) for server in self.servers))

    async def stop(self) -> None:
        await asyncio.gather(*(asyncio.to_thread(server.kill) for server in self.servers))

    async def make_stream(self) -> None:
        """Create the stream on all three; it has a leader then."""
        config = orjson.dumps(SHAPE.config(replicas=SIZE))

        async def made() -> bool:
            # A cluster that was just formed says no, or nothing, for some seconds.
            return "error" not in await self.ask(f"$JS.API.STREAM.CREATE.{SHAPE.name}", config)

        await eventually(made, "the cluster makes the stream", timeout_s=40)
        await self.leader()

    async def ask(self, subject: str, payload: bytes = b"") -> dict[str, Any]:
        """A request to JetStream, by whichever server is there; an `error` when nobody answers."""
        try:
            client = await nats.connect(self.urls.split(","), allow_reconnect=False, connect_timeout=2)
        except (NatsError, OSError, TimeoutError) as error:
            return {"error": str(error)}
        try:
            answer: dict[str, Any] = orjson.loads((await client.request(subject, payload, timeout=3)).data)
            return answer
        except (NatsError, TimeoutError) as error:
            return {"error": str(error)}
        finally:
            await client.close()

    async def leader(self) -> NatsServer:
        """The stream's leader, once both others are up to date with it."""

        async def settled() -> NatsServer | None:
            cluster = (await self.ask(f"$JS.API.STREAM.INFO.{SHAPE.name}")).get("cluster", {})
            replicas = cluster.get("replicas") or []
            if len(replicas) < SIZE - 1 or not all(each.get("current") for each in replicas):
                return None
            return self.by_name(cluster.get("leader", ""))

        return await eventually(settled, "the stream has a leader and two followers", timeout_s=40)

    def by_name(self, name: str) -> NatsServer | None:
        return next((server for server in self.servers if server.directory.name == name), None)

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()
