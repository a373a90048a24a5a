"""The cluster of each test: three nodes and the stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.nats_cluster import NatsCluster


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[NatsCluster]:
    """Three nodes with the stream on all of them, for this test alone."""
    async with NatsCluster(tmp_path / "cluster") as trio:
        await trio.make_stream()
        yield trio
