"""The connection of a command ends with the command, whatever nats-py makes of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from gateway.commands.nats_session import open_session
from gateway.commands.outcome import NatsNotReached
from gateway.settings import load_settings
from gateway.upstream.connection import NatsConnection
from tests.support.ports import free_port


async def test_a_lost_cancellation_does_not_hold_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """`asyncio.wait_for` of Python 3.11 may lose a cancellation, and nats-py then goes on trying: who does not reach
    NATS is told so all the same."""
    run = NatsConnection.run
    lost = 0

    async def deaf_once(connection: NatsConnection) -> None:
        nonlocal lost
        with contextlib.suppress(asyncio.CancelledError):
            await run(connection)
        lost += 1
        await run(connection)

    monkeypatch.setattr(NatsConnection, "run", deaf_once)
    settings = load_settings(
        {
            "NATSGATE_AUTH": "none",
            "NATSGATE_NATS_URL": f"nats://127.0.0.1:{free_port()}",
            "NATSGATE_START_TIMEOUT_S": "0.2",
        }
    )
    with pytest.raises(NatsNotReached):
        async with asyncio.timeout(20), open_session(settings):
            pass
    assert lost == 1
