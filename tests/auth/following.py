"""A table of revoked users that follows the bucket of a real nats-server, over connections of its own."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Mapping
from random import Random
from types import TracebackType
from typing import Any, Self

from nats.aio.client import Client
from nats.js.kv import KeyValue

from gateway.background import end
from gateway.core.bucket import BUCKET_SHAPE
from gateway.core.revoked import BUCKET, Revoked
from gateway.logs import logger
from gateway.upstream.connection import NatsConnection
from gateway.upstream.login import connect_options
from gateway.upstream.revocations import Revocations
from tests.support.eventually import eventually


class _Table(Revoked):
    def __init__(self, lifted: set[str]) -> None:
        super().__init__()
        self._lifted = lifted

    def update(self, entries: Mapping[str, float | None]) -> None:
        self._lifted |= {sub for sub, time in entries.items() if time is None and self.not_before(sub) is not None}
        super().update(entries)

    def replace(self, entries: Mapping[str, float]) -> None:
        self._lifted |= self._not_before.keys() - entries.keys()
        super().replace(entries)


class Following:
    """What a replica does with the bucket, and nothing else of it.

    Args:
        url: where NATS is; several, comma-separated.
        options: of the login, as `connect_options` takes them.

    Attributes:
        lifted: every `sub` that was not revoked any more at some time.
        troubles: the events of the connections' troubles.
    """

    def __init__(self, url: str, **options: str) -> None:
        self._url = url
        self._login = options
        self._tasks: list[asyncio.Task[None]] = []
        self.lifted: set[str] = set()
        self.table = _Table(self.lifted)
        self.troubles: list[str] = []

    def _trouble(self, event: str, fields: dict[str, Any]) -> None:
        self.troubles.append(event)
        self.revocations.nats_trouble(event, fields)

    def _connection(self) -> NatsConnection:
        return NatsConnection(
            connect_options(urls=tuple(self._url.split(",")), name="following", **self._login),
            random=Random(),
            on_change=lambda up: self.revocations.nats_changed(up),
            on_trouble=self._trouble,
        )

    async def loaded(self) -> None:
        """Wait until the bucket was read, or seen to be missing."""
        await self.until(lambda: self.revocations.loaded, "the bucket was read")

    async def holds(self, entries: Mapping[str, float], *, timeout_s: float = 20.0) -> None:
        """Wait until the table has these entries and no other."""

        def same() -> bool:
            return len(self.table) == len(entries) and all(
                self.table.not_before(sub) == time for sub, time in entries.items()
            )

        await self.until(same, f"the table holds {len(entries)} entries", timeout_s=timeout_s)

    async def until(self, true: Any, what: str, *, timeout_s: float = 20.0) -> None:
        """Wait until something is true of it."""

        async def probe() -> bool:
            for task in self._tasks:
                assert not task.done(), task
            return bool(true())

        await eventually(probe, what, timeout_s=timeout_s, every_s=0.02)

    async def __aenter__(self) -> Self:
        nats, reads = self._connection(), self._connection()
        inbox = f"_INBOX.following.{secrets.token_hex(8)}"
        self.nats = nats
        self.revocations = Revocations(
            nats, reads, inbox, self.table, random=Random(), log=logger(), on_loaded=lambda: None
        )
        self._tasks = [asyncio.create_task(each.run()) for each in (nats, reads, self.revocations)]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await end(self._tasks)


async def create_bucket(nc: Client, **config: object) -> None:
    """Make the bucket as natsgate does, but for `config`."""
    body = json.dumps({**BUCKET_SHAPE.config(), **config}).encode()
    answer = json.loads((await nc.request(f"$JS.API.STREAM.CREATE.{BUCKET_SHAPE.name}", body)).data)
    assert "error" not in answer, answer


async def make_bucket(nc: Client, **config: object) -> KeyValue:
    """The same, and open it with nats-py's own KV client."""
    await create_bucket(nc, **config)
    return await nc.jetstream().key_value(BUCKET)
