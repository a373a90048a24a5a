"""Readiness: whether a replica should get traffic, and why not."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.identity import Identity
from gateway.upstream.connection import NatsConnection
from gateway.upstream.revocations import Revocations
from gateway.upstream.tap import Tap


class Readiness:
    """What `/readyz` says.

    Once it was usable, a NATS outage does not make a replica unready: that would turn every EventSource's reconnect
    into a 503, which kills it for good.

    Args:
        replica, stream: their names.
        nats, tap, identity, revocations: what has to be usable once; None: nobody can be revoked.
        draining: set while everybody is sent to other replicas.
    """

    def __init__(
        self,
        replica: str,
        stream: str,
        nats: NatsConnection,
        tap: Tap,
        identity: Identity,
        revocations: Revocations | None,
        draining: asyncio.Event,
    ) -> None:
        self._replica = replica
        self._stream = stream
        self._nats = nats
        self._tap = tap
        self._identity = identity
        self._revocations = revocations
        self._draining = draining

    def now(self) -> tuple[bool, dict[str, Any]]:
        """Whether it should get traffic, and the JSON that says why not."""
        draining = self._draining.is_set()
        known = self._identity.usable_once and (self._revocations is None or self._revocations.loaded)
        ready = self._tap.usable_once and known and not draining
        reasons = ["draining"] if draining else []
        reasons += self._tap.reasons + self._identity.reasons
        if self._revocations is not None:
            reasons += self._revocations.reasons
        return ready, {
            "ready": ready,
            "reasons": reasons,
            "replica": self._replica,
            "nats": {"connected": self._nats.connected, "server": self._nats.server},
            "stream": {"name": self._stream, "usable": self._tap.usable.is_set()},
        }
