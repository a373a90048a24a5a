"""Gateways whose routes ask services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.auth.boards import RAW_BOARD
from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.tokens import JWT


@pytest.fixture(scope="session")
def service_routes() -> str:
    """Routes that ask services: `task` for both transports, `other` beside it, `board` raw with messages back."""
    return routes(
        [
            'name = "task"',
            'path = "/tasks/{task_id}"',
            'subjects = ["task.{task_id}.>"]',
            'authorize = "service"',
        ],
        [
            'name = "other"',
            'path = "/others/{task_id}"',
            'subjects = ["task.{task_id}.>"]',
            'authorize = "service"',
        ],
        [*RAW_BOARD, 'authorize = "service"'],
    )


@pytest.fixture(scope="session")
def served(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory, service_routes: str) -> Iterator[Gateway]:
    """A ready gateway with AUTH=jwt and `service_routes`, shared by all tests."""
    settings = JWT | {"MAX_CONNECTIONS_PER_SUB": 0}
    with Gateway(tmp_path_factory.mktemp("served"), nats_server.url, settings, config=service_routes) as running:
        running.wait_ready()
        yield running
