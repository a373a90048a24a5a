"""natsgate's library for producers: publish events into the stream, from asyncio or from threads.

`publishers.wire` (ids, subjects, envelopes) is pure; import it alone where no NATS is needed.
"""

from publishers.errors import (
    BufferFull,
    FlushTimeout,
    NatsUnreachable,
    PublisherClosed,
    PublishError,
    PublishTimeout,
    Refused,
    SettingsError,
)
from publishers.outbox import Ack
from publishers.publisher import Publisher, Stats
from publishers.settings import Settings
from publishers.sync_publisher import SyncPublisher

__all__ = [
    "Ack",
    "BufferFull",
    "FlushTimeout",
    "NatsUnreachable",
    "PublishError",
    "PublishTimeout",
    "Publisher",
    "PublisherClosed",
    "Refused",
    "Settings",
    "SettingsError",
    "Stats",
    "SyncPublisher",
]
