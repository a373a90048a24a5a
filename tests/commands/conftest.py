"""Fixtures: one plain nats-server for all commands, with a stream of each test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator

import nats
import pytest
from nats.aio.client import Client

from tests.commands.own_stream import OwnStream
from tests.support.nats_server import NatsServer


@pytest.fixture(scope="session")
def plain_nats(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server without permissions and without streams of anybody."""
    with NatsServer(tmp_path_factory.mktemp("plain")) as server:
        yield server


@pytest.fixture
async def own(plain_nats: NatsServer, own_id: str) -> AsyncIterator[OwnStream]:
    """The place of a stream that no other test has; it is not made yet."""
    client: Client = await nats.connect(plain_nats.url)
    yield OwnStream(plain_nats.url, f"S{own_id}", f"r{own_id}", client)
    await client.close()
