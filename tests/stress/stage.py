"""The stage: nats-servers and replicas as real processes, and what is done to them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import nats
from nats.errors import Error as NatsError

from tests.support.frozen import frozen
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.ports import free_port

STREAM = "EVENTS"
PURGES = 10
"""How often a purge is asked for again."""

RAW_ROUTES = {
    "/raw/ticks": ("repo.*.tick",),
    "/raw/one": ("repo.1.>",),
    "/raw/some": ("repo.2.>", "task.*.log", "user.0.note"),
}
_CONFIG = routes(
    *[
        (
            f'name = "{path.strip("/").replace("/", "-")}"',
            f'path = "{path}"',
            'transports = ["ws"]',
            f"subjects = {list(filters)}",
            'framing = "raw"',
        )
        for path, filters in RAW_ROUTES.items()
    ]
)


class Stage:
    """All processes of a run. What is done to one of them is done one after another; to several, at once.

    Args:
        folder: for their logs.
        servers: running nats-servers with the stream.
        settings: of each replica.
    """

    def __init__(self, folder: Path, servers: Sequence[NatsServer], settings: Sequence[Mapping[str, object]]) -> None:
        self.servers = servers
        self.nats_urls = ",".join(server.url for server in servers)
        self.ports = [free_port() for _ in settings]
        self.replicas = [
            Gateway(
                folder / f"replica-{number}",
                self.nats_urls,
                {**own, "LISTEN": f"127.0.0.1:{port}", "REPLICA": f"replica-{number}"},
                config=_CONFIG,
            )
            for number, (own, port) in enumerate(zip(settings, self.ports, strict=True))
        ]
        self._replica_locks = [asyncio.Lock() for _ in settings]
        self._server_lock = asyncio.Lock()

    async def open(self) -> None:
        """Start the replicas; they are ready then."""
        await asyncio.gather(*(asyncio.to_thread(replica.start) for replica in self.replicas))
        await asyncio.gather(*(asyncio.to_thread(replica.wait_ready) for replica in self.replicas))

    async def close(self) -> None:
        """End the replicas."""
        await asyncio.gather(*(asyncio.to_thread(replica.kill) for replica in self.replicas))

    # Faults

    async def kill(self, number: int, lasts_s: float) -> None:
        """SIGKILL a replica; start it again after a while."""
        number %= len(self.replicas)
        async with self._replica_locks[number]:
            await asyncio.to_thread(self.replicas[number].kill)
            try:
                await asyncio.sleep(lasts_s)
            finally:
                await asyncio.to_thread(self.replicas[number].start)

    async def pause(self, number: int, lasts_s: float) -> None:
        """SIGSTOP a replica for a while."""
        number %= len(self.replicas)
        async with self._replica_locks[number]:
            with frozen(self.replicas[number].pid):
                await asyncio.sleep(lasts_s)

    async def roll(self) -> None:
        """SIGTERM one replica after the other; each is back before the next one goes."""
        for number, replica in enumerate(self.replicas):
            async with self._replica_locks[number]:
                await asyncio.to_thread(replica.stop)
                await asyncio.to_thread(replica.start)

    async def nats_kill(self, number: int, lasts_s: float) -> None:
        """SIGKILL a nats-server; start it again, with its store, after a while."""
        server = self.servers[number % len(self.servers)]
        async with self._server_lock:
            await asyncio.to_thread(server.kill)
            try:
                await asyncio.sleep(lasts_s)
            finally:
                await asyncio.to_thread(server.start, timeout_s=30)

    async def nats_pause(self, number: int, lasts_s: float) -> None:
        """SIGSTOP a nats-server for a while."""
        async with self._server_lock:
            with frozen(self.servers[number % len(self.servers)].pid):
                await asyncio.sleep(lasts_s)

    async def purge(self, upto: int) -> None:
        """Purge the stream up to and with a sequence."""
        async with self._server_lock:
            client = await nats.connect(self.nats_urls.split(","), max_reconnect_attempts=-1, error_cb=_expected)
            try:
                for patience in range(PURGES, -1, -1):
                    try:
                        await client.jetstream(timeout=3).purge_stream(STREAM, seq=upto + 1)
                        return
                    except (NatsError, TimeoutError):
                        if not patience:
                            raise  # a cluster without a leader is silent for some seconds, not for so long
            finally:
                await client.close()


async def _expected(error: Exception) -> None:
    """Servers die here; nats-py would print it."""
