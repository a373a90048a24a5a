"""A barrier: what was sent over a nats-py connection has reached the server."""

from __future__ import annotations

from nats.aio.client import Client


async def barrier(nc: Client) -> None:
    """Wait until the server knows of every subscription so far. nats-py's first ping may overtake what is still
    buffered, the second one cannot."""
    await nc.flush()
    await nc.flush()
