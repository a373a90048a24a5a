"""Browsers, the site that they visit, and the gateway behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.support.browser import Browser, Chromium, Firefox
from tests.support.gateway import Gateway
from tests.support.metrics import Metrics
from tests.support.nats_server import NatsServer
from tests.support.site import Site
from tests.support.tab import Page, Tab
from tests.support.tokens import JWT

OWN = "app.shop.localhost"
SIBLING = "admin.shop.localhost"
PARTNER = "partner.localhost"
STRANGER = "blog.shop.localhost"
FOREIGNER = "elsewhere.localhost"


def settings(site: Site, **more: object) -> dict[str, object]:
    """Of a gateway that is behind the site and lets two origins in beside its own."""
    allowed = f"{site.origin(SIBLING)},{site.origin(PARTNER)}"
    return {**JWT, "JWT_LEEWAY_S": 0, "ALLOWED_ORIGINS": allowed, **more}


@dataclass(frozen=True)
class Visit:
    """One test's use of a browser.

    Attributes:
        tab: the browser's one tab.
        site: the gateway is `http://app.shop.localhost` on its port, the pages' are that and others.
        gateway: what is behind the site.
    """

    tab: Tab
    site: Site
    gateway: Gateway

    @property
    def url(self) -> str:
        """The gateway, as pages of other origins have to call it."""
        return self.site.origin(OWN)

    @property
    def ws_url(self) -> str:
        return self.url.replace("http://", "ws://", 1)

    async def own(self) -> Page:
        """A page of the gateway's own origin."""
        return await self.tab.visit(self.site.origin(OWN))

    async def sibling(self) -> Page:
        """A page of an allowed origin of the same site: it has another host name."""
        return await self.tab.visit(self.site.origin(SIBLING))

    async def partner(self) -> Page:
        """A page of an allowed origin of another site."""
        return await self.tab.visit(self.site.origin(PARTNER))

    async def stranger(self) -> Page:
        """A page of the same site whose origin is not allowed."""
        return await self.tab.visit(self.site.origin(STRANGER))

    async def foreigner(self) -> Page:
        """A page of another site whose origin is not allowed."""
        return await self.tab.visit(self.site.origin(FOREIGNER))

    async def metrics(self) -> Metrics:
        return await asyncio.to_thread(self.gateway.metrics)

    async def refused_origins(self) -> float:
        """How many requests the gateway has refused for their page's origin."""
        return (await self.metrics()).total("natsgate_auth_failures_total", reason="origin")

    async def opened(self) -> float:
        """How many streams and sockets it has let in."""
        return (await self.metrics()).total("natsgate_connections_opened_total")


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """The site of all browser tests."""
    with Site() as serving:
        yield serving


@pytest.fixture(scope="session")
def shop(site: Site, nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """The gateway that is behind the site, unless a test puts another one there."""
    with Gateway(tmp_path_factory.mktemp("shop"), nats_server.url, settings(site)) as running:
        running.wait_ready()
        yield running


@pytest.fixture(scope="session", params=[Chromium, Firefox], ids=["chromium", "firefox"])
def tab(request: pytest.FixtureRequest, site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tab]:
    """A browser that runs, shared by all tests; they fail where it is not installed."""
    kind: type[Browser] = request.param
    with kind(tmp_path_factory.mktemp(kind.name)) as browser:
        tab = Tab(browser, site)
        tab.start(site.origin(OWN))
        yield tab


@pytest.fixture
async def visit(tab: Tab, site: Site, shop: Gateway) -> Visit:
    """The browser on a page of the gateway's own origin, with nobody signed in."""
    site.gateway = shop
    visit = Visit(tab, site, shop)
    page = await visit.own()
    await page.run("await signOut()")
    site.exchanges.clear()
    return visit
