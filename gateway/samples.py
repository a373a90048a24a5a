"""The numbers behind `/metrics`, read from where they are counted when Prometheus asks."""

from __future__ import annotations

import platform
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar, get_args

from gateway import __version__
from gateway.core.dialect import Transport
from gateway.core.routes import BUILT_IN
from gateway.door import Gate
from gateway.identity import Identity
from gateway.memory import Memory
from gateway.metrics import Sample, Sampler
from gateway.source import Source
from gateway.transports.limits import Limits
from gateway.transports.room import Room

Label = TypeVar("Label", bound=str)


class Samples(Sampler):
    """All numbers of a replica but those that are observed as they happen (see `Metrics`).

    Whatever can be counted is there from the start, as 0, or Prometheus would not see the first of it: a series that
    appears as 5 has not grown. So each count begins with all labels that its type names.

    Args:
        source, room, identity, gate, memory, limits: where things are counted.
    """

    def __init__(
        self,
        source: Source,
        room: Room,
        identity: Identity,
        gate: Gate,
        memory: Memory,
        limits: Limits,
    ) -> None:
        self._source = source
        self._hub = source.hub
        self._room = room
        self._identity = identity
        self._gate = gate
        self._memory = memory
        self._limits = limits

    def samples(self) -> Iterable[Sample]:
        yield from self._of_connections()
        yield from self._of_events()
        yield from self._of_nats()
        yield from self._of_identity()

    def _of_connections(self) -> Iterator[Sample]:
        room, hub = self._room, self._hub
        yield Sample(
            "natsgate_build_info",
            "This build; always 1.",
            {(__version__, platform.python_version()): 1.0},
            ("version", "python"),
        )
        yield Sample(
            "natsgate_connections",
            "Open connections.",
            _floats(self._routes | room.current),
            ("transport", "route"),
        )
        yield Sample(
            "natsgate_connections_opened_total",
            "Connections opened.",
            _floats(self._routes | room.opened),
            ("transport", "route"),
        )
        yield Sample(
            "natsgate_connections_closed_total",
            "Connections ended, by reason.",
            _floats(room.closed),
            ("transport", "reason"),
        )
        yield Sample(
            "natsgate_requests_rejected_total",
            "Requests refused, by reason.",
            _by_one(room.rejected),
            ("reason",),
        )
        yield Sample(
            "natsgate_requests_waiting",
            "Connections whose request is not whole yet.",
            {(): len(self._limits.waiting)},
        )
        yield Sample(
            "natsgate_admitted",
            "What counts against the limits of connections: them, and the users and addresses that they are of.",
            _by_one(room.admission.counts),
            ("what",),
        )
        yield Sample(
            "natsgate_unread_bytes",
            "What WebSocket clients have sent of messages that are not whole, wait or are not stored yet, in bytes.",
            {(): room.unread_bytes + self._limits.early_bytes},
        )
        yield Sample(
            "natsgate_feeds",
            "Feeds that are served: SSE connections and WebSocket subscriptions.",
            {(): len(hub.readers)},
        )
        yield Sample(
            "natsgate_connections_behind",
            "Connections that are not at the head: they read forward, wait, or their socket is full.",
            {(): hub.behind},
        )
        yield Sample(
            "natsgate_publishes_total",
            "Events of clients, by the way they came and what became of them.",
            _floats(room.published),
            ("via", "outcome"),
        )

    @property
    def _routes(self) -> dict[tuple[str, str], int]:
        """None at any of the routes there are."""
        found = {(transport, BUILT_IN): 0 for transport in get_args(Transport)}
        return found | {(each, spec.name): 0 for spec in self._gate.settings.route for each in spec.transports}

    def _of_events(self) -> Iterator[Sample]:
        hub, log = self._hub, self._hub.log
        delivered = hub.fan_out.delivered
        bucket = self._source.revocations
        yield Sample(
            "natsgate_events_received_total",
            "Events received from the stream's live path, by the first token of their subject.",
            {(root.decode("ascii"),): float(number) for root, number in self._source.intake.received.items()},
            ("root",),
        )
        yield Sample(
            "natsgate_events_dropped_total",
            "Messages that no client gets, by reason.",
            _by_one(log.dropped),
            ("reason",),
        )
        yield Sample(
            "natsgate_deliveries_total",
            "Events written to clients, once for each client.",
            {(name,): float(each.events) for name, each in delivered.items()},
            ("transport",),
        )
        yield Sample(
            "natsgate_sent_bytes_total",
            "Bytes of events written to clients.",
            {(name,): float(each.bytes) for name, each in delivered.items()},
            ("transport",),
        )
        yield Sample(
            "natsgate_replayed_events_total",
            "Events written to clients that read forward, by where they were read.",
            _by_one(hub.replayed),
            ("source",),
        )
        yield Sample(
            "natsgate_replays_total",
            "Clients that read forward, by where from and how it ended.",
            {("log", "done"): float(hub.resumed)}
            | {("stream", outcome): float(number) for outcome, number in self._source.replay.outcomes.items()},
            ("source", "outcome"),
        )
        yield Sample("natsgate_gaps_total", "Gaps told to clients, by reason.", _by_one(hub.gaps), ("reason",))
        yield Sample("natsgate_log_bytes", "Bytes held by the event log.", {(): log.bytes})
        yield Sample(
            "natsgate_held_bytes",
            "What came from NATS and waits for a read of what came before it: of the stream, of the revoked, in bytes.",
            _by_one(
                {"live": self._source.intake.held_bytes, "revoked": 0 if bucket is None else bucket.ledger.heard_bytes}
            ),
            ("what",),
        )
        yield Sample("natsgate_log_events", "Events held by the event log.", {(): len(log)})

    def _of_nats(self) -> Iterator[Sample]:
        nats = self._source.nats
        yield Sample(
            "natsgate_holes_repaired_total",
            "Holes of the live path that were filled from the stream, by what found them.",
            _by_one(self._source.tap.repaired),
            ("found_by",),
        )
        yield Sample("natsgate_nats_connected", "1 while NATS is connected, else 0.", {(): float(nats.connected)})
        yield Sample("natsgate_nats_reconnects_total", "Reconnects to NATS.", {(): nats.reconnects})
        yield Sample("natsgate_nats_subscriptions", "Subscriptions for events on NATS.", {(): nats.subscriptions})

    def _of_identity(self) -> Iterator[Sample]:
        yield Sample(
            "natsgate_auth_failures_total",
            "Tokens and origins that were refused, by reason.",
            _by_one(self._identity.failures),
            ("reason",),
        )
        cached = {"tokens": self._identity.cached_bytes, "services": self._gate.services.cache.bytes}
        jwks = self._identity.jwks
        if jwks is not None:
            cached["absent_keys"] = jwks.absent.bytes
        yield Sample(
            "natsgate_auth_cache_bytes",
            "Bytes held of verified tokens, of services' answers, and of names of keys that the issuer does not have.",
            _by_one(cached),
            ("cache",),
        )
        yield Sample(
            "natsgate_jwks_fetches_total",
            "Fetches of the issuer's keys, by how they went.",
            _by_one({} if jwks is None else jwks.fetches),
            ("outcome",),
        )
        yield Sample(
            "natsgate_revoked_users",
            "Users whose older tokens are refused.",
            {(): len(self._identity.revoked)},
        )
        yield Sample(
            "natsgate_memory_limit_bytes",
            "Memory above 90 % of which new connections are turned away, in bytes; 0: no limit.",
            {(): self._memory.limit_bytes},
        )
        yield Sample(
            "natsgate_memory_used_bytes",
            "Memory that counts against that limit, in bytes.",
            {(): self._memory.used_bytes},
        )


def _floats(counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, ...], float]:
    return {labels: float(number) for labels, number in counts.items()}


def _by_one(counts: Mapping[Label, int]) -> dict[tuple[str, ...], float]:
    return {(label,): float(number) for label, number in counts.items()}
