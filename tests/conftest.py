"""Fixtures of the whole suite: one nats-server and one gateway for all, and factories of more."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

import nats
import pytest
from hypothesis import HealthCheck, settings
from nats.aio.client import Client

from tests.support.command import natsgate
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.tokens import SECRET

# No test asserts times, and a machine that runs other things beside makes its inputs slowly.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


def provision(nats_url: str, **settings: object) -> None:
    """Make the stream with the product's own command."""
    done = natsgate("provision", settings={"NATS_URL": nats_url, "AUTH": "none", **settings})
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="session")
def nats_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """A nats-server with the provisioned stream, shared by all tests: use subjects of your own."""
    with NatsServer(tmp_path_factory.mktemp("nats")) as server:
        provision(server.url)
        yield server


@pytest.fixture(scope="session")
def gateway(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway with default settings, shared by all tests."""
    with Gateway(tmp_path_factory.mktemp("gateway"), nats_server.url) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="session")
def guarded(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway with AUTH=jwt and SECRET, shared by all tests."""
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET}
    with Gateway(tmp_path_factory.mktemp("guarded"), nats_server.url, settings) as running:
        running.wait_ready()
        yield running


class StartGateway(Protocol):
    """Starts a gateway of the test's own, ready unless told otherwise; it ends with the test."""

    async def __call__(
        self,
        *,
        config: str | None = None,
        nats_url: str | None = None,
        ready: bool = True,
        variables: Mapping[str, str] | None = None,
        open_files: tuple[int, int] | None = None,
        settings: Mapping[str, object] | None = None,
        **more: object,
    ) -> Gateway: ...


@pytest.fixture
async def start_gateway(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """A factory of gateways with settings of their own: `await start_gateway(HEARTBEAT_S=0.3)`."""
    started: list[Gateway] = []

    async def start(
        *,
        config: str | None = None,
        nats_url: str | None = None,
        ready: bool = True,
        variables: Mapping[str, str] | None = None,
        open_files: tuple[int, int] | None = None,
        settings: Mapping[str, object] | None = None,
        **more: object,
    ) -> Gateway:
        gateway = Gateway(
            tmp_path / f"gateway-{len(started)}",
            nats_url or nats_server.url,
            {**(settings or {}), **more},
            config=config,
            variables=variables,
            open_files=open_files,
        )
        started.append(gateway)
        await asyncio.to_thread(gateway.start)
        if ready:
            await asyncio.to_thread(gateway.wait_ready)
        return gateway

    yield start
    for gateway in started:
        await asyncio.to_thread(gateway.stop)


@pytest.fixture
async def own_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server with the provisioned stream for this test alone."""
    async with NatsServer(tmp_path / "nats") as server:
        await asyncio.to_thread(provision, server.url)
        yield server


@pytest.fixture
async def connect_nats() -> AsyncIterator[Callable[[str], Awaitable[Client]]]:
    """A factory of nats-py clients for any server; they close with the test."""
    clients: list[Client] = []

    async def connect(url: str) -> Client:
        client = await nats.connect(url, max_reconnect_attempts=-1, reconnect_time_wait=0.1)
        clients.append(client)
        return client

    yield connect
    for client in clients:
        await client.close()


@pytest.fixture
async def nc(nats_server: NatsServer, connect_nats: Callable[[str], Awaitable[Client]]) -> Client:
    """A nats-py client of the shared nats-server: a producer like any other."""
    return await connect_nats(nats_server.url)


@pytest.fixture
def own_id() -> str:
    """An id that no other test uses."""
    return uuid.uuid4().hex[:12]
