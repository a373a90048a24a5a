"""An arrival: what is known of a client when its request becomes a connection."""

from __future__ import annotations

from typing import NamedTuple

from gateway.core.guard import Guard


class Arrival(NamedTuple):
    """How a client came.

    Attributes:
        route: the label of the route it came by.
        guard: whose it is, and for how long; None: everybody's, for ever.
        remote: the address that it came from.
    """

    route: str
    guard: Guard | None
    remote: str
