"""The sockets of a connection to NATS: each attempt has one, and none is left behind."""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path
from random import Random

import pytest

from gateway.background import end
from gateway.upstream.connection import NatsConnection
from gateway.upstream.login import connect_options
from tests.support.eventually import eventually
from tests.support.nats_proxy import NatsProxy
from tests.support.nats_server import NatsServer

ATTEMPTS = 12


async def test_refused_attempts_leave_no_socket(bare_nats: NatsServer, tmp_path: Path) -> None:
    """A server that takes connections and refuses the login, again and again: as many descriptors are open after a
    dozen attempts as after two, also where nothing is collected meanwhile."""
    refused: list[str] = []
    demanding = NatsServer(tmp_path / "nats", arguments=["--user", "somebody", "--pass", "else"])
    async with demanding, NatsProxy(bare_nats.port) as proxy:
        nats = NatsConnection(
            connect_options(urls=(proxy.url,), name="sockets"),
            random=Random(),
            on_change=lambda up: None,
            on_trouble=lambda event, fields: refused.append(str(fields)),
        )
        running = asyncio.create_task(nats.run())

        async def connected() -> bool:
            return nats.connected

        async def refused_times(times: int) -> int:
            async def are() -> bool:
                return len([each for each in refused if "authorization" in each.lower()]) >= times

            await eventually(are, f"it was refused {times} times", timeout_s=40)
            return len(os.listdir("/proc/self/fd"))

        try:
            await eventually(connected, "it is connected")
            gc.collect()
            gc.disable()
            proxy.redirect(demanding.port)
            proxy.cut()
            before = await refused_times(2)
            assert await refused_times(2 + ATTEMPTS) < before + ATTEMPTS // 2
        finally:
            gc.enable()
            await end([running])


@pytest.fixture(autouse=True)
def collected() -> None:
    """What earlier tests left is none of ours."""
    gc.collect()
