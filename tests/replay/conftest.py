"""A stream of one test's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from nats.aio.client import Client

from tests.conftest import StartGateway
from tests.replay.scene import Scene
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer


@pytest.fixture
async def scene(
    own_nats: NatsServer,
    start_gateway: StartGateway,
    connect_nats: Callable[[str], Awaitable[Client]],
    own_id: str,
) -> Scene:
    """A nats-server with a stream, and a producer, for this test alone; gateways as it starts them."""
    return Scene(own_nats, await connect_nats(own_nats.url), own_id, start_gateway)


@pytest.fixture
async def proxy(own_nats: NatsServer) -> AsyncIterator[NatsProxy]:
    """A proxy before this test's nats-server."""
    async with NatsProxy(own_nats.port) as running:
        yield running
