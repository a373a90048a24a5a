"""The subprotocol `natsgate.v1`: ops in, replies and feeds out."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.core.dialect import ENVELOPE
from gateway.core.errors import BadRequest, ClientError
from gateway.core.ops import BadOp, Op, Ping, Ref, Subscribe, Unsubscribe, error_reply, parse_op, reply
from gateway.core.start import Start
from gateway.core.subjects import Filter
from gateway.transports.room import Room
from gateway.transports.ws import WebSocketConnection

SUBPROTOCOL = "natsgate.v1"

Allow = Callable[[tuple[str, ...]], list[Filter]]
"""Turns filters as a client wrote them into filters that it may have. Raises `ClientError`."""


class V1Connection(WebSocketConnection):
    """One `natsgate.v1` client.

    Args:
        room, route: see `Connection`.
        allow: checks filters against the client's rights.
        first: the feed that a configured route begins with; empty for none; `start`: where it begins.
        max_subscriptions: the most feeds at a time; 0 means no limit.
        authenticated: whether the client has proved who it is.
    """

    __slots__ = ("_allow", "_authenticated", "_first", "_max_subscriptions", "_ref", "_start")

    def __init__(
        self,
        room: Room,
        route: str,
        *,
        allow: Allow,
        first: Sequence[Filter],
        start: Start,
        max_subscriptions: int,
        authenticated: bool,
    ) -> None:
        super().__init__(room, route, ENVELOPE)
        self._allow = allow
        self._first = first
        self._start = start
        self._ref: Ref = None
        self._max_subscriptions = max_subscriptions
        self._authenticated = authenticated

    def started(self) -> None:
        self.write(reply("hello", connection=self.id, replica=self.room.replica, authenticated=self._authenticated))
        if self._first:
            self.subscribe(self._first, self._start)
            self._first = ()

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
                if self._max_subscriptions and len(self.feeds) >= self._max_subscriptions:
                    raise BadRequest(
                        f"This connection has {self._max_subscriptions} feeds, which is the most; unsubscribe one, "
                        "or put several filters into one feed.",
                        code="too_many_subscriptions",
                    )
                self._ref = op.ref
                self.subscribe(self._allow(op.subjects), op.start)
            case Unsubscribe():
                if op.feed not in self.feeds:
                    raise BadRequest("There is no such feed on this connection.", code="not_subscribed")
                self.unsubscribe(op.feed)
                self.write(reply("unsubscribed", ref=op.ref, feed=op.feed))
            case Ping():
                self.write(reply("pong", ref=op.ref))
