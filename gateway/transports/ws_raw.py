"""Raw WebSocket: each event's JSON as it is, and what the client sends to a subject of the route."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import orjson

from gateway.core import frames
from gateway.core.closing import Closing
from gateway.core.dialect import RAW, RAW_WITH_CONTROL
from gateway.core.envelope import BadEvent, check
from gateway.core.errors import BadRequest, ClientError, UpstreamError
from gateway.core.reader import Reader
from gateway.core.start import Start
from gateway.core.subjects import Filter
from gateway.transports.room import Room
from gateway.transports.ws import UNSTORED, WebSocketConnection

SUBPROTOCOL = "natsgate.raw.v1"

MAX_UNSTORED = 32
"""Messages of one client that the stream has not confirmed yet; at that many, it is not read further."""

Store = Callable[[str, bytes], Awaitable[object]]
"""Stores a client's message: takes its `type` and its JSON. Raises `ClientError` or `UpstreamError`."""


_HEARD_OUT = (None, Closing.CLIENT_CLOSED, Closing.DRAINING, Closing.DONE, Closing.GAP, Closing.MAX_AGE, Closing.SLOW)
"""Ends that pass no judgement on the client: what it sent before it knew is stored all the same."""


class RawConnection(WebSocketConnection):
    """One raw client.

    Args:
        room, route: see `Connection`.
        filters: the route's feed; `start`: where it begins.
        control: whether it gets control frames.
        store: where its messages go; None: nowhere.
    """

    __slots__ = ("_control", "_filters", "_start", "_store", "_tasks")

    def __init__(
        self, room: Room, route: str, filters: Sequence[Filter], start: Start, *, control: bool, store: Store | None
    ) -> None:
        super().__init__(room, route, RAW_WITH_CONTROL if control else RAW)
        self._filters = filters
        self._start = start
        self._control = control
        self._store = store
        self._tasks: set[asyncio.Task[None]] | None = None

    def started(self) -> None:
        self.subscribe(self._filters, self._start)
        self._filters = ()

    def gapped(self) -> None:
        self.end(Closing.GAP)  # bare events have no word for it

    def reached_head(self, reader: Reader) -> None:
        self.end(Closing.DONE)

    @property
    def takes_messages(self) -> bool:
        return self.ending in _HEARD_OUT

    def message(self, text: bytes) -> None:
        if self._store is None:
            raise BadRequest("This route takes no messages.", code="not_accepted")
        try:
            payload, content = check(text)
        except BadEvent:
            raise BadRequest("The message is no JSON object.", code="bad_json") from None
        event_type = content.get("type")
        if not isinstance(event_type, str) or not event_type:
            raise BadRequest("The message needs a type: a string that is not empty.", code="bad_request")
        # A task a message, not a connection; their number is bounded by not reading on.
        if self._tasks is None:
            self._tasks = set()
        task = asyncio.get_running_loop().create_task(self._stored(self._store(event_type, payload)))
        self._tasks.add(task)
        task.add_done_callback(self._settled)
        if len(self._tasks) >= MAX_UNSTORED:
            self.hold_reading(UNSTORED, True)

    async def _stored(self, storing: Awaitable[object]) -> None:
        try:
            await storing
        except ClientError as error:
            self.refuse(error)
        except UpstreamError:
            self.refuse(BadRequest("The message could not be stored; send it again.", code="not_stored"))

    def _settled(self, task: asyncio.Task[None]) -> None:
        assert self._tasks is not None
        self._tasks.discard(task)
        self.hold_reading(UNSTORED, False)

    def refuse(self, error: ClientError) -> None:
        if self._control and self.ending is None:
            content = {"natsgate": "error", "code": error.code, "message": error.detail}
            self.write(frames.text(orjson.dumps(content)))
