"""Raw WebSocket: each event's JSON as it is, and what the client sends to a subject of the route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from functools import partial

import orjson

from gateway.core import frames
from gateway.core.closing import Closing
from gateway.core.dialect import RAW, RAW_WITH_CONTROL
from gateway.core.envelope import BadEvent, check
from gateway.core.errors import BadRequest, ClientError, Unauthorized, UpstreamError
from gateway.core.guard import Door, Entry, Guard, Store
from gateway.core.ops import Auth, Ref, parse_op
from gateway.core.reader import Reader
from gateway.transports.arrival import Arrival
from gateway.transports.room import Published, Room
from gateway.transports.ws import WebSocketConnection
from gateway.transports.ws_frames import MOST_UNREAD_BYTES, UNSTORED

SUBPROTOCOL = "natsgate.raw.v1"

MAX_UNSTORED = 32
"""Messages of one client that the stream has not confirmed yet; at that many, it is not read further."""

_HEARD_OUT = (None, Closing.CLIENT_CLOSED, Closing.DRAINING, Closing.DONE, Closing.GAP, Closing.MAX_AGE, Closing.SLOW)
"""Ends that pass no judgement on the client: what it sent before it knew is stored all the same."""


class RawConnection(WebSocketConnection):
    """One raw client.

    Args:
        room, arrival, door, entry: see `WebSocketConnection`.
        control: whether it gets control frames.
    """

    __slots__ = ("_control", "_granted", "_store", "_tasks")

    def __init__(self, room: Room, arrival: Arrival, door: Door, entry: Entry | None, *, control: bool) -> None:
        super().__init__(room, arrival, RAW_WITH_CONTROL if control else RAW, door, entry)
        self._control = control
        self._granted = False
        self._store: Store | None = None
        self._tasks: set[asyncio.Task[None]] | None = None

    def started(self) -> None:
        entry, self._entry = self._entry, None
        if entry is not None:
            self.entered(entry)

    def entered(self, entry: Entry) -> None:
        self._granted, self._store = entry.granted, entry.store
        self.subscribe(entry.filters, entry.start, entry.opening)

    def left(self, entry: Entry) -> None:
        self._store = entry.store  # for what it sent before it went

    def authenticated(self, guard: Guard, ref: Ref) -> None:
        principal = guard.principal
        ends = None if principal is None else principal.expires_at
        self._say("authenticated", expires_at=None if ends is None else int(ends))
        if principal is None or self._granted:
            return
        if not all(principal.may_subscribe(each) for reader in self.readers() for each in reader.feed.filters):
            self.end(Closing.FORBIDDEN)

    def turned_away(self, error: ClientError, ref: Ref) -> None:
        self.refuse(error)

    def gapped(self, reader: Reader) -> None:
        # Bare events have no word for it. Who is told by a control frame goes on where it named no cursor and has seen
        # nothing yet: it misses nothing in between, and would come back to the same gap for ever.
        if not self._control or reader.announced or reader.events or reader.start.cursor is not None:
            self.end(Closing.GAP)

    def message(self, text: bytes) -> None:
        try:
            payload, content = check(text)
        except BadEvent:
            raise BadRequest("The message is no JSON object.", code="bad_json") from None
        event_type = content.get("type")
        if event_type is None and content.get("op") == "auth":
            op = parse_op(text)
            assert isinstance(op, Auth)
            self.authenticate(op.token, op.ref)
            return
        if not self.is_authenticated:
            raise Unauthorized('Say first who you are: {"op":"auth","token":"…"}.', reason="missing")
        if self._store is None:
            raise BadRequest("This route takes no messages.", code="not_accepted")
        if not isinstance(event_type, str) or not event_type:
            raise BadRequest("The message needs a type: a string that is not empty.", code="bad_request")
        # What came of this message counts already, since it is read when all of it is there.
        if self.room.unread_bytes - self.unread_bytes + len(payload) > MOST_UNREAD_BYTES:
            self.refuse(BadRequest("Too much waits to be stored; come again.", code="not_stored"))
            self.end(Closing.OVERLOADED)
            return
        # A task a message, not a connection. Not reading on bounds their number, and all clients' messages together
        # are bounded in bytes: 32 of each of thousands of clients would be gigabytes while NATS is slow.
        self.room.unread_bytes += len(payload)
        if self._tasks is None:
            self._tasks = set()
        task = asyncio.get_running_loop().create_task(self._stored(self._store(self.guard, event_type, payload)))
        self._tasks.add(task)
        task.add_done_callback(partial(self._settled, len(payload)))
        if len(self._tasks) >= MAX_UNSTORED:
            self.hold_reading(UNSTORED, True)

    async def _stored(self, storing: Awaitable[object]) -> None:
        outcome: Published = "stored"
        try:
            await storing
        except ClientError as error:
            outcome = "refused"
            self.refuse(error)
        except UpstreamError:
            outcome = "unknown"
            self.refuse(BadRequest("The message could not be stored; send it again.", code="not_stored"))
        self.room.published["ws", outcome] += 1

    def _settled(self, size: int, task: asyncio.Task[None]) -> None:
        assert self._tasks is not None
        self.room.unread_bytes -= size
        self._tasks.discard(task)
        self.hold_reading(UNSTORED, False)

    @property
    def takes_messages(self) -> bool:
        return self.ending in _HEARD_OUT

    def refuse(self, error: ClientError) -> None:
        self._say("error", code=error.code, message=error.detail)

    def _say(self, name: str, **fields: object) -> None:
        if self._control and self.ending is None:
            self.write(frames.text(orjson.dumps({"natsgate": name, **fields})))
