"""What counts against the limits, as `/metrics` shows it."""

from __future__ import annotations

import asyncio

from tests.support.eventually import eventually
from tests.support.gateway import Gateway

Counts = dict[str, float]
NOBODY: Counts = {"connections": 0, "subs": 0, "addresses": 0, "waiting": 0, "open": 0, "feeds": 0}


def counts(gateway: Gateway) -> Counts:
    """Connections, users and addresses that are counted; requests that wait (but this one); open connections; feeds."""
    metrics = gateway.metrics()
    return {
        **metrics.by("natsgate_admitted", "what"),
        "waiting": metrics.total("natsgate_requests_waiting"),
        "open": metrics.total("natsgate_connections"),
        "feeds": metrics.total("natsgate_feeds"),
    }


async def until_counts(gateway: Gateway, timeout_s: float = 15, **wanted: float) -> None:
    """Wait until these counts are what they should be."""

    async def are() -> Counts | None:
        try:
            found = await asyncio.to_thread(counts, gateway)
        except ConnectionResetError:
            return None  # in a crowd the request that has waited longest is given up, and ours may be that one
        return found if wanted.items() <= found.items() else None

    await eventually(are, f"the counts are {wanted}", timeout_s=timeout_s)


async def until_nobody(gateway: Gateway, timeout_s: float = 15) -> None:
    """Wait until nothing is left of anybody."""
    await until_counts(gateway, timeout_s, **NOBODY)
