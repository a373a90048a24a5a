"""Fixtures of the whole suite: one nats-server and one gateway for all, and factories of more."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import nats
import pytest
from hypothesis import HealthCheck, settings
from nats.aio.client import Client

from gateway.commands.provision import Speech
from gateway.commands.provision import provision as provisioning
from gateway.commands.stream_change import Wishes
from gateway.settings import load_settings
from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.tokens import JWT

# No test asserts times, and a machine that runs other things beside makes its inputs slowly.
settings.register_profile("suite", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("suite")


LOG_LINES = 25
"""Of each gateway, in the report of a test that fails."""


def provision(nats_url: str, **settings: object) -> None:
    """Make the stream as `natsgate provision` does, in this process."""
    environ = {f"NATSGATE_{name}": str(value) for name, value in {"NATS_URL": nats_url, **settings}.items()}
    chosen = load_settings(environ | {"NATSGATE_AUTH": "none"})
    speech = Speech(say=str, warn=pytest.fail, confirm=None)
    with ThreadPoolExecutor(1) as thread:  # it runs a loop of its own
        thread.submit(provisioning, chosen, Wishes(), speech, yes=False).result()


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
        yield from shared(running)


@pytest.fixture(scope="session")
def guarded(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway that takes tokens signed with SECRET, shared by all tests."""
    with Gateway(tmp_path_factory.mktemp("guarded"), nats_server.url, JWT) as running:
        yield from shared(running)


def shared(gateway: Gateway) -> Iterator[Gateway]:
    """Lends a gateway to all tests. Whatever they did to it, it has counted under labels that it showed before."""
    gateway.wait_ready()
    before = gateway.metrics().counters()
    yield gateway
    assert gateway.metrics().counters() == before


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that fails shows what its gateways logged last: with real faults, that is half of the story."""
    report = yield
    if report.failed:
        fixtures = getattr(item, "funcargs", {}).values()
        for each in {each: None for each in [*fixtures, *Gateway.latest] if isinstance(each, Gateway)}:
            if each.has_log:
                report.sections.append((f"log of {each.directory}", "\n".join(each.log_text.splitlines()[-LOG_LINES:])))
    return report


class StartGateway:
    """Starts gateways of a test's own, ready unless told otherwise.

    Args:
        directory: for what they write.
        nats_url: the nats-server of those for which no other is named.
    """

    def __init__(self, directory: Path, nats_url: str) -> None:
        self._directory = directory
        self._nats_url = nats_url
        self._started: list[Gateway] = []

    async def __call__(
        self,
        *,
        config: str | None = None,
        nats_url: str | None = None,
        ready: bool = True,
        variables: Mapping[str, str] | None = None,
        open_files: tuple[int, int] | None = None,
        executed: bool = False,
        settings: Mapping[str, object] | None = None,
        **more: object,
    ) -> Gateway:
        gateway = Gateway(
            self._directory / f"gateway-{len(self._started)}",
            nats_url or self._nats_url,
            {**(settings or {}), **more},
            config=config,
            variables=variables,
            open_files=open_files,
            executed=executed,
        )
        self._started.append(gateway)
        await asyncio.to_thread(gateway.start)
        if ready:
            await asyncio.to_thread(gateway.wait_ready)
        return gateway

    async def stop(self) -> None:
        """End all of them."""
        for gateway in self._started:
            await asyncio.to_thread(gateway.stop)


@pytest.fixture
async def start_gateway(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[StartGateway]:
    """Starts gateways with settings of their own, which end with the test: `await start_gateway(HEARTBEAT_S=0.3)`."""
    start = StartGateway(tmp_path, nats_server.url)
    yield start
    await start.stop()


class ShareGateway:
    """Starts gateways that several tests share; they are ready.

    Args:
        running: ends them.
        directories: makes directories for what they write.
        nats_url: their nats-server.
    """

    def __init__(self, running: ExitStack, directories: pytest.TempPathFactory, nats_url: str) -> None:
        self._running = running
        self._directories = directories
        self._nats_url = nats_url

    def __call__(self, settings: Mapping[str, object], config: str | None = None) -> Gateway:
        gateway = Gateway(self._directories.mktemp("shared"), self._nats_url, settings, config=config)
        self._running.enter_context(gateway).wait_ready()
        return gateway


@pytest.fixture(scope="module")
def share_gateway(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ShareGateway]:
    """A factory of gateways for fixtures of a module, with which they end."""
    with ExitStack() as running:
        yield ShareGateway(running, tmp_path_factory, nats_server.url)


@pytest.fixture
async def bare_nats(tmp_path: Path) -> AsyncIterator[NatsServer]:
    """A nats-server without any stream, for this test alone."""
    async with NatsServer(tmp_path / "nats") as server:
        yield server


@pytest.fixture
async def own_nats(bare_nats: NatsServer) -> NatsServer:
    """A nats-server with the provisioned stream for this test alone."""
    await asyncio.to_thread(provision, bare_nats.url)
    return bare_nats


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
