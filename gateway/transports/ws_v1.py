"""The subprotocol `natsgate.v1`: ops in, replies and feeds out."""

from __future__ import annotations

from gateway.core.dialect import ENVELOPE
from gateway.core.errors import BadRequest, ClientError, Unauthorized
from gateway.core.guard import Door, Entry, Guard
from gateway.core.ops import Auth, BadOp, Op, Ping, Ref, Subscribe, Unsubscribe, error_reply, hello, parse_op, reply
from gateway.core.subjects import feed_name
from gateway.transports.arrival import Arrival
from gateway.transports.room import Room
from gateway.transports.ws import WebSocketConnection

SUBPROTOCOL = "natsgate.v1"


MAX_FEEDS_BYTES = 64 * 1024
"""The filters of all feeds of one connection: in memory each costs some four times its text."""


class V1Connection(WebSocketConnection):
    """One `natsgate.v1` client.

    Args:
        room, arrival, door, entry: see `WebSocketConnection`.
        max_subscriptions: the most feeds at a time; 0 means no limit.
    """

    __slots__ = ("_granted", "_max_subscriptions", "_ref")

    def __init__(
        self, room: Room, arrival: Arrival, door: Door, entry: Entry | None, *, max_subscriptions: int
    ) -> None:
        super().__init__(room, arrival, ENVELOPE, door, entry)
        self._ref: Ref = None
        self._granted = ""
        self._max_subscriptions = max_subscriptions

    def started(self) -> None:
        self.write(hello(self.id, self.room.replica, authenticated=self.is_authenticated))
        entry, self._entry = self._entry, None
        if entry is not None:
            self.entered(entry)

    def entered(self, entry: Entry) -> None:
        if entry.filters:
            self._ref = None
            self._granted = feed_name(entry.filters) if entry.granted else ""
            self.subscribe(entry.filters, entry.start, entry.opening)

    def authenticated(self, guard: Guard, ref: Ref) -> None:
        principal = guard.principal
        ends = None if principal is None else principal.expires_at
        self.write(reply("authenticated", ref=ref, expires_at=None if ends is None else int(ends)))
        if principal is None:
            return
        for name, reader in list(self.feeds.items()):
            # What a service gave is the service's to take: it is asked again.
            if name != self._granted and not all(map(principal.may_subscribe, reader.feed.filters)):
                self.unsubscribe(name)
                message = f"The new token gives no right to subscribe to {name}; the feed has ended."
                self.write(reply("error", ref=ref, code="forbidden", feed=name, message=message))

    def turned_away(self, error: ClientError, ref: Ref) -> None:
        self.write(error_reply(error, ref))

    def subscribing(self, name: str) -> None:
        self.write(reply("subscribed", ref=self._ref, feed=name))

    def message(self, text: bytes) -> None:
        op = parse_op(text)
        try:
            self._answer(op)
        except ClientError as error:
            raise BadOp(error.detail, code=error.code, ref=op.ref) from None

    def refuse(self, error: ClientError) -> None:
        self.write(error_reply(error, error.ref if isinstance(error, BadOp) else None))

    def _answer(self, op: Op) -> None:
        match op:
            case Subscribe():
                if not self.is_authenticated:
                    raise Unauthorized('Say first who you are: {"op":"auth","ref":1,"token":"…"}.', reason="missing")
                if self._max_subscriptions and len(self.feeds) >= self._max_subscriptions:
                    raise BadRequest(
                        f"This connection has {self._max_subscriptions} feeds, which is the most; unsubscribe one, "
                        "or put several filters into one feed.",
                        code="too_many_subscriptions",
                    )
                filters = self._door.allow(self.guard, op.subjects)
                held = sum(map(len, self.feeds)) + sum(len(each.text) for each in filters)
                if held > MAX_FEEDS_BYTES:
                    raise BadRequest(
                        f"The filters of this connection's feeds have more than {MAX_FEEDS_BYTES} characters together; "
                        "unsubscribe some, or use wildcards.",
                        code="too_many_subscriptions",
                    )
                self._ref = op.ref
                self.subscribe(filters, op.start)
            case Unsubscribe():
                if op.feed not in self.feeds:
                    raise BadRequest("There is no such feed on this connection.", code="not_subscribed")
                self.unsubscribe(op.feed)
                if op.feed == self._granted:
                    self._granted = ""  # from now on it needs a right, as any other
                self.write(reply("unsubscribed", ref=op.ref, feed=op.feed))
            case Auth():
                self.authenticate(op.token, op.ref)
            case Ping():
                self.write(reply("pong", ref=op.ref))
