"""Background: the tasks that run beside the server, and their end."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

CANCEL_AGAIN_S = 1.5
"""How long what runs in the background may take to end; longer than NATS is given to close its connections."""


async def end(tasks: Collection[asyncio.Task[None]]) -> None:
    """Cancel tasks until they have ended. Once is not enough: `asyncio.wait_for` of Python 3.11, on which nats-py
    stands, loses a cancellation that comes in the same moment as what it waits for."""
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        _, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
