"""Fixtures: a broker per test, with or without the stream."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.publishers.broker import Broker


@pytest.fixture
def bare_broker(tmp_path: Path) -> Iterator[Broker]:
    """A broker without a stream."""
    with Broker(tmp_path / "nats") as running:
        yield running


@pytest.fixture
async def broker(bare_broker: Broker) -> Broker:
    """A broker with the contract's stream."""
    await bare_broker.provision()
    return bare_broker
