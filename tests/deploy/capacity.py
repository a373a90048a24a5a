"""What a replica needs, by the rule of deploy/README.md: every memory limit here is held against it."""

from __future__ import annotations

from gateway.descriptors import RESERVED
from gateway.transports.limits import MOST_WAITING

OWN_BYTES = 50 * 2**20
"""A process without clients and events."""

LOG_FACTOR = 2
"""The event log with its index, and what Python's allocator keeps besides."""

CONNECTION_BYTES = 20 * 2**10
"""3.1 KB for an idle WebSocket, as much in the kernel, one in fifty stalled with 43 KB and 384 KiB in the kernel; the
rest, a quarter, is to spare."""

FULL = 0.9
"""MEMORY_LIMIT_BYTES: from here on the gateway turns new connections away."""

SPARE_DESCRIPTORS = MOST_WAITING + RESERVED
"""Beside a descriptor for each connection: for requests that are not whole yet, and for the gateway itself."""


def memory_bytes(*, connections: float, log_bytes: float) -> float:
    """What so many connections need."""
    return OWN_BYTES + LOG_FACTOR * log_bytes + connections * CONNECTION_BYTES
