"""Gateways that ask who is there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway
from tests.support.nats_server import NatsServer
from tests.support.tokens import SECRET


@pytest.fixture(scope="session")
def guarded(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A ready gateway with AUTH=jwt and SECRET, shared by all tests."""
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET}
    with Gateway(tmp_path_factory.mktemp("guarded"), nats_server.url, settings) as running:
        running.wait_ready()
        yield running
