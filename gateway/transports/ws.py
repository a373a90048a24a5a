"""A WebSocket connection: who its client is, and the feeds that it has; events go out as shared bytes.

Two kinds share it: `natsgate.v1` (ops and feeds) and raw (bare events of one route, bare messages back).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from gateway.core.closing import Closing
from gateway.core.dialect import Dialect
from gateway.core.errors import BadRequest, ClientError
from gateway.core.guard import Door, Entry, Guard
from gateway.core.ops import Ref
from gateway.core.reader import Opening, Place, Reader, Tally
from gateway.core.rights import Principal
from gateway.core.start import Start
from gateway.core.subjects import Filter, feed_name
from gateway.transports.arrival import Arrival
from gateway.transports.room import Room
from gateway.transports.ws_frames import UNKNOWN, FrameConnection


class WebSocketConnection(FrameConnection):
    """What both kinds have in common.

    Args:
        room, arrival, dialect: see `Connection`; with a guard whose principal is None, the client has to say who it is.
        door: lets it in.
        entry: what the path serves by itself; None until the client has said who it is.
    """

    __slots__ = ("_before", "_door", "_entry", "feeds")

    def __init__(self, room: Room, arrival: Arrival, dialect: Dialect, door: Door, entry: Entry | None) -> None:
        super().__init__(room, arrival, dialect)
        self._door = door
        self._entry = entry
        self.feeds: dict[str, Reader] = {}
        self._before: Tally | None = None

    # What a kind adds

    def entered(self, entry: Entry) -> None:
        """The client may have what the path serves by itself."""
        raise NotImplementedError

    def left(self, entry: Entry) -> None:
        """The client may have what the path serves by itself, but went while that was found out."""

    def authenticated(self, guard: Guard, ref: Ref) -> None:
        """The client has said who it is, for the first time or anew: answer it."""
        raise NotImplementedError

    def turned_away(self, error: ClientError, ref: Ref) -> None:
        """Its token was not taken: tell it."""
        raise NotImplementedError

    # Who it is

    @property
    def principal(self) -> Principal | None:
        """Who the client is; None: it has not said."""
        return None if self.guard is None else self.guard.principal

    @property
    def is_authenticated(self) -> bool:
        """Whether the client needs to say no more."""
        return self.guard is None or self.guard.principal is not None

    def authenticate(self, token: str, ref: Ref) -> None:
        """Look at a token that came in a message. What the client sent behind it waits."""
        self.hold_reading(UNKNOWN, True)
        self.room.spawn(self._authenticate(token, ref))

    async def _authenticate(self, token: str, ref: Ref) -> None:
        try:
            guard = await self._door.authenticate(token)
            entry = None if self.is_authenticated else await self._door.enter(guard)
            if self.ending is None and self.transport is not None:
                self._let_in(guard, entry, ref)
            elif self.ending is Closing.CLIENT_CLOSED and entry is not None:
                self.guard = guard
                if self.over(self.room.now()) is None:
                    self.left(entry)
        except ClientError as error:
            if self.ending is None and self.transport is not None:
                self.turned_away(error, ref)
                if not self.is_authenticated:
                    self.end(error.closing or Closing.POLICY)  # without one it is the request: no other token mends it
                self._count_error()
        except Exception:  # a fault of ours: nobody stays for it, and the loop logs it
            self.failed()
            raise
        finally:
            self.hold_reading(UNKNOWN, False)

    def _let_in(self, guard: Guard, entry: Entry | None, ref: Ref) -> None:
        before = self.guard
        if entry is not None:
            self.guard = guard
            self.authenticated(guard, ref)
            why = self.named() or self.over(self.room.now())
            if why is not None:
                self.end(why)
            else:
                self.entered(entry)
        elif before is None or before.principal is None or guard.principal is None:
            self.authenticated(guard, ref)  # nobody has to say who they are
        elif before.principal.sub != guard.principal.sub:
            self.end(Closing.FORBIDDEN)  # a connection is one user's
        else:
            if guard.ask is not None:
                guard.ask_at = self.room.now()  # the service is to hear of the new token
            self.guard = guard
            self.authenticated(guard, ref)

    # Feeds

    def subscribe(self, filters: Sequence[Filter], start: Start, opening: Opening | None = None) -> None:
        """Begin to serve a feed of these filters, at `start`.

        Raises:
            BadRequest: the connection has this feed already.
        """
        assert self.transport is not None
        name = feed_name(filters)
        if name in self.feeds:
            raise BadRequest(f"The feed {name} is subscribed to already.", code="already_subscribed")
        self.subscribing(name)
        feed = self.room.hub.feeds.acquire(filters)
        reader = Reader(feed, self.dialect, self, self.transport.write, start, opening)
        self.feeds[feed.name] = reader
        self.room.hub.join(reader)
        self.room.readers_changed()

    def subscribing(self, name: str) -> None:
        """A feed is about to begin: the place for a reply."""

    def unsubscribe(self, name: str) -> None:
        """Stop serving a feed. No event of it is written afterwards."""
        reader = self.feeds.pop(name)
        self.room.hub.leave(reader)
        self._before = self.before()
        self._before.add(reader)
        self.room.readers_changed()

    def before(self) -> Tally:
        return Tally() if self._before is None else self._before

    def readers(self) -> Iterable[Reader]:
        return self.feeds.values()

    # The clock

    def beat(self, now: float) -> None:
        super().beat(now)
        for reader in self.feeds.values():
            if reader.place is Place.LIVE:
                self.checkpoint(reader, now)
