"""What publishing can fail with. Malformed ids, subjects and events are `wire.WireError`s instead."""

from __future__ import annotations


class PublishError(Exception):
    """Base of every failure to publish; the message says what happened, where, and what to do."""


class SettingsError(PublishError, ValueError):
    """A setting is wrong: the message names it."""


class BufferFull(PublishError):
    """NATS is away and the buffer holds all it may: the event was not taken, nothing of it was sent."""


class PublishTimeout(PublishError):
    """No acknowledgement in time.

    `outcome_unknown` is False when the event is certainly not stored, True when it may be; then publish it
    again with the same `msg_id` within the stream's duplicate window, and it is stored once.
    """

    def __init__(self, message: str, *, outcome_unknown: bool) -> None:
        super().__init__(message)
        self.outcome_unknown = outcome_unknown


class Refused(PublishError):
    """The stream said no for good; the event is not stored. `code` and `err_code` are the server's."""

    def __init__(self, message: str, *, code: int, err_code: int) -> None:
        super().__init__(message)
        self.code = code
        self.err_code = err_code


class FlushTimeout(PublishError):
    """A flush or close ran out of time: `unsent` events are not stored, `unknown` ones may be."""

    def __init__(self, message: str, *, unsent: int, unknown: int) -> None:
        super().__init__(message)
        self.unsent = unsent
        self.unknown = unknown


class PublisherClosed(PublishError):
    """The publisher is closed, or was never opened."""


class NatsUnreachable(PublishError):
    """NATS did not answer within the time given; the message holds the last reason."""
