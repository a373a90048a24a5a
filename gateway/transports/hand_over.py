"""Handing a socket over: from the protocol that has read its request to the connection that keeps it."""

from __future__ import annotations

import asyncio

from gateway.transports.connection import Connection


class Gone:
    """Stands in for the transport of a protocol that no longer has one."""

    def is_closing(self) -> bool:
        return True

    def close(self) -> None:
        """There is nothing to close."""

    def write(self, data: bytes) -> None:
        """There is nobody to write to."""


def hand_over(transport: asyncio.Transport, connection: Connection, connections: set[object], *, full: bool) -> None:
    """Make the connection the protocol of a transport.

    Args:
        transport, connection: what is handed over, and to whom.
        connections: the server's set of all connections.
        full: whether the socket takes no more bytes, as its protocol so far was told.
    """
    transport.set_protocol(connection)
    if not transport.is_reading():
        transport.resume_reading()  # or nobody would notice that the client goes
    connection.attach(transport, connections)
    if full and connection.transport is not None and not connection.paused:
        connection.pause_writing()  # by answers of before: who gave them was told, and nobody is told twice
