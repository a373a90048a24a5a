"""Gateways whose routes ask services."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.gateway import Gateway, routes
from tests.support.nats_server import NatsServer
from tests.support.tokens import SECRET


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
        [
            'name = "board"',
            'path = "/boards/{project_id}"',
            'transports = ["ws"]',
            'subjects = ["project.{project_id}.>"]',
            'framing = "raw"',
            'publish = "inbox.project.{project_id}.{type}"',
            'authorize = "service"',
        ],
    )


@pytest.fixture(scope="session")
def served(nats_server: NatsServer, tmp_path_factory: pytest.TempPathFactory, service_routes: str) -> Iterator[Gateway]:
    """A ready gateway with AUTH=jwt and `service_routes`, shared by all tests."""
    settings = {"AUTH": "jwt", "JWT_SECRET": SECRET, "MAX_CONNECTIONS_PER_SUB": 0}
    with Gateway(tmp_path_factory.mktemp("served"), nats_server.url, settings, config=service_routes) as running:
        running.wait_ready()
        yield running
