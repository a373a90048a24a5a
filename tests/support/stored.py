"""What the stream stored, read by a consumer of its own: the measure of what a client has to get."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from nats.aio.client import Client
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

_FETCH = 500


class StoredEvent(NamedTuple):
    """One event as the stream keeps it."""

    sequence: int
    subject: str
    text: str


async def stored(nc: Client, *filters: str, after: int = 0, stream: str = "EVENTS") -> list[StoredEvent]:
    """Every event of these filters behind a sequence, ascending, up to the stream's end."""
    js = nc.jetstream()
    config = ConsumerConfig(
        ack_policy=AckPolicy.NONE,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=after + 1,
        filter_subjects=list(filters),
        inactive_threshold=30,
    )
    info = await js.add_consumer(stream, config)
    found: list[StoredEvent] = []
    pending = info.num_pending or 0
    reading = await js.pull_subscribe_bind(info.name, stream=stream)
    while len(found) < pending:
        found += [
            StoredEvent(message.metadata.sequence.stream, message.subject, message.data.decode())
            for message in await reading.fetch(min(_FETCH, pending - len(found)), timeout=10)
        ]
    await reading.unsubscribe()
    await js.delete_consumer(stream, info.name)
    return found


def sequence_of(cursor: str | None) -> int:
    """The stream sequence in a cursor."""
    assert cursor, "no cursor"
    return int(cursor.rpartition("-")[2])


def moved(cursor: str, step: Callable[[int], int]) -> str:
    """The cursor of another place in the same life of the stream."""
    life, _, sequence = cursor.rpartition("-")
    return f"{life}-{step(int(sequence))}"
