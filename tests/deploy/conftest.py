"""Two replicas, and the proxies before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartGateway
from tests.deploy.proxy import PROXIES, Certificate, Proxy
from tests.deploy.tls_relay import TlsRelay
from tests.support.gateway import Gateway


@dataclass
class Front:
    """A proxy, what stands behind it, and a way in for plain clients.

    Attributes:
        relay: speaks TLS to the proxy.
        replicas: the gateways, by the names that they tell.
    """

    proxy: Proxy
    relay: TlsRelay
    replicas: dict[str, Gateway]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """The certificate of all proxies."""
    return Certificate(tmp_path_factory.mktemp("secrets"))


@pytest.fixture(params=sorted(PROXIES))
def proxy_kind(request: pytest.FixtureRequest) -> type[Proxy]:
    """nginx, then HAProxy."""
    kind: type[Proxy] = PROXIES[request.param]
    return kind


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """What ends with the test, last come, first gone."""
    async with AsyncExitStack() as opened:
        yield opened


class FrontFactory:
    """Starts a proxy, with the given settings for both replicas behind it."""

    def __init__(
        self, stack: AsyncExitStack, start: StartGateway, kind: type[Proxy], certificate: Certificate, tmp_path: Path
    ) -> None:
        self._stack = stack
        self._start = start
        self._kind = kind
        self._certificate = certificate
        self._directory = tmp_path

    async def __call__(self, *, timeout_s: int | None = None, **settings: object) -> Front:
        replicas = {name: await self._start(settings={"REPLICA": name, **settings}) for name in ("one", "two")}
        proxy = self._kind(
            self._directory / self._kind.name,
            self._certificate,
            [each.port for each in replicas.values()],
            timeout_s=timeout_s,
        )
        await asyncio.to_thread(self._stack.enter_context, proxy)
        return Front(proxy, await self.relay(proxy), replicas)

    async def relay(self, proxy: Proxy, *, address: str = "127.0.0.1") -> TlsRelay:
        """Another way in, from another address."""
        return await self._stack.enter_async_context(TlsRelay(proxy.port, self._certificate.authority, address=address))


@pytest.fixture
def start_front(
    stack: AsyncExitStack,
    start_gateway: StartGateway,
    proxy_kind: type[Proxy],
    certificate: Certificate,
    tmp_path: Path,
) -> FrontFactory:
    """A factory: `front = await start_front(HEARTBEAT_S=0.3)`."""
    return FrontFactory(stack, start_gateway, proxy_kind, certificate, tmp_path)


@pytest.fixture
async def front(start_front: FrontFactory) -> Front:
    """A proxy before two replicas with default settings."""
    return await start_front()
