"""Scenes of attacks, each with a gateway of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import pytest

from tests.attacks.scene import Scene
from tests.conftest import StartGateway
from tests.support.nats_server import NatsServer


class MakeScene(Protocol):
    """Makes a scene: its name, what the attack may take (see `Scene`), and settings of the gateway."""

    async def __call__(self, name: str, settings: Mapping[str, object] | None = None, **bounds: Any) -> Scene: ...


@pytest.fixture
def make_scene(start_gateway: StartGateway, nats_server: NatsServer, own_id: str) -> MakeScene:
    """A factory of scenes."""

    async def make(name: str, settings: Mapping[str, object] | None = None, **bounds: Any) -> Scene:
        gateway = await start_gateway(settings=settings)
        return Scene(name, gateway, nats_server.url, own_id, **bounds)

    return make
