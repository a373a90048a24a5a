"""Admission: who came in is who goes out."""

from __future__ import annotations

import asyncio
from math import inf

from gateway.core.closing import Closing
from gateway.core.guard import Entry, Guard
from gateway.core.rights import Principal
from gateway.core.start import NOW
from gateway.core.subjects import Filter
from gateway.transports.arrival import Arrival
from gateway.transports.ws_v1 import V1Connection
from tests.support.wire import Turns, Wire

ALICE = Principal("alice", ((">",),))


class SlowDoor:
    """Lets everybody in as alice, once it is told to."""

    def __init__(self) -> None:
        self.opens = asyncio.Event()

    async def authenticate(self, token: str) -> Guard:
        await self.opens.wait()
        return Guard(ALICE, inf, Closing.TOKEN_EXPIRED)

    async def enter(self, guard: Guard) -> Entry:
        return Entry([], NOW)

    def allow(self, guard: Guard | None, subjects: tuple[str, ...]) -> list[Filter]:
        raise AssertionError(subjects)


async def test_who_leaves_before_the_name_is_known_leaves_as_nobody() -> None:
    """A client that goes while its token is looked at takes nothing from the count of its user's connections, though it
    is seen off after the token was found good."""
    turns, door = Turns(), SlowDoor()
    room = turns.room()
    room.admission.most_per_sub = 1
    assert room.admission.named("alice") is None
    nobody_yet = Guard(None, inf, Closing.UNAUTHORIZED)
    connection = V1Connection(room, Arrival("events", nobody_yet, "127.0.0.1"), door, None, max_subscriptions=0)
    connection.attach(Wire(), set())
    connection.authenticate("a token", "1")
    connection.connection_lost(None)
    door.opens.set()
    await asyncio.gather(*room.tasks)
    turns.turn()

    assert room.admission.counts == {"connections": 0, "subs": 1, "addresses": 0}
    assert room.admission.named("alice") is Closing.LIMIT_CONNECTIONS
