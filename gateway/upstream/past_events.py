"""Past events: what the stream has stored, as readers are written it. The log does not keep them."""

from __future__ import annotations

from gateway.core.event import Event
from gateway.core.index import Topic
from gateway.core.log import Log
from gateway.upstream.reads import Stored


class PastEvents:
    """Makes events of stored messages.

    Args:
        log: the life of the stream that their cursors belong to is its.
        max_event_bytes: larger payloads are not delivered; 0 means no limit.
    """

    def __init__(self, log: Log, max_event_bytes: int) -> None:
        self._log = log
        self.max_event_bytes = max_event_bytes

    def of(self, messages: list[Stored]) -> list[Event]:
        """Their events, but those that nobody gets."""
        topics: dict[bytes, Topic] = {}
        events = []
        for message in messages:
            if self.max_event_bytes and len(message.payload) > self.max_event_bytes:
                continue
            topic = topics.get(message.subject)
            if topic is None:
                topic = topics[message.subject] = Topic(message.subject)
            event = Event(message.sequence, topic, message.payload, self._log.prefix)
            self._log.check(event)  # not counted: each replica that was listening did, when it was live
            if event.good:
                events.append(event)
        return events
