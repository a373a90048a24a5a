"""Readiness: whether a replica should get traffic, and why not."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.identity import Identity
from gateway.source import Source


class Readiness:
    """What `/readyz` says.

    Once it was usable, a NATS outage does not make a replica unready: that would turn every EventSource's reconnect
    into a 503, which kills it for good.

    Args:
        replica, stream: their names.
        source, identity: what has to be usable once.
        draining: set while everybody is sent to other replicas.
    """

    def __init__(
        self,
        replica: str,
        stream: str,
        source: Source,
        identity: Identity,
        draining: asyncio.Event,
    ) -> None:
        self._replica = replica
        self._stream = stream
        self._source = source
        self._identity = identity
        self._draining = draining

    def now(self) -> tuple[bool, dict[str, Any]]:
        """Whether it should get traffic, and the JSON that says why not."""
        nats, availability, revocations = self._source.nats, self._source.availability, self._source.revocations
        draining = self._draining.is_set()
        known = self._identity.usable_once and self._source.knows_who_is_revoked
        ready = availability.usable_once and known and not draining
        reasons = ["draining"] if draining else []
        reasons += availability.reasons + self._identity.reasons
        if revocations is not None:
            reasons += revocations.reasons
        return ready, {
            "ready": ready,
            "reasons": reasons,
            "replica": self._replica,
            "nats": {"connected": nats.connected, "server": nats.server},
            "stream": {"name": self._stream, "usable": availability.usable.is_set()},
        }
